"""Cubes on disk: one protocol, one folder per format, and how a finished cube becomes visible.

Enter at :mod:`~wkdask.storage.protocol` (what a stored mag can do) and :mod:`~wkdask.storage.formats`
(which format a folder has). ``wkw`` and ``zarr`` implement the protocol and do not know each other;
``publish`` builds cubes in a private folder and renames them under a lock. This room knows boxes and bytes,
but no dask, no job and no properties.
"""
