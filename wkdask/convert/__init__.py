"""Conversions: images (:mod:`~wkdask.convert.images`) and Zarr (:mod:`~wkdask.convert.zarr`) become layers.

The dataset is opened or made by :mod:`~wkdask.external.target`; the formats are read by :mod:`wkdask.external`.
"""
