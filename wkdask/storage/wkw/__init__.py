"""The WKW format: header, cubes of Morton-ordered blocks, jump tables.

Enter at :mod:`~wkdask.storage.wkw.mag`. Reads are checked by :mod:`~wkdask.storage.wkw.files`, voxels are
moved by :mod:`~wkdask.storage.wkw.blocks`, new cubes are built by :mod:`~wkdask.storage.wkw.build`.
"""
