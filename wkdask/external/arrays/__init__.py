"""Arrays in files: MRC, HDF5, N5, neuroglancer precomputed, NRRD, NIfTI, npy, KNOSSOS cubes, raw voxels.

:mod:`~wkdask.external.arrays.kinds` finds which format a path has, and opens it. Each format is a module
that reads the metadata by a library and returns what :mod:`~wkdask.external.arrays.found` describes.
"""
