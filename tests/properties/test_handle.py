"""The properties handle: never stale, never reads twice for nothing, crosses a process boundary."""

import os
import pickle
import threading
from pathlib import Path

import pytest

from wkdask import BoundingBox, Dataset
from wkdask.errors import InvalidValueError, LayerNotFoundError, PropertiesError
from wkdask.properties import AddLayer, RemoveLayer, SetBox, SetDatasetName
from wkdask.properties.handle import Properties


@pytest.fixture
def properties(tmp_path):
    Dataset.create(tmp_path / "ds", (1, 1, 1)).add_layer("color", "color")
    return Properties(str(tmp_path / "ds"))


def test_the_file_is_read_again_only_when_it_changed(properties):
    first = properties.record
    assert properties.record is first
    assert properties.layer("color") is first.layer("color")
    os.utime(Path(properties.folder, "datasource-properties.json"), ns=(1, 1))
    assert properties.record is not first
    assert properties.record == first


def test_a_commit_is_seen_by_every_handle(properties):
    other = Properties(properties.folder)
    assert other.record == properties.record
    box = BoundingBox((1, 2, 3), (4, 5, 6))
    returned = properties.commit(SetDatasetName("new"), [SetBox("color", box)])
    assert returned == properties.record == other.record
    assert other.record.name == "new"
    assert other.layer("color").bounding_box == box


def test_a_commit_of_another_process_is_seen(properties, children):
    before = properties.record
    children.run("wkdask.Dataset(args[0]).add_layer('more', 'color')", properties.folder)
    assert [layer.name for layer in before.layers] == ["color"]
    assert [layer.name for layer in properties.record.layers] == ["color", "more"]
    children.run("wkdask.Dataset(args[0]).delete_layer('more')", properties.folder)
    with pytest.raises(LayerNotFoundError, match="color"):
        properties.layer("more")


def test_edits_apply_to_the_file_as_it_is_now(properties):
    _ = properties.record
    Properties(properties.folder).commit(AddLayer("b", "color", "uint8", 1))
    properties.commit(AddLayer("c", "color", "uint8", 1))
    assert [layer.name for layer in properties.record.layers] == ["color", "b", "c"]
    with pytest.raises(LayerNotFoundError):
        properties.commit(RemoveLayer("c"), RemoveLayer("absent"))
    assert [layer.name for layer in properties.record.layers] == ["color", "b", "c"]


def test_a_file_that_is_gone_or_damaged_says_so_until_it_is_back(properties):
    path = Path(properties.folder, "datasource-properties.json")
    good = path.read_bytes()
    before = properties.record
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"datasource-properties\.json"):
        _ = properties.record
    path.write_text("{")
    with pytest.raises(PropertiesError):
        _ = properties.record
    path.write_bytes(good)
    assert properties.record == before


def test_handles_pickle_to_their_folder(properties, children):
    _ = properties.record
    data = pickle.dumps(properties)
    assert len(data) < 300
    again = pickle.loads(data)
    assert again.folder == properties.folder
    assert again.record == properties.record
    path = Path(properties.folder).parent / "handle"
    path.write_bytes(data)
    script = "import pickle; print(pickle.load(open(args[0], 'rb')).record.layers[0].name)"
    assert children.run(script, path).strip() == "color"


def test_paths_are_absolute_from_the_start(properties, monkeypatch, tmp_path):
    monkeypatch.chdir(Path(properties.folder).parent)
    relative = Properties("ds")
    monkeypatch.chdir(tmp_path / "ds")
    assert relative.folder == properties.folder
    assert relative.record == properties.record
    with pytest.raises(InvalidValueError):
        Properties("a\0b")


def test_a_handle_says_where_it_is(properties):
    _ = properties.record
    assert repr(properties) == f"Properties(folder={properties.folder!r})"


def test_threads_that_share_a_handle_never_go_back(properties):
    """Each sees the names in the order in which they were written, and all see the last one."""
    stop, wrong = threading.Event(), []

    def look():
        last = -1
        while not stop.is_set():
            name = properties.record.name
            number = int(name) if name.isdigit() else -1
            if number < last:
                wrong.append((last, number))
            last = number

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    writer = Properties(properties.folder)
    for number in range(60):
        writer.commit(SetDatasetName(str(number)))
    stop.set()
    for thread in threads:
        thread.join()
    assert properties.record.name == "59"
