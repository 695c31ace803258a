"""A holder that is stopped, whatever instruction it stands at, changes nothing once it was shut out."""

import contextlib
import errno
import itertools
import os
import random
import signal
import threading
import time
from pathlib import Path

import dask
import numpy as np
import pytest
from zygote import Zygote

from wkdask.errors import JobEndedError, LockTimeoutError
from wkdask.fsio import lock
from wkdask.geometry import BoundingBox, Vec3Int
from wkdask.storage.protocol import PRIVATE, ArraySpec
from wkdask.storage.publish import locks as fence
from wkdask.storage.publish.jobs import job_folder
from wkdask.storage.publish.locks import Attempt, cube_locks
from wkdask.storage.publish.publish import Piece, publish_pieces
from wkdask.storage.wkw.mag import WkwMag

SIDE = 16
FIRST = Vec3Int(0, 0, 0)

PRELUDE = """if True:
    import os, signal, sys, tempfile
    from pathlib import Path
    import numpy as np
    from wkdask.geometry import BoundingBox, Vec3Int
    from wkdask.storage.publish import locks as fence
    from wkdask.storage.publish.assemble import publish_assembled
    from wkdask.storage.publish.copies import publish_copies, rewrite_cubes
    from wkdask.storage.publish.locks import Attempt
    from wkdask.storage.publish.jobs import job_folder
    from wkdask.storage.protocol import ArraySpec
    from wkdask.storage.publish.publish import Piece, publish_pieces, publish_staged
    from wkdask.storage.wkw.mag import WkwMag
    fence.GRACE, fence.NOTE_GRACE = 0.02, 0.1
    met_calls = 0

    def stops_at(number):
        # Stops this process at the n-th system call, before it or after it: a sweep over all of them.

        def look(frame, event, arg):
            module = getattr(arg, "__module__", None) if event in ("c_call", "c_return") else None
            if module in ("posix", "fcntl") and arg.__name__ != "fspath":
                global met_calls
                met_calls += 1
                if met_calls == number:
                    sys.setprofile(None)
                    os.kill(os.getpid(), signal.SIGSTOP)

        sys.setprofile(look)

    def ones(box, value):
        return np.full((1, *box.size), value, "uint8", order="F")

    def pieces(mag, boxes, value):
        return [Piece(box.topleft // mag.spec.shard_shape, box, ones(box, value)) for box in boxes]

    def attempt(out, work, path, folder, unit="unit", stop=-1, **options):
        # Run a unit of work, note how it ended.
        mag, run = WkwMag.open(path), Attempt(unit)
        private = WkwMag.open(f"{folder}/assembled") if work in ("assembled", "staged", "copies") else None
        stops_at(stop)
        try:
            WORKS[work](mag, private, folder, run, **options)
            result = "done"
        except BaseException as error:
            result = type(error).__name__
        sys.setprofile(None)
        Path(out).write_text(f"{result} {met_calls}")

    def boxes_of(sides):
        return [BoundingBox(each[:3], each[3:]) for each in sides]

    def write(mag, _, folder, run, sides, value):
        publish_pieces(mag, folder, pieces(mag, boxes_of(sides), value), durable=False, attempt=run)

    def assembled(mag, private, folder, run, sides, value):
        box, = boxes_of(sides)
        publish_assembled(mag, private, folder, box, durable=False, attempt=run)

    def staged(mag, private, folder, run, sides, value):
        box, = boxes_of(sides)
        publish_staged(mag, private, folder, Vec3Int(0, 0, 0), box, durable=False, attempt=run)

    def copies(mag, private, folder, run, sides, value):
        box, = boxes_of(sides)
        publish_copies(mag, private, folder, box, durable=False, attempt=run)

    def rewrite(mag, _, folder, run, sides, value):
        box, = boxes_of(sides)
        rewrite_cubes(mag.recompressed("lz4hc"), folder, box, durable=False, attempt=run)

    WORKS = {f.__name__: f for f in (write, assembled, staged, copies, rewrite)}

    # The kernels are loaded before anything is forked.
    with tempfile.TemporaryDirectory() as folder:
        whole, part = BoundingBox((0, 0, 0), (16, 16, 16)), BoundingBox((1, 2, 3), (9, 8, 7))
        for number, compression in enumerate((None, "lz4")):
            spec = ArraySpec("uint8", 1, Vec3Int.full(8), Vec3Int.full(16), compression)
            mag = WkwMag.create(f"{folder}/{number}", spec)
            with job_folder(mag) as job:
                for box in (whole, part):
                    for value in (1, 0):
                        publish_pieces(mag, job, pieces(mag, [box], value), durable=False)
                plain = mag.staged(f"{job}/assembled", raw=True)
                for box in (whole, part):
                    plain.write_in_place(box, ones(box, 1))
                    publish_assembled(mag, plain, job, box, durable=False)
"""


