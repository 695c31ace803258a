"""``wkdask demo``: a small synthetic dataset (:mod:`~wkdask.demo.tissue`) and a first run on it."""
