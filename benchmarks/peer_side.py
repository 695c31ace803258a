"""Runs in the peers' own Python: one line of JSON on stdout for each call on stdin, until stdin ends.

Imports nothing of ours and uses only the peers' public interfaces. What is timed answers with its seconds;
processes of an executor were started, and have imported what they need, before the clock starts.
"""

import contextlib
import json
import os
import shutil
import sys
import time
import traceback
from importlib.metadata import version

import numpy as np

PROCESSES = len(os.sched_getaffinity(0))


def invert(args):
    """Write what 255 misses of a chunk: the function for `for_zipped_chunks`."""
    source, target, _ = args
    target.write(255 - source.read())


def nothing(number):
    """Let a worker process start and import."""
    import webknossos  # noqa: F401

    return number


class Webknossos:
    """webknossos, with its numba extra.

    What is asked for says on which executor: "sequential" is one process, "running" a pool whose processes have
    started and imported before the clock starts, "started" one that is made on the clock, as a script does that
    calls it once. Of several names the one that was faster at first goes on.
    """

    def __init__(self):
        self._running = None
        self._best = {}

    def _pool(self):
        from cluster_tools import get_executor

        return get_executor("multiprocessing", max_workers=PROCESSES)

    @contextlib.contextmanager
    def _executor(self, name):
        from cluster_tools import get_executor

        if name == "sequential":
            with get_executor(name) as executor:
                yield executor
            return
        if self._running is None:
            self._running = self._pool()
            self._running.__enter__()
            list(self._running.map(nothing, range(4 * PROCESSES)))
        yield self._running

    def close(self):
        if self._running is not None:
            self._running.__exit__(None, None, None)

    def _timed(self, key, before, work, executors):
        """Run `work(executor)` after `before()`; the first time on every executor that is named."""
        names = [self._best[key, *executors]] if (key, *executors) in self._best else executors
        seconds = {}
        for name in names:
            before()
            if name == "started":
                start = time.perf_counter()
                with self._pool() as executor:
                    work(executor)
                seconds[name] = time.perf_counter() - start
                continue
            with self._executor(name) as executor:
                start = time.perf_counter()
                work(executor)
                seconds[name] = time.perf_counter() - start
        best = min(seconds, key=seconds.get)
        self._best.setdefault((key, *executors), best)
        return seconds[best]

    def downsample(self, path, layer, coarsest, compress, shard, executors):
        import webknossos as wk

        def drop():
            dataset = wk.Dataset.open(path)
            for mag in [mag for mag in dataset.get_layer(layer).mags if mag != wk.Mag(1)]:
                dataset.get_layer(layer).delete_mag(mag)

        def work(executor):
            wk.Dataset.open(path).get_layer(layer).downsample(
                from_mag=wk.Mag(1),
                coarsest_mag=wk.Mag(coarsest),
                sampling_mode="isotropic",
                chunk_shape=32,
                shard_shape=shard,
                compress=compress,
                executor=executor,
            )

        return self._timed(f"downsample {layer} {compress}", drop, work, executors)

    def compress(self, source, path, layer, executors):
        import webknossos as wk

        def copy():
            shutil.rmtree(path, ignore_errors=True)
            shutil.copytree(source, path, ignore=shutil.ignore_patterns(".wkdask"))

        def work(executor):
            wk.Dataset.open(path).get_layer(layer).get_mag(1).compress(executor=executor)

        return self._timed("compress", copy, work, executors)

    def invert(self, path, layer, shard, executors):
        import webknossos as wk

        def drop():
            dataset = wk.Dataset.open(path)
            if "inverted" in dataset.layers:
                dataset.delete_layer("inverted")
            box = dataset.get_layer(layer).bounding_box
            target = dataset.add_layer(
                "inverted", "color", dtype="uint8", data_format="wkw", bounding_box=box
            )
            target.add_mag(1, chunk_shape=32, shard_shape=shard, compress=False)

        def work(executor):
            dataset = wk.Dataset.open(path)
            source, target = (dataset.get_layer(name).get_mag(1).get_view() for name in (layer, "inverted"))
            source.for_zipped_chunks(
                invert,
                target,
                source_chunk_shape=(shard,) * 3,
                target_chunk_shape=(shard,) * 3,
                executor=executor,
            )

        return self._timed("invert", drop, work, executors)

    def convert(self, images, path, voxel_size, shard, executors):
        import webknossos as wk

        def work(executor):
            wk.Dataset.from_images(
                images,
                path,
                voxel_size=tuple(voxel_size),
                layer_name="images",
                layer_category="color",
                data_format="wkw",
                chunk_shape=32,
                shard_shape=shard,
                compress=False,
                executor=executor,
            )

        return self._timed("convert", lambda: shutil.rmtree(path, ignore_errors=True), work, executors)


