"""From a job's events to a progress bar or to lines of a log.

:mod:`~wkdask.progress.tally` counts, :mod:`~wkdask.progress.bar` shows (in notebooks by
:mod:`~wkdask.progress.notebook`), :mod:`~wkdask.progress.combined` shows several jobs as one.
"""
