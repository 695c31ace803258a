"""Coarser and finer mags: all mags of a pyramid in one pass over the finest.

:mod:`~wkdask.pyramid.mags` says which mags, :mod:`~wkdask.pyramid.plan` which task makes which cubes of
them, :mod:`~wkdask.pyramid.tasks` what a task does, :mod:`~wkdask.pyramid.job` runs it,
:mod:`~wkdask.pyramid.write` makes a pyramid while mag 1 is written.
"""
