"""Zarr arrays, OME-Zarr images and N5 as layers.

:mod:`~wkdask.convert.zarr.store` opens them, :mod:`~wkdask.convert.zarr.scales` finds the mags of a
multiscale image, :mod:`~wkdask.convert.zarr.layers` copies or references them.
"""
