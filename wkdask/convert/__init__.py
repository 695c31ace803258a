"""Conversion of image stacks and other formats into and out of datasets."""
