"""Does a dataset hold what it says? Findings about its files, its voxels, and what a WEBKNOSSOS server needs.

::

    run ──properties──> the layers that can be understood
        ──folders, metadata, ome, server──> findings without a look at a cube
        ──listing──> which cubes there are ──cubes──> headers and indexes, on the scheduler
        ──content, pyramid──> with `deep`: every voxel
        ──> a CheckReport ──repair──> what of it cannot lose a voxel

Enter at :func:`wkdask.check.run.check_dataset`. Only :mod:`wkdask.check.repair` changes anything, when it is asked.
"""
