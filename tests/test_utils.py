"""wkdask.utils: the helpers that scripts import from there."""

import shutil
from pathlib import Path

import pytest

from wkdask import utils


def test_a_folder_is_copied_into_one_that_exists_and_names_can_be_left_out(tmp_path):
    (tmp_path / "a" / "deep").mkdir(parents=True)
    (tmp_path / "a" / "deep" / "x.txt").write_text("x")
    (tmp_path / "a" / "y.log").write_text("y")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "z").write_text("stays")
    utils.copytree(tmp_path / "a", str(tmp_path / "b"), ignore=shutil.ignore_patterns("*.log"), threads=2)
    assert (tmp_path / "b" / "deep" / "x.txt").read_text() == "x"
    assert (tmp_path / "b" / "z").read_text() == "stays"
    assert not (tmp_path / "b" / "y.log").exists()


def test_folders_files_and_links_are_removed_and_what_is_missing_is_no_error(tmp_path):
    (tmp_path / "kept" / "deep").mkdir(parents=True)
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    for name in ("folder", "file", "link", "broken", "missing"):
        utils.rmtree(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept" / "deep").is_dir()


@pytest.mark.parametrize(
    ("path", "remote"),
    [
        ("/a/b", False),
        ("a:b/c", False),
        (Path("x"), False),
        ("s3://bucket/a", True),
        ("https://host/a", True),
        ("memory://a", True),
        (Path("s3://bucket/a"), True),
    ],
)
def test_an_address_is_told_from_a_path(path, remote):
    assert utils.is_remote_path(path) is remote
    assert utils.is_fs_path(path) is not remote


def test_what_is_no_path_is_none():
    assert not utils.is_fs_path(3)
    assert not utils.is_remote_path(3)


def test_a_path_as_the_properties_file_writes_it(tmp_path):
    dataset = tmp_path / "ds"
    assert utils.dump_path(dataset / "color" / "1", dataset) == "./color/1"
    assert utils.dump_path("color/1", dataset) == "./color/1"
    assert utils.dump_path(tmp_path / "other" / "1", dataset) == f"{tmp_path.resolve()}/other/1"
    assert utils.dump_path("../ds_2/1", dataset) == f"{tmp_path.resolve()}/ds_2/1", "no part of a name counts"
    assert utils.dump_path("/a/../b") == "/b"
    assert utils.dump_path("s3://bucket/a", dataset) == "s3://bucket/a"
    with pytest.raises(ValueError, match="give dataset_path"):
        utils.dump_path("color/1")
    with pytest.raises(ValueError, match="must be absolute"):
        utils.dump_path("color/1", "ds")


def test_names_in_the_spelling_of_the_properties_file():
    assert utils.snake_to_camel_case("segmentation_pattern_opacity") == "segmentationPatternOpacity"
    assert utils.snake_to_camel_case("zoom") == "zoom"
