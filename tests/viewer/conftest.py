"""A dataset, and viewers that are closed after the test."""

import pytest

import wkdask


@pytest.fixture
def ds(tmp_path):
    """A dataset without layers."""
    return wkdask.Dataset.create(tmp_path / "ds", (8, 8, 30))


@pytest.fixture
def show():
    """Return `wkdask.view`, whose viewers are closed after the test."""
    opened = []

    def call(*shown, **how):
        opened.append(wkdask.view(*shown, **how))
        return opened[-1]

    yield call
    for viewer in opened:
        viewer.close()
