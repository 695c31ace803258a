"""One job, from its plan to its report.

:mod:`~wkdask.jobs.plan` cuts the box on the cube grid and checks it, :mod:`~wkdask.jobs.job` is what the
job is, :mod:`~wkdask.jobs.driver` runs it: it feeds windows of units to an engine (``engines``), keeps the
:mod:`~wkdask.jobs.journal`, and hands what the tasks report to :mod:`~wkdask.jobs.settlement`, which
commits boxes and shapes. :mod:`~wkdask.jobs.resume` continues a job whose driver has died. This room knows
stored mags and properties, but no view.
"""
