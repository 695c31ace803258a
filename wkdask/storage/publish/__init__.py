"""How a cube becomes visible on a local file system: built in a job's private folder, published by one rename.

Enter at :mod:`~wkdask.storage.publish.publish`. :mod:`~wkdask.storage.publish.jobs` draws the folders of a
job, :mod:`~wkdask.storage.publish.locks` says who may publish, :mod:`~wkdask.storage.publish.manifest` and
:mod:`~wkdask.storage.publish.receipts` are what a job leaves on disk,
:mod:`~wkdask.storage.publish.dead_jobs` what becomes of it when its driver has died.
"""