class Calls:
    """What can be asked for."""

    def __init__(self):
        self.webknossos = Webknossos()
        self._opened = {}

    def versions(self):
        names = ("webknossos", "numba", "igneous-pipeline", "tinybrain", "cloud-volume", "wkw")
        found = {}
        for name in names:
            with contextlib.suppress(Exception):
                found[name] = version(name)
        return found

    def downsample(self, **arguments):
        return self.webknossos.downsample(**arguments)

    def compress(self, **arguments):
        return self.webknossos.compress(**arguments)

    def invert(self, **arguments):
        return self.webknossos.invert(**arguments)

    def convert(self, **arguments):
        return self.webknossos.convert(**arguments)

    def igneous_prepare(self, path, npy, side):
        """Make a precomputed segmentation of plain chunks, with mip 0 only."""
        from cloudvolume import CloudVolume

        shutil.rmtree(path, ignore_errors=True)
        data = np.load(npy, mmap_mode="r")
        info = CloudVolume.create_new_info(
            num_channels=1,
            layer_type="segmentation",
            data_type=str(data.dtype),
            encoding="raw",
            resolution=[4, 4, 4],
            voxel_offset=[0, 0, 0],
            chunk_size=[side] * 3,
            volume_size=list(data.shape[1:]),
        )
        volume = CloudVolume(f"file://{path}", info=info, compress=False, progress=False)
        volume.commit_info()
        for z in range(0, data.shape[3], side):
            volume[:, :, z : z + side] = np.asfortranarray(data[0, :, :, z : z + side])

    def random_reads(self, path, layer, boxes):
        """Read boxes of mag 1, one after the other; return CPU seconds, seconds, and the sum of the last one."""
        import webknossos

        if (path, layer) not in self._opened:
            self._opened[path, layer] = webknossos.Dataset.open(path).get_layer(layer).get_mag(1)
        mag = self._opened[path, layer]
        cpu, start = time.process_time(), time.perf_counter()
        for offset, size in boxes:
            found = mag.read(absolute_offset=offset, size=size)
        return time.process_time() - cpu, time.perf_counter() - start, int(found.sum(dtype=np.uint64))

    def igneous(self, path, mips):
        """Downsample on a local queue."""
        import igneous.task_creation as tc
        from cloudvolume import CloudVolume
        from taskqueue import LocalTaskQueue

        volume = CloudVolume(f"file://{path}")
        for scale in volume.info["scales"][1:]:
            shutil.rmtree(os.path.join(path, scale["key"]), ignore_errors=True)
        volume.info["scales"] = volume.info["scales"][:1]
        volume.commit_info()
        start = time.perf_counter()
        tasks = tc.create_downsampling_tasks(
            f"file://{path}", mip=0, num_mips=mips, factor=(2, 2, 2), compress=False, preserve_chunk_size=True
        )
        queue = LocalTaskQueue(parallel=PROCESSES, progress=False)
        queue.insert_all(tasks)
        return time.perf_counter() - start

    def igneous_read(self, path, mip, npy):
        from cloudvolume import CloudVolume

        volume = CloudVolume(f"file://{path}", mip=mip, progress=False)
        np.save(npy, np.asfortranarray(volume[:, :, :])[..., 0])

    def tinybrain(self, npy, out):
        """Downsample labels by their mode, on this thread."""
        import tinybrain

        data = np.asfortranarray(np.load(npy)[0])
        start = time.perf_counter()
        (coarse,) = tinybrain.downsample_segmentation(data, factor=(2, 2, 2), num_mips=1, sparse=False)
        seconds = time.perf_counter() - start
        np.save(out, np.asfortranarray(coarse))
        return seconds


def serve():
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # progress bars must not get between the answers
    calls = Calls()
    try:
        for line in sys.stdin:
            request = json.loads(line)
            try:
                answer = {"result": getattr(calls, request["call"])(**request["arguments"])}
            except Exception:
                answer = {"error": traceback.format_exc()}
            print(json.dumps(answer), file=answers, flush=True)
    finally:
        calls.webknossos.close()


if __name__ == "__main__":
    serve()
