"""Where tasks run: local threads or a distributed cluster, behind one protocol.

Enter at :mod:`~wkdask.jobs.engines.choice`, which picks one; :mod:`~wkdask.jobs.engines.protocol` is what
an engine does.
"""
