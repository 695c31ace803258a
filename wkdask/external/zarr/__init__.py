"""Zarr arrays, OME-Zarr images and N5, as arrays ``(c, x, y, z)``.

:mod:`~wkdask.external.zarr.store` opens them, :mod:`~wkdask.external.zarr.array` finds the axes of an array,
:mod:`~wkdask.external.zarr.ome_zarr` and :mod:`~wkdask.external.zarr.scale_mags` the mags of a multiscale image.
"""
