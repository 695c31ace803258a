"""Boxes of mags as files of other programs: TIFF, PNG, OME-TIFF, zipped OME-Zarr, NRRD, npy.

:mod:`~wkdask.export.job` plans an export and runs it; :mod:`~wkdask.export.formats` says which format is written by
what. A format is a :class:`~wkdask.export.writer.Writer`: tasks make its parts, and the driver puts them together.
"""
