"""Reading from a store that fails: what passes is waited for, the rest is an error that names the object."""

import contextlib
import multiprocessing
import pickle
import threading
from pathlib import Path

import dask
import numpy as np
import proxy_rules as rules
import pytest
from object_server import ACCESS_KEY, SECRET
from stored_objects import put_folder

from wkdask import BoundingBox, Dataset
from wkdask.errors import (
    CubePermissionError,
    DamagedCubeError,
    DamagedHeaderError,
    PropertiesError,
    StoreError,
    WkdaskError,
)
from wkdask.geometry import Vec3Int
from wkdask.objects.metadata import forget_metadata
from wkdask.storage.formats import create_mag, open_mag
from wkdask.storage.protocol import ArraySpec
from wkdask.storage.publish.jobs import job_folder
from wkdask.storage.publish.publish import Piece, publish_pieces

CHUNK, CUBE = 16, 64
ALL = BoundingBox((0, 0, 0), (2 * CUBE, CUBE, CUBE))
LAYOUTS = {
    "wkw-raw": ("wkw", None),
    "wkw-lz4": ("wkw", "lz4"),
    "zarr3": ("zarr3", "zstd"),
}
FIRST_CUBE = {"wkw": r"x0\.wkw$", "zarr3": r"c/0/0/0/0$"}


def write_cube(mag, index, block):
    box = mag.spec.grid.cube_box(Vec3Int(*index))
    with job_folder(mag) as private:
        publish_pieces(mag, private, [Piece(Vec3Int(*index), box, block)])


@pytest.fixture(params=LAYOUTS)
def made(request, tmp_path):
    """Return (a mag of two cubes of random voxels on the disk, its voxels)."""
    data_format, compression = LAYOUTS[request.param]
    spec = ArraySpec("uint8", 1, Vec3Int.full(CHUNK), Vec3Int.full(CUBE), compression, data_format)
    mag = create_mag(str(tmp_path / "1"), spec, data_format, ALL.bottomright)
    voxels = np.random.default_rng(3).integers(1, 200, (1, *ALL.size), "uint8")
    for number in (0, 1):
        write_cube(mag, (number, 0, 0), voxels[:, number * CUBE : (number + 1) * CUBE])
    return mag, voxels


@pytest.fixture
def stored(made, proxied_bucket):
    """Return (the mag behind a proxy, its voxels, the proxy, the pattern of its first cube's key, the bucket)."""
    local, voxels = made
    url = f"{proxied_bucket.url}/ds/color/1"
    put_folder(local.path, url)
    proxied_bucket.proxy.clear()
    mag = open_mag(url, local.spec.data_format)
    with dask.config.set({"wkdask.store-retries": 2}):
        yield mag, voxels, proxied_bucket.proxy, FIRST_CUBE[local.spec.data_format], proxied_bucket


def first_cube(bucket):
    """Return the key of the first cube."""
    return next(name for name in sorted(bucket.keys()) if name.endswith(("x0.wkw", "c/0/0/0/0")))


def read_equals(mag, voxels, box=ALL):
    return np.array_equal(mag.read(box), voxels[(slice(None), *box.to_slices())])


# what a read costs


def test_requests_of_a_whole_cube(stored):
    mag, voxels, proxy, _, _ = stored
    proxy.clear()
    assert read_equals(mag, voxels, BoundingBox((0, 0, 0), (CUBE, CUBE, CUBE)))
    assert len(proxy.requests("GET", ".wkw") + proxy.requests("GET", "0/0/0/0")) == 1


