"""Cubes in object stores: the mags of `storage.wkw` and `storage.zarr`, whose files are objects.

An :class:`~wkdask.storage.objects.mag.ObjectMag` holds the mag of its format, which knows names, layout and how
bytes become voxels. What is done here is to fetch those bytes: the header and the jump table (or the index of a
shard) once for each cube, kept by the object's ETag; then the ranges of the chunks that a box touches, neighbours
together.
"""
