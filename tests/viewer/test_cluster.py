"""Expressions in the viewer that a cluster computes: where they run, how many at a time, what is not begun."""

import os
import socket
import time

import numpy as np
import pytest
from http_client import get
from shown_blocks import held, of_process
from viewer_slots import recorded_slots

from wkdask.portable import cores
from wkdask.viewer.precomputed import chunk_name

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

CHUNKS = 4
DATA = np.random.default_rng(0).integers(1, 255, (64 * CHUNKS, 64, 64), np.uint8)


@pytest.fixture
def mag(ds):
    layer = ds.add_layer("color", "color", dtype_per_channel="uint8")
    mag = layer.add_mag(1, chunk_shape=32, shard_shape=64)
    mag.write(DATA)
    return mag


def paths(viewer, name):
    scale = viewer._server.layers[name].scales[0]
    root = viewer._server.sources[name].removeprefix(f"precomputed://http://127.0.0.1:{viewer.port}")
    return [f"{root}/1/{chunk_name(scale.cell_box(scale.grid * 0 + (n, 0, 0)))}" for n in range(CHUNKS)]


def wait_for_chunks(client, number):
    """Wait until a scheduler is to compute so many chunks."""

    def there(dask_scheduler):
        return sum(str(key).startswith("finalize") for key in dask_scheduler.tasks)

    limit = time.monotonic() + 60
    while client.run_on_scheduler(there) != number:
        assert time.monotonic() < limit
        time.sleep(0.05)


def fetched(viewer, path):
    status, _, body = get(f"http://127.0.0.1:{viewer.port}{path}")
    assert status == 200, body
    return np.frombuffer(body, np.uint8)


@pytest.mark.parametrize("is_active", [True, False])
def test_workers_compute_what_is_shown(show, mag, local_cluster, is_active):
    from distributed import Client

    with Client(local_cluster, set_as_default=is_active) as client:
        pids = {pid % 251 for pid in client.run(os.getpid).values()}
        lazy = mag.to_dask().map_blocks(of_process, dtype="uint8")
        viewer = show(("where", lazy), client=None if is_active else client)
        found = {int(value) for path in paths(viewer, "where") for value in set(fetched(viewer, path))}
        assert found <= pids
        assert os.getpid() % 251 not in found


def test_a_function_of_a_layer_too(show, mag, client):
    viewer = show(("inverted", lambda block: 255 - block, mag.layer))
    expected = 255 - DATA[:64].ravel(order="F")
    np.testing.assert_array_equal(fetched(viewer, paths(viewer, "inverted")[0]), expected)


def test_what_the_browser_hung_up_on_is_not_begun(show, mag, client, monkeypatch):
    from distributed import Event, Queue

    begun, go_on = Queue("begun"), Event("go on")
    monkeypatch.setattr("wkdask.viewer.viewer._MOST_WAITING", 16)
    go_on.set()  # for the sample that tells the contrast
    viewer = show(("held", mag.to_dask(64).map_blocks(held, dtype="uint8")), mag)
    go_on.clear()
    while begun.qsize():
        begun.get(timeout=60)
    # two workers of one thread: two chunks are begun, the others wait on the scheduler
    viewer._server.slots.widen(8)
    waiting, given_up = recorded_slots(viewer._server)
    asked = []
    for number, path in enumerate(paths(viewer, "held")):
        connection = socket.create_connection(("127.0.0.1", viewer.port))
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        asked.append(connection)
        waiting.get(timeout=60)
        if number < 2:  # these are the two that are begun
            begun.get(timeout=60)
    wait_for_chunks(client, CHUNKS)
    for connection in asked[2:]:
        connection.close()
    for _ in asked[2:]:
        given_up.get(timeout=60)
    wait_for_chunks(client, 2)  # the browser's answer does not wait until the scheduler has forgotten them
    go_on.set()
    for connection in asked[:2]:
        assert connection.recv(12) == b"HTTP/1.1 200"
        connection.close()
    # the workers have nothing else to do, and have begun nothing else
    assert client.submit(int, 3, pure=False).result(timeout=60) == 3
    assert begun.qsize() == 0
    go_on.clear()


def test_a_cluster_computes_as_many_chunks_at_a_time_as_it_has_threads(show, mag, client, monkeypatch):
    class Large:
        @staticmethod
        def scheduler_info(n_workers):
            return {"workers": {number: {"nthreads": 8} for number in range(3)}}

    from wkdask.viewer.viewer import _threads_of

    assert (_threads_of(None), _threads_of(client), _threads_of(Large)) == (0, 2, 24)
    viewer = show(mag)
    assert viewer._server.slots.number == max(2, cores())
    viewer._server.show(tuple(viewer._server.layers.values()), lambda state, sources: state, 24)
    assert viewer._server.slots.number == 24
    assert len(fetched(viewer, paths(viewer, "color")[1])) == 64**3


def test_a_task_that_fails_is_told(show, mag, client):
    from distributed import Event

    def broken(block):
        from distributed import Event

        if block.size > 1 and Event("break").is_set():
            raise ValueError("no such filter")
        return block

    # what fails in the sample that tells the contrast is raised at once
    viewer = show(("broken", mag.to_dask().map_blocks(broken, dtype="uint8")))
    Event("break").set()
    status, _, body = get(f"http://127.0.0.1:{viewer.port}{paths(viewer, 'broken')[0]}")
    Event("break").clear()
    assert status == 500
    assert b"no such filter" in body
