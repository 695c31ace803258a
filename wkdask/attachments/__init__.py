"""Files that belong to a layer: meshes, agglomerates, segment indexes, statistics, connectomes.

Enter at :mod:`~wkdask.attachments.attachments`; :mod:`~wkdask.attachments.kinds` are the values.
"""