def test_a_small_box_fetches_a_small_part(stored):
    mag, voxels, proxy, _, _ = stored
    forget_metadata(mag.metadata_path)
    proxy.clear()
    box = BoundingBox((20, 20, 20), (8, 8, 8))
    assert read_equals(mag, voxels, box)
    assert len(proxy.log) <= 3  # the header of the mag, of the cube, the chunk
    chunk, table = CHUNK**3 + 1024, 16 * (CUBE // CHUNK) ** 3 + 1024
    assert sum(entry.answered for entry in proxy.log) <= chunk + table
    proxy.clear()
    assert read_equals(mag, voxels, box)
    assert len(proxy.log) == 1  # what it began with is known


# what passes


@pytest.mark.parametrize(
    "rule",
    [
        rules.Say(503, "SlowDown", times=2),
        rules.Say(429, "TooManyRequests", times=1),
        rules.Say(500, times=1),
        rules.Drop(times=2),
        rules.LoseAnswer(times=1),
        rules.Truncate(100, method="GET", times=2),
        rules.OtherRange(7, times=1),
    ],
    ids=["503", "429", "500", "dropped", "lost", "truncated", "other range"],
)
def test_what_passes_is_waited_for(stored, rule):
    mag, voxels, proxy, _, _ = stored
    box = BoundingBox((20, 20, 20), (CUBE, 8, 8))
    with proxy.rule(rule):
        assert read_equals(mag, voxels, box)
    assert rule.done


def test_every_tenth_request_fails(stored):
    mag, voxels, proxy, _, _ = stored
    with proxy.rule(rules.Say(503, every=10)) as one, proxy.rule(rules.Drop(every=7)):
        for x in range(0, 2 * CUBE, CHUNK):
            for y in range(0, CUBE, CHUNK):
                assert read_equals(mag, voxels, BoundingBox((x, y, 3), (CHUNK, CHUNK, 5)))
    assert one.done > 3


# what does not


def test_what_fails_for_ever_is_a_store_error(stored):
    mag, _, proxy, _, _ = stored
    with (
        proxy.rule(rules.Say(503, "SlowDown")) as rule,
        pytest.raises(StoreError, match=r"503.*asked 3 times"),
    ):
        mag.read(BoundingBox((0, 0, 0), (1, 1, 1)))
    assert rule.done == 3


def test_a_server_that_is_down_is_a_store_error(stored):
    mag, voxels, proxy, _, _ = stored
    proxy.stop()
    with pytest.raises(StoreError, match=f"{mag.path}.*asked 3 times"):
        mag.read(BoundingBox((0, 0, 0), (1, 1, 1)))
    proxy.start()
    assert read_equals(mag, voxels)


def test_another_range_each_time_is_an_error(stored):
    mag, _, proxy, _, _ = stored
    with proxy.rule(rules.OtherRange(7)), pytest.raises((StoreError, DamagedCubeError), match=mag.path):
        mag.read(BoundingBox((20, 20, 20), (8, 8, 8)))


def test_a_cube_that_may_not_be_read_is_no_zeros(stored):
    mag, _, proxy, key, _ = stored
    with (
        proxy.rule(rules.Say(403, "AccessDenied", key=key)) as rule,
        pytest.raises(CubePermissionError, match=r"a bucket that may not be listed answers so") as caught,
    ):
        mag.read(ALL)
    assert rule.done == 1  # it is not asked again
    assert mag.path in str(caught.value)


def test_a_missing_cube_is_zeros_and_a_missing_mag_is_none(stored):
    mag, voxels, _, _, bucket = stored
    first = first_cube(bucket)
    bucket.remove(first)
    expected = voxels.copy()
    expected[:, :CUBE] = 0
    assert read_equals(mag, expected)
    bucket.remove(mag.metadata_path.removeprefix(f"{bucket.url}/"))
    with pytest.raises(DamagedHeaderError, match=mag.metadata_path):
        mag.read(ALL)


def test_a_header_that_may_not_be_read_is_named(stored):
    mag, _, proxy, _, _ = stored
    forget_metadata(mag.metadata_path)
    with proxy.rule(rules.Say(403, "AccessDenied")), pytest.raises(PermissionError, match="access denied"):
        open_mag(mag.path)


# a cube that changes meanwhile


def test_a_cube_that_is_replaced_during_a_read_is_never_mixed(stored, made):
    """Between its first bytes and its chunks another cube is put there: the read is of one of them."""
    mag, voxels, proxy, key, bucket = stored
    local, _ = made
    box = BoundingBox((10, 10, 10), (20, 20, 20))
    old = voxels[(slice(None), *box.to_slices())]
    name = first_cube(bucket)
    new = 255 - voxels[:, :CUBE]
    write_cube(local, (0, 0, 0), new)
    data = Path(local.cube_path(Vec3Int(0, 0, 0))).read_bytes()
    found = []
    with proxy.rule(rules.Hold(key=key, after=1)) as held:
        reader = threading.Thread(target=lambda: found.append(mag.read(box)))
        reader.start()
        held.wait_for()
        bucket.write(name, data)
        held.release()
        reader.join()
    assert np.array_equal(found[0], new[(slice(None), *box.to_slices())])
    assert not np.array_equal(found[0], old)


def test_a_cube_that_is_replaced_again_and_again(stored):
    mag, voxels, proxy, _, _ = stored
    box = BoundingBox((10, 10, 10), (20, 20, 20))
    with (
        proxy.rule(rules.Say(412, "PreconditionFailed", where=lambda request: request.if_match is not None)),
        pytest.raises(DamagedCubeError, match=r"is replaced again and again"),
    ):
        mag.read(box)
    assert read_equals(mag, voxels, box)


# a whole dataset


@pytest.fixture
def dataset(proxied_bucket, tmp_path):
    """Return (a dataset behind a proxy, its voxels, the bucket)."""
    ds = Dataset.create(tmp_path / "ds", (4, 4, 35))
    layer = ds.add_layer("color", "color", dtype="uint8")
    mag = layer.add_mag(1, chunk_shape=CHUNK, shard_shape=CUBE, compression="lz4")
    voxels = np.random.default_rng(5).integers(1, 200, (1, *ALL.size), "uint8")
    mag.write(voxels, progress=False)
    put_folder(ds.path, proxied_bucket.url)
    with dask.config.set({"wkdask.store-retries": 3}):
        yield Dataset(proxied_bucket.url), voxels, proxied_bucket


def test_a_server_that_stops_while_dask_computes(dataset):
    ds, voxels, bucket = dataset
    lazy = ds.get_layer("color").get_mag(1).to_dask()
    found = []
    with bucket.proxy.rule(rules.Hold(key=r"\.wkw$")) as held:
        computing = threading.Thread(target=lambda: found.append(lazy.compute()))
        computing.start()
        held.wait_for()
        bucket.proxy.stop()
        held.release()
        bucket.proxy.start()
        computing.join()
    assert np.array_equal(found[0], voxels)


def test_properties_that_are_cut_or_gone(dataset):
    ds, _, bucket = dataset
    bucket.write("datasource-properties.json", b'{"id": ')
    forget_metadata(f"{bucket.url}/datasource-properties.json")
    with pytest.raises(PropertiesError, match=bucket.url):
        Dataset(bucket.url)
    bucket.remove("datasource-properties.json")
    forget_metadata(f"{bucket.url}/datasource-properties.json")
    with pytest.raises(FileNotFoundError, match=bucket.url):
        Dataset(bucket.url)
    assert ds.path == bucket.url


def read_in_a_child(url, answers):
    """Read in a forked process."""
    try:
        answers.put(repr(Dataset(url).get_layer("color").get_mag(1).read().sum()))
    except WkdaskError as error:
        answers.put(f"{type(error).__name__}: {error}")


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_is_told_so(dataset):
    """It would wait for ever for the threads of the parent's client."""
    ds, _, bucket = dataset
    ds.get_layer("color").get_mag(1).read()
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=read_in_a_child, args=(bucket.url, answers), daemon=True)
    child.start()
    try:
        assert answers.get(timeout=60).startswith("StoreError: s3://")
    finally:
        child.kill()
        child.join()