@pytest.fixture(scope="module")
def zygote():
    with Zygote(PRELUDE) as server:
        yield server


def make_mag(folder, compression=None):
    spec = ArraySpec("uint8", 1, Vec3Int.full(8), Vec3Int.full(SIDE), compression)
    return WkwMag.create(str(folder / "data" / "layer" / "1"), spec)


def put(mag, box, value):
    """Write a box in a job of its own."""
    block = np.full((1, *box.size), value, mag.spec.dtype, order="F")
    with job_folder(mag) as folder:
        pieces = [
            Piece(index, part, block[(slice(None), *part.to_slices(box.topleft))])
            for index, part in mag.spec.grid.pieces(box)
        ]
        publish_pieces(mag, folder, pieces, durable=False)


def files_of(mag):
    """Return what tells whether a published cube was touched."""
    paths = [Path(mag.cube_path(index)) for index in mag.cubes_on_disk()]
    return {str(path): (path.read_bytes(), os.stat(path).st_ino) for path in paths}


# --- every system call at which a holder can stand -----------------------------------------------------

ALL = BoundingBox((0, 0, 0), (2 * SIDE, SIDE, SIDE))
CUBE = BoundingBox((0, 0, 0), (SIDE, SIDE, SIDE))
PARTS = [BoundingBox((1, 2, 3), (9, 8, 7)), BoundingBox((SIDE + 5, 2, 3), (9, 8, 7))]
OTHER = BoundingBox((12, 0, 0), (8, 16, 16))  # what another job writes: no voxel of ours, both cubes
WORKS = {
    # compression, work, boxes, value, voxels before
    "parts, RAW": (None, "write", PARTS, 7, [(ALL, 1)]),
    "parts, LZ4": ("lz4", "write", PARTS, 7, [(ALL, 1)]),
    "parts of cubes that are not there": (None, "write", PARTS, 7, []),
    "parts that empty a cube": (None, "write", PARTS, 0, [(PARTS[0], 1), (PARTS[1], 1)]),
    "whole cubes, RAW": (None, "write", [CUBE, CUBE.offset((SIDE, 0, 0))], 7, [(ALL, 1)]),
    "whole cubes, LZ4": ("lz4", "write", [CUBE, CUBE.offset((SIDE, 0, 0))], 7, [(ALL, 1)]),
    "whole cubes become empty": (None, "write", [CUBE, CUBE.offset((SIDE, 0, 0))], 0, [(ALL, 1)]),
    "a part of an assembled cube, RAW": (None, "assembled", [PARTS[0]], 7, [(ALL, 1)]),
    "a part of an assembled cube, LZ4HC": ("lz4hc", "assembled", [PARTS[0]], 7, [(ALL, 1)]),
    "an assembled cube": ("lz4hc", "assembled", [CUBE], 7, [(ALL, 1)]),
    "a staged part": (None, "staged", [PARTS[0]], 7, [(ALL, 1)]),
    "a copied part": (None, "copies", [PARTS[0]], 7, [(ALL, 1)]),
    "cubes rewritten": (None, "rewrite", [CUBE], 1, [(ALL, 1)]),
}


