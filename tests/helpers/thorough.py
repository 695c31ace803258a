"""How much of what is drawn at random a run of the tests tries.

The README's command tries a third of the examples, and types that have kernels anyway; ``WKDASK_THOROUGH=1``, which
`.ci/run` sets, all of them.
"""

import os

import pytest

THOROUGH = os.environ.get("WKDASK_THOROUGH", "0") != "0"


def examples(number):
    """Return how many examples of a test to draw, of the number that it has in a thorough run."""
    return number if THOROUGH else max(4, number // 3)


def drawn(types, few=("uint8", "uint32", "float32")):
    """Return the types to draw voxels of: each one more is compiled anew in every kernel."""
    return list(types) if THOROUGH else [name for name in types if name in few]


def mostly_slow(values, often):
    """Return values, or tuples of values, for `parametrize`; slow unless ``often(position, value)`` is true."""
    return [
        pytest.param(
            *(value if isinstance(value, tuple) else (value,)),
            marks=[] if often(position, value) else [pytest.mark.slow],
        )
        for position, value in enumerate(values)
    ]
