"""Text and pictures of datasets, layers and mags, for people. Reads, and never writes to a dataset."""