# secrets


def test_no_secret_is_in_what_is_shown_or_kept(dataset, tmp_path, caplog):
    caplog.set_level("DEBUG")
    ds, voxels, bucket = dataset
    mag = ds.get_layer("color").get_mag(1)
    lazy = mag.to_dask()
    texts = [repr(ds), ds._repr_html_(), repr(mag), mag._repr_html_(), repr(lazy), str(dict(lazy.dask))]
    kept = [pickle.dumps(each) for each in (ds, mag, lazy, mag.place)]
    target = Dataset.create(tmp_path / "target", (4, 4, 35)).add_layer("color", "color", dtype="uint8")
    there = target.add_mag(1, chunk_shape=CHUNK, shard_shape=CUBE)
    there.write(lazy + 1, resume=True, progress=False)
    ds.copy_dataset(tmp_path / "copy", progress=False)
    assert np.array_equal(there.read(), voxels + 1)
    with bucket.proxy.rule(rules.Say(403, "AccessDenied", key=r"\.wkw$")):
        for call in (mag.read, lazy.compute, lambda: there.write(lazy + 2, job="two", progress=False)):
            with pytest.raises((WkdaskError, OSError)) as caught:
                call()
            error = caught.value
            while error is not None:
                texts += [str(error), repr(error), *getattr(error, "__notes__", ())]
                kept.append(pickle.dumps(error))
                error = error.__cause__ or error.__context__
    with contextlib.suppress(Exception):
        Dataset(f"{bucket.url}/nothing")
    texts.append(caplog.text)
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    for secret in (SECRET, ACCESS_KEY):
        assert not [text for text in texts if secret in text]
        assert not [data for data in (*kept, *files) if secret.encode() in data]


def test_options_that_are_not_understood_are_not_repeated(bucket):
    with pytest.raises(WkdaskError, match=r"no_such_option") as caught:
        Dataset(bucket.url, storage_options={"no_such_option": SECRET, "key": ACCESS_KEY})
    assert SECRET not in str(caught.value)
    assert ACCESS_KEY not in repr(caught.value)
