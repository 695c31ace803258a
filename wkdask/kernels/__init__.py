"""Compiled kernels: transposes, statistics, downsampling, components of blocks ``(c, x, y, z)``, without the GIL.

Importing this package imports numba; a kernel is compiled, or loaded from the disk cache, at its first call.
"""

from wkdask.kernels.blocks import (
    READ_GAP,
    BlockTarget,
    in_voxel_rows,
    pack_blocks,
    read_blocks,
    takes_voxel_rows,
    unpack_blocks,
)
from wkdask.kernels.components import CONNECTIVITIES, first_places, label_block, merge_pairs
from wkdask.kernels.histograms import count_bins, count_values, finite_range
from wkdask.kernels.interpolation import INTERPOLATIONS, reach
from wkdask.kernels.lz4 import has_lz4, pack_lz4, unpack_lz4
from wkdask.kernels.morton import morton_numbers, morton_places
from wkdask.kernels.moves import mirror_pad, to_fortran, upsample
from wkdask.kernels.sampling import BLOCK_MODES, MODES, downsample, downsample_blocks
from wkdask.kernels.statistics import MinMax, block_stats, is_zero, nonzero_bounds

__all__ = [
    "BLOCK_MODES",
    "CONNECTIVITIES",
    "INTERPOLATIONS",
    "MODES",
    "READ_GAP",
    "BlockTarget",
    "MinMax",
    "block_stats",
    "count_bins",
    "count_values",
    "downsample",
    "downsample_blocks",
    "finite_range",
    "first_places",
    "has_lz4",
    "in_voxel_rows",
    "is_zero",
    "label_block",
    "merge_pairs",
    "mirror_pad",
    "morton_numbers",
    "morton_places",
    "nonzero_bounds",
    "pack_blocks",
    "pack_lz4",
    "reach",
    "read_blocks",
    "takes_voxel_rows",
    "to_fortran",
    "unpack_blocks",
    "unpack_lz4",
    "upsample",
]