class Scene:
    """One unit of work in a fresh mag: what is there, what the work makes of it."""

    def __init__(self, tmp_path, zygote, name):
        self.compression, self.work, self.boxes, self.value, self.before = WORKS[name]
        self.zygote = zygote
        self.out = tmp_path / "outcome"
        self.mag = make_mag(tmp_path, self.compression)
        self.expected = np.zeros((1, *ALL.size), "uint8")
        for box, value in self.before:
            put(self.mag, box, value)
            self.expected[(slice(None), *box.to_slices())] = value

    def code(self, folder, stop=-1):
        sides = [[*box.topleft, *box.size] for box in self.boxes]
        names = (str(self.out), self.work, self.mag.path, folder)
        return f"attempt(*{names!r}, stop={stop}, sides={sides}, value={self.value})"

    def prepare(self, folder):
        """Assemble what the work publishes."""
        if self.work in ("assembled", "staged", "copies"):
            private = self.mag.staged(f"{folder}/assembled", raw=True)
            (box,) = self.boxes
            private.write_in_place(box, np.full((1, *box.size), self.value, "uint8", order="F"))

    def done(self):
        for box in self.boxes:
            self.expected[(slice(None), *box.to_slices())] = self.value

    def outcome(self):
        text, self.calls = self.out.read_text().split()
        self.out.unlink()
        return text

    def check(self):
        np.testing.assert_array_equal(self.mag.read(ALL), self.expected)


def count_stops(tmp_path, zygote, name):
    """Return at how many places the work can be stopped."""
    scene = Scene(tmp_path, zygote, name)
    with job_folder(scene.mag) as folder:
        scene.prepare(folder)
        zygote.run(scene.code(folder))
        assert scene.outcome() == "done"
        return int(scene.calls)


def stopped_and_woken(tmp_path, zygote, name, stop, job_ends):
    """Stop a unit at one place, do it again elsewhere, write other voxels, wake it; return how it ended."""
    scene = Scene(tmp_path, zygote, name)
    mag = scene.mag
    with contextlib.ExitStack() as job:
        folder = job.enter_context(job_folder(mag))
        scene.prepare(folder)
        frozen = zygote.start(scene.code(folder, stop))
        state = zygote.wait(frozen)
        if state != "stopped":
            assert state == 0
            assert scene.outcome() == "done"
            scene.done()
            scene.check()
            return "not stopped"
        zygote.run(scene.code(folder))  # the unit once more: it does not wait for the frozen one
        assert scene.outcome() == "done"
        scene.done()
        scene.check()
        if job_ends:
            job.close()
        whole = any(box.size == CUBE.size for box in scene.boxes)
        if job_ends or not whole:  # a whole cube of a job that lives may come later than what others wrote
            put(mag, OTHER, 200)
            scene.expected[(slice(None), *OTHER.to_slices())] = 200
        files = files_of(mag)
        os.kill(frozen, signal.SIGCONT)
        assert zygote.wait(frozen) == 0
        outcome = scene.outcome()
        if outcome != "done":
            assert outcome == "JobEndedError"
            assert files_of(mag) == files, "a task that was thought lost changed something"
        if job_ends and outcome == "done":
            assert files_of(mag) == files, "it had ended before, or it changed something"
        scene.check()
        if not job_ends:  # and the job goes on
            zygote.run(scene.code(folder))
            assert scene.outcome() == "done"
            scene.check()
    assert os.listdir(f"{mag.path}/{PRIVATE}") == ["locks"]
    return outcome


@pytest.mark.parametrize("name", WORKS)
def test_a_stopped_holder_changes_nothing_when_it_wakes(tmp_path, zygote, name):
    """Some of all places; the sweep below takes each."""
    rng = random.Random(name)
    stops = count_stops(tmp_path / "count", zygote, name)
    for number in range(2):
        stopped_and_woken(tmp_path / str(number), zygote, name, rng.randrange(1, stops + 1), number)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", WORKS)
def test_wherever_a_holder_is_stopped_it_changes_nothing_when_it_wakes(tmp_path, zygote, name):
    """Every fifth place: before or after a system call of Python, or of the library as a whole."""
    outcomes = []
    for job_ends in (0, 1):
        for stop in itertools.count(1 + 2 * job_ends, 5):
            outcome = stopped_and_woken(tmp_path / f"{job_ends}-{stop}", zygote, name, stop, job_ends)
            if outcome == "not stopped":
                break
            outcomes.append(outcome)
    assert outcomes.count("JobEndedError") > 4
    assert outcomes.count("done") > 0


