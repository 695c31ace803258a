"""Data of other formats, as layers: images in ``images``, Zarr, OME-Zarr and N5 in ``zarr``.

:mod:`~wkdask.convert.target` finds or makes the layer that both write to.
"""
