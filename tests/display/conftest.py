"""A dataset to show."""

import pytest

from wkdask import Dataset


@pytest.fixture
def ds(tmp_path):
    return Dataset.create(tmp_path / "tissue", (8, 8, 30))
