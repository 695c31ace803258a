"""Zarr 3 and Zarr 2 arrays as mags: metadata, shards, codecs.

Enter at :mod:`~wkdask.storage.zarr.mag`. The array's metadata are read and written by
:mod:`~wkdask.storage.zarr.metadata`, a shard's index and chunks by :mod:`~wkdask.storage.zarr.shard`, new
shards are built by :mod:`~wkdask.storage.zarr.build`.
"""
