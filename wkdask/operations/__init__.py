"""What a job does to voxels: write an array, map a function over chunks or cubes, write slices, copy cubes.

One module per public operation (:mod:`~wkdask.operations.write`, :mod:`~wkdask.operations.chunks`,
:mod:`~wkdask.operations.map_cubes`, :mod:`~wkdask.operations.slices`, :mod:`~wkdask.operations.copy`); each
plans, and lets :mod:`wkdask.jobs` run it. The room knows mags on disk, not the classes of the public API.
"""