@pytest.mark.parametrize(
    ("compression", "rounds"),
    [("lz4", 10)] + [pytest.param(each, 100, marks=pytest.mark.slow) for each in (None, "lz4")],
)
def test_stopped_at_any_moment(tmp_path, zygote, compression, rounds):
    """By the clock instead of by system call: in the middle of native code too, on cubes that take a while."""
    spec = ArraySpec("uint8", 1, Vec3Int.full(32), Vec3Int.full(128), compression)
    mag = WkwMag.create(str(tmp_path / "data" / "layer" / "1"), spec)
    box = BoundingBox((0, 0, 0), (256, 128, 128))
    ours = [BoundingBox((0, 0, 0), (128, 128, 100)), BoundingBox((128, 0, 0), (128, 128, 100))]
    theirs = BoundingBox((0, 0, 100), (256, 128, 28))
    rng = random.Random(5)
    frozen_while_holding, duration = 0, 0.02
    expected = np.zeros((1, *box.size), "uint8")
    put(mag, box, 1)
    for number in range(rounds):
        value, other = 2 + number % 100, 102 + number % 100
        out = [str(tmp_path / f"{name}{number}") for name in "ab"]
        sides = [[*each.topleft, *each.size] for each in ours]
        with job_folder(mag) as folder:
            code = "attempt({!r}, 'write', {!r}, {!r}, sides={}, value={})"
            frozen = zygote.start(code.format(out[0], mag.path, folder, sides, value))
            time.sleep(rng.random() * duration)
            os.kill(frozen, signal.SIGSTOP)
            state = zygote.wait(frozen)
            start = time.monotonic()
            zygote.run(code.format(out[1], mag.path, folder, sides, value))
            if state != "stopped":
                duration = time.monotonic() - start
            assert Path(out[1]).read_text().split()[0] == "done"
        put(mag, theirs, other)
        files = files_of(mag)
        if state == "stopped":
            os.kill(frozen, signal.SIGCONT)
            assert zygote.wait(frozen) == 0
        outcome = Path(out[0]).read_text().split()[0]
        assert outcome in ("done", "JobEndedError")
        frozen_while_holding += outcome != "done"
        assert files_of(mag) == files
        expected[..., :100], expected[..., 100:] = value, other
        np.testing.assert_array_equal(mag.read(box), expected)
    assert frozen_while_holding >= rounds // 10
    assert os.listdir(f"{mag.path}/{PRIVATE}") == ["locks"]


# --- who is shut out, and who is not --------------------------------------------------------------------


def held(mag, folder, attempt=None, **options):
    return cube_locks(mag, folder, [FIRST], attempt or Attempt(), **options)


def in_thread(work):
    """Run work in a thread; return what joins it and gives its result, or raises its error."""
    result = []

    def run():
        try:
            result.append(work())
        except BaseException as error:
            result.append(error)

    thread = threading.Thread(target=run)
    thread.start()

    def join():
        thread.join(60)
        if isinstance(result[0], BaseException):
            raise result[0]
        return result[0]

    return join


@pytest.fixture
def mag(tmp_path):
    return make_mag(tmp_path)


def part(value=1):
    box = BoundingBox((1, 2, 3), (4, 5, 6))
    return [Piece(FIRST, box, np.full((1, *box.size), value, "uint8", order="F"))]


def test_a_lock_excludes_and_is_given_back(mag):
    with job_folder(mag) as folder:
        inside = []

        def work():
            for _ in range(30):
                with held(mag, folder):
                    inside.append(1)
                    assert len(inside) == 1
                    time.sleep(0.001)
                    inside.pop()

        joins = [in_thread(work) for _ in range(4)]
        for join in joins:
            join()
    locks = Path(mag.path, PRIVATE, "locks")
    assert [fence._Note.parse(path.read_bytes()) for path in locks.iterdir()] == [None, None]


def test_an_earlier_run_of_the_unit_is_shut_out_at_once(mag, monkeypatch):
    monkeypatch.setattr(fence, "GRACE", 0.05)
    with job_folder(mag) as folder:
        first, woken = Attempt("unit"), threading.Event()

        def freeze():
            with held(mag, folder, first):
                root = first.root(mag, folder)
                woken.wait(30)
                return root

        join = in_thread(freeze)
        while not Path(mag.path, PRIVATE, "locks").glob("*.lock"):
            time.sleep(0.001)
        time.sleep(0.05)
        start = time.monotonic()
        publish_pieces(mag, folder, part(), attempt=Attempt("unit"))
        assert time.monotonic() - start < 5
        woken.set()
        root = join()
        assert not os.path.exists(root)
        for _ in range(2):  # it publishes nothing any more
            with pytest.raises(JobEndedError, match="thought lost"):
                publish_pieces(mag, folder, part(9), attempt=first)
        publish_pieces(mag, folder, part(2), attempt=Attempt("another"))  # its thread goes on with other work
        assert set(np.unique(mag.read(CUBE))) == {0, 2}


