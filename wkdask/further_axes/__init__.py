"""Layers with axes beside x, y, z and channels, such as time: read, and written as Zarr 3.

Enter at :mod:`~wkdask.further_axes.mag_view`.
"""
