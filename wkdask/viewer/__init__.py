"""Looking at mags and at expressions: a server of chunks on this machine, and neuroglancer in a browser.

The way through it::

    handles, dask arrays ──layers──> ShownLayer, with a Scale for each mag ──chunks──> a bounded cache
                                                                                            │
       browser <──server── precomputed volumes and a Zarr group <──precomputed, zarr_group──┘

It reads and computes, and writes nothing. It takes handles of datasets as they are, and does not import them.
"""