@pytest.mark.parametrize("unit", ["", "another", "a later run"])
def test_others_wait_for_a_holder(mag, monkeypatch, unit):
    """A woken run does not shut out the one that replaced it, nor does one unit another."""
    monkeypatch.setattr(fence, "GRACE", 0.01)
    with job_folder(mag) as folder:
        waiting = Attempt("unit" if unit == "a later run" else unit)
        holder = Attempt("unit")
        with held(mag, folder, holder):
            join = in_thread(lambda: publish_pieces(mag, folder, part(), attempt=waiting))
            time.sleep(0.4)
            assert list(mag.cubes_on_disk()) == []
            holder.check(mag, folder)
        join()
    assert mag.read(CUBE).any()


def test_a_run_of_another_job_is_not_the_same_unit(mag, monkeypatch):
    monkeypatch.setattr(fence, "GRACE", 0.01)
    with job_folder(mag) as first, job_folder(mag) as second:
        holder = Attempt("unit")
        with held(mag, first, holder):
            join = in_thread(lambda: publish_pieces(mag, second, part(), attempt=Attempt("unit")))
            time.sleep(0.3)
            holder.check(mag, first)
        join()


def test_a_silent_holder_is_shut_out_after_the_timeout(mag):
    with (
        job_folder(mag) as first,
        job_folder(mag) as second,
        dask.config.set({"wkdask.lock-timeout": "200ms"}),
    ):
        holder = Attempt()
        with held(mag, first, holder):
            start = time.monotonic()
            join = in_thread(lambda: publish_pieces(mag, second, part()))
            join()
            assert 0.2 <= time.monotonic() - start < 10
            with pytest.raises(JobEndedError, match="silent"):
                holder.check(mag, first)
        publish_pieces(mag, first, part(3))


def test_a_holder_that_shows_signs_of_life_is_waited_for(mag):
    with job_folder(mag) as folder, dask.config.set({"wkdask.lock-timeout": 0.4}):
        holder = Attempt()
        with held(mag, folder, holder, slow=True):
            join = in_thread(lambda: publish_pieces(mag, folder, part()))
            time.sleep(1.5)
            holder.check(mag, folder)
        join()


def test_one_holder_of_many_locks_is_shut_out_once(mag):
    indices = [Vec3Int(x, 0, 0) for x in range(8)]
    with job_folder(mag) as first, job_folder(mag) as second, dask.config.set({"wkdask.lock-timeout": 1}):
        holder = Attempt()
        with cube_locks(mag, first, indices, holder):
            start = time.monotonic()
            in_thread(lambda: cube_locks(mag, second, indices, Attempt()).__enter__())()
            assert time.monotonic() - start < 6, "seven of eight were void at once"


def test_locks_of_a_job_that_has_ended_are_void(mag):
    with job_folder(mag) as second:
        stack = contextlib.ExitStack()
        folder = stack.enter_context(job_folder(mag))
        with held(mag, folder):
            stack.close()
            start = time.monotonic()
            in_thread(lambda: publish_pieces(mag, second, part()))()
            assert time.monotonic() - start < 5


def test_a_holder_without_a_note_is_passed_by(mag, monkeypatch):
    """It stands between the lock and its note: it will see that the file has changed."""
    monkeypatch.setattr(fence, "NOTE_GRACE", 0.1)
    path = fence._lock_path(mag, FIRST)
    with job_folder(mag) as folder, lock(path):
        in_thread(lambda: publish_pieces(mag, folder, part()))()
    assert mag.read(CUBE).any()


@pytest.mark.parametrize(
    "text",
    [b"", b"-", b"junk", b"{}\n", b"[1]\n", b'["x", "y", "u", 0, "t", "w"]', b"[" * 5000,
     b'-"x", "y", "u", 0, "t", "w"]\n', b'["x", "y", "u", "v", "t", "w"]\n'],
    ids=repr,
)  # fmt: skip
def test_half_a_note_is_none(text):
    assert fence._Note.parse(text) is None


