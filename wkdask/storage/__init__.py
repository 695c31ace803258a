"""Stored magnifications: what is on disk, how a cube is read, built and published."""
