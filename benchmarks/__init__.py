"""Measurements: ratios against peers within one run, never timed tests.

::

    data      two volumes: an image stack tiled, labels of synthetic tissue
    bare      the wkw library in a loop over cubes, with as many threads: the roofline
    peer      webknossos and others, in a Python of their own; peer_side runs there and imports nothing of ours
    contest   one row: sides that do the same work, in turn, round by round; every output compared voxel by voxel
    rows_*    the rows
    results   what is kept of a row, and the table in RESULTS.md
"""
