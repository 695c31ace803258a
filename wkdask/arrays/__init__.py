"""Where lazy arrays and expressions meet dask graphs. Only this room and the engines look into a graph.

:mod:`~wkdask.arrays.lazy` makes the lazy array of a mag, :mod:`~wkdask.arrays.expression` cuts an
expression into units of work, :mod:`~wkdask.arrays.graph_facts` finds which mags and boxes a graph reads,
:mod:`~wkdask.arrays.names` why the name of an array is non-deterministic.
"""
