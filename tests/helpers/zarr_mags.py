"""Small Zarr mags, and what the test files about them share."""

import numpy as np
import pytest

from wkdask.geometry import BoundingBox, Vec3Int
from wkdask.storage.protocol import ArraySpec
from wkdask.storage.publish.jobs import job_folder
from wkdask.storage.publish.publish import Piece, publish_pieces
from wkdask.storage.zarr.mag import ZarrMag

SIDE = 16  # of the shards of most tests: 2**3 chunks of 8**3 voxels
CUBE_0 = BoundingBox((0, 0, 0), (SIDE, SIDE, SIDE))
FORMATS = [("zarr3", "zstd"), ("zarr3", None), ("zarr3", "gzip"), ("zarr", "zstd"), ("zarr", None)]
each_format = pytest.mark.parametrize(("data_format", "compression"), FORMATS)


def noise(shape, dtype="uint8", seed=0):
    return np.random.default_rng(seed).integers(1, 100, shape).astype(dtype, order="F")


def make(
    folder, data_format="zarr3", compression="zstd", dtype="uint8", channels=1, chunk=8, shard=SIDE, **more
):
    """Return an empty mag."""
    shard = chunk if data_format == "zarr" else shard
    spec = ArraySpec(
        dtype, channels, Vec3Int.from_scalar_or_vec(chunk), Vec3Int.from_scalar_or_vec(shard), compression
    )
    return ZarrMag.create(str(folder), spec, data_format, **more)


def write(mag, box, block, **options):
    """Publish a box as a job does."""
    mag.prepare(box)
    with job_folder(mag) as folder:
        pieces = [
            Piece(index, piece, block[(slice(None), *piece.to_slices(box.topleft))])
            for index, piece in mag.spec.grid.pieces(box)
        ]
        publish_pieces(mag, folder, pieces, durable=False, **options)
    mag.finish()


def cubes(mag):
    return {tuple(index) for index in mag.cubes_on_disk()}
