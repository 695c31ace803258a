"""Data in formats of others, read as stacks and arrays, and written as layers.

``images`` reads TIFF, PNG and JPEG, ``zarr`` reads Zarr and OME-Zarr, ``arrays`` reads MRC, HDF5, N5 and
others; :mod:`~wkdask.external.target` makes the layer and the mag that they are written to. Whole
conversions, with their dataset, are in :mod:`wkdask.convert`.
"""