def test_a_note_is_read_as_it_was_written():
    note = fence._Note(".wkdask/x/y", ".wkdask/x", "unit (1, 2)", 1.5, "t", "process 1 of ä")
    assert fence._Note.parse(note.to_bytes() + b"what is left of a longer one\n") == note


@pytest.mark.parametrize("where", ["victim", "data/layer/2", "data/layer/1", "data/layer/1/z0"])
def test_a_note_takes_no_folder_away_but_a_private_root(mag, tmp_path, where):
    """Lock files are on a shared disk: what they say is not believed."""
    victim = tmp_path / where
    victim.mkdir(parents=True, exist_ok=True)
    (victim / "here").touch()
    relative = os.path.relpath(victim, mag.path)
    note = fence._Note(relative, os.path.dirname(relative) or ".", "", 0.0, "t", "nobody")
    with job_folder(mag) as folder:
        path = Path(fence._lock_path(mag, FIRST))
        path.write_bytes(note.to_bytes())
        publish_pieces(mag, folder, part())  # the lock was free: its holder would have died
        with lock(str(path)), dask.config.set({"wkdask.lock-timeout": 0.1}):
            path.write_bytes(note.to_bytes())
            join = in_thread(lambda: publish_pieces(mag, folder, part(2)))
            with pytest.raises(LockTimeoutError, match="nobody"):
                join()
    assert (victim / "here").exists()


def test_what_a_dead_holder_left_is_shut_out_before_the_lock_is_used(mag, tmp_path):
    """Where a server frees the locks of a host that it lost, the host does not know."""
    with job_folder(mag) as first, job_folder(mag) as second:
        holder = Attempt()
        note = fence._note_of(mag, first, holder)
        Path(fence._lock_path(mag, FIRST)).write_bytes(note.to_bytes())
        publish_pieces(mag, second, part())
        with pytest.raises(JobEndedError):
            holder.check(mag, first)


def test_a_holder_in_a_private_mag_is_shut_out_too(mag, monkeypatch):
    """The first of two phases publishes into a mag in the job's own folder."""
    monkeypatch.setattr(fence, "GRACE", 0.05)
    with job_folder(mag) as folder:
        staged, first = mag.staged(f"{folder}/staged"), Attempt("unit")
        with held(staged, folder, first):
            in_thread(lambda: publish_pieces(staged, folder, part(), attempt=Attempt("unit")))()
            with pytest.raises(JobEndedError):
                publish_pieces(staged, folder, part(9), attempt=first)
        assert staged.read(CUBE).max() == 1
        # When the phase ends the private mag gets another name: a late task of it publishes nothing either.
        os.rename(staged.path, f"{folder}/sealed")
        with pytest.raises(OSError, match="staged"):
            publish_pieces(staged, folder, part(9))
        assert not os.path.exists(staged.path)


def test_a_lock_file_that_is_removed_is_made_anew(mag):
    path = Path(fence._lock_path(mag, FIRST))
    with job_folder(mag) as folder:
        for _ in range(3):
            with held(mag, folder):
                path.unlink()
            publish_pieces(mag, folder, part())
            assert path.exists()


def test_waiters_do_not_break_a_lock_together(mag, monkeypatch):
    """Many wait for one frozen holder: each gets the lock in turn, and nobody is shut out but the holder."""
    monkeypatch.setattr(fence, "GRACE", 0.02)
    inside, most = [], []
    with job_folder(mag) as folder:
        holder = Attempt("unit")
        with held(mag, folder, holder):

            def work():
                attempt = Attempt("unit")
                with held(mag, folder, attempt):
                    inside.append(1)
                    most.append(len(inside))
                    time.sleep(0.005)
                    inside.pop()
                    attempt.check(mag, folder)

            for join in [in_thread(work) for _ in range(8)]:
                join()
        with pytest.raises(JobEndedError):
            holder.check(mag, folder)
    assert most == [1] * 8


def test_a_root_that_cannot_be_made_says_why(mag, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "no space", "x")

    with job_folder(mag) as folder:
        monkeypatch.setattr(WkwMag, "prepare_scratch", full)
        with pytest.raises(OSError, match="no space") as caught:
            in_thread(lambda: publish_pieces(mag, folder, part()))()
        assert caught.value.errno == errno.ENOSPC
