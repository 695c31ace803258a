"""Conversions: what becomes layers.

:mod:`~wkdask.convert.images` converts images, :mod:`~wkdask.convert.zarr` Zarr and OME-Zarr, and
:mod:`~wkdask.convert.arrays` arrays in other files. The dataset is opened or made by
:mod:`~wkdask.convert.target`; the formats are read by :mod:`wkdask.external`.
"""
