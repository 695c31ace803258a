"""Object stores: s3, gs, az, http(s) and, for tests, memory. The only room that knows `obstore`.

What lies at a URL is read from here: whole objects, ranges of them, names below a prefix. The errors are those of
files: what is missing raises a FileNotFoundError, what may not be read a PermissionError, everything else a
:class:`~wkdask.errors.StoreError`. The way through: `urls` (which object), `stores` (the client and its
credentials), `reading` (requests, repeated where they fail), `metadata` (small files, kept for some seconds).
"""
