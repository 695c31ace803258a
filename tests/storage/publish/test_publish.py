"""Publication: the old cube or the new one, for every reader, at every moment, whatever dies meanwhile."""

import contextlib
import errno
import os
import re
import select
import shutil
import signal
import stat
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import wkw
from thorough import drawn, mostly_slow

import wkdask
from wkdask.errors import DamagedCubeError, InvalidValueError, JobEndedError, ReadOnlyError
from wkdask.geometry import BoundingBox, Vec3Int
from wkdask.storage.protocol import COMPRESSIONS, DTYPES, PRIVATE, ArraySpec
from wkdask.storage.publish.assemble import publish_assembled
from wkdask.storage.publish.jobs import job_folder
from wkdask.storage.publish.publish import Piece, publish_pieces, publish_staged
from wkdask.storage.wkw import mag as storage
from wkdask.storage.wkw.mag import WkwMag

ROOT = Path(wkdask.__file__).parent.parent
GROUP = 54321
SIDE = 16
CUBE_0 = BoundingBox((0, 0, 0), (SIDE, SIDE, SIDE))
PART = BoundingBox((3, 1, 2), (5, 9, 6))

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount and change groups")
each_compression = pytest.mark.parametrize("compression", COMPRESSIONS)


@contextlib.contextmanager
def process(script, *args):
    """Run a script in a Python process of its own, which is gone at the end."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", script, *map(str, args)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=env, text=True, stdin=pipe, stdout=pipe, stderr=pipe) as child:
        try:
            yield child
        finally:
            child.kill()


def wait_for_line(child, seconds=60):
    ready, _, _ = select.select([child.stdout], [], [], seconds)
    assert ready, "the child says nothing"
    return child.stdout.readline().strip()


def run_together(script, *arguments, timeout=200):
    """Run one process per list of arguments, all at once; return what they print."""
    with contextlib.ExitStack() as stack:
        children = [stack.enter_context(process(script, *args)) for args in arguments]
        for child in children:
            assert wait_for_line(child) == "ready"
        for child in children:
            child.stdin.write("go\n")
            child.stdin.flush()
        outcomes = [child.communicate(timeout=timeout) for child in children]
        for child, (_, errors) in zip(children, outcomes, strict=True):
            assert child.returncode == 0, errors[-2000:]
        return [out for out, _ in outcomes]


def make_mag(tmp_path, compression=None, dtype="uint8", channels=1, *, chunk=8, side=SIDE):
    """Make a mag where a dataset has it: dataset/layer/mag."""
    spec = ArraySpec(dtype, channels, Vec3Int.full(chunk), Vec3Int.full(side), compression)
    return WkwMag.create(str(tmp_path / "data" / "layer" / "1"), spec)


def noise(mag, box, seed=0, low=1):
    values = np.random.default_rng(seed).integers(low, 100, (mag.spec.num_channels, *box.size))
    return values.astype(mag.spec.dtype, order="F")


def cube(mag, x=0, y=0, z=0):
    return Path(mag.cube_path(Vec3Int(x, y, z)))


def piece_of(mag, box, block):
    return Piece(box.topleft // mag.spec.shard_shape, box, block)


def write(mag, box, block, **options):
    with job_folder(mag) as folder:
        return publish_pieces(mag, folder, [piece_of(mag, box, block)], **options)


def library_read(mag, box):
    with contextlib.closing(wkw.Dataset.open(mag.path)) as dataset:
        return dataset.read(tuple(box.topleft), tuple(box.size))


def assert_holds(mag, box, expected):
    """The library and we read the same."""
    np.testing.assert_array_equal(library_read(mag, box), expected)
    np.testing.assert_array_equal(mag.read(box), expected)


def private_names(mag):
    return sorted(os.listdir(f"{mag.path}/{PRIVATE}"))


def filled(tmp_path, compression=None, **options):
    """Return a mag whose cube 0 is full, and its voxels."""
    mag = make_mag(tmp_path, compression, **options)
    voxels = noise(mag, CUBE_0)
    write(mag, CUBE_0, voxels)
    return mag, voxels


def snapshot(path):
    """Return what tells whether a file was touched."""
    info = os.stat(path)
    return path.read_bytes(), info.st_ino, info.st_mtime_ns


# voxels


@each_compression
@pytest.mark.parametrize("dtype", mostly_slow(DTYPES, lambda _, dtype: dtype in drawn(DTYPES)))
def test_whole_and_partial_cubes_of_any_type(tmp_path, compression, dtype):
    mag = make_mag(tmp_path, compression, dtype, channels=2)
    box = BoundingBox((0, 0, 0), (32, 16, 16))
    expected = np.zeros((2, *box.size), dtype)
    parts = [
        CUBE_0,  # whole, new
        PART,  # a part of a full cube
        PART.offset((16, 0, 0)),  # a part of a cube that is not there
        BoundingBox((16, 0, 0), (16, 16, 8)),  # whole blocks
        CUBE_0,  # whole, over an old one
        BoundingBox((31, 15, 15), (1, 1, 1)),
    ]
    for number, part in enumerate(parts):
        block = noise(mag, part, seed=number)
        if number % 2:
            block = np.ascontiguousarray(block)
        write(mag, part, block, verify=bool(number % 3))
        expected[(slice(None), *part.to_slices())] = block
        assert_holds(mag, box, expected)
    assert set(mag.cubes_on_disk()) == {(0, 0, 0), (1, 0, 0)}


@each_compression
def test_many_pieces_in_one_call(tmp_path, compression):
    """More partial cubes than are locked at once, whole ones between them."""
    mag = make_mag(tmp_path, compression)
    box = BoundingBox((4, 0, 0), (140, 40, 30))
    voxels = noise(mag, box)
    with job_folder(mag) as folder:
        pieces = [
            Piece(index, part, voxels[(slice(None), *part.to_slices(box.topleft))])
            for index, part in mag.spec.grid.pieces(box)
        ]
        nbytes = publish_pieces(mag, folder, pieces, durable=False)
        root = next(path for path in Path(folder).iterdir() if path.is_dir())
        assert not list(root.rglob("x*")), "nothing is left behind"
    assert_holds(mag, box, voxels)
    assert nbytes == sum(cube(mag, *index).stat().st_size for index in mag.cubes_on_disk())
    assert len(list(mag.cubes_on_disk())) == len(pieces)


@pytest.mark.parametrize("stored", COMPRESSIONS)
@each_compression
def test_a_part_of_a_cube_that_is_stored_otherwise(tmp_path, compression, stored):
    """Cubes of one mag may differ in block type; the other voxels stay all the same."""
    mag = make_mag(tmp_path, compression)
    other, voxels = filled(tmp_path / "other", stored)
    cube(mag).parent.mkdir(parents=True)
    shutil.copy(cube(other), cube(mag))
    block = noise(mag, PART, seed=1)
    write(mag, PART, block)
    voxels[(slice(None), *PART.to_slices())] = block
    assert_holds(mag, CUBE_0, voxels)


# absent means empty


@each_compression
@pytest.mark.parametrize("box", [CUBE_0, PART], ids=["whole", "part"])
def test_zeros_make_no_cube(tmp_path, compression, box):
    mag = make_mag(tmp_path, compression)
    assert write(mag, box, np.zeros((1, *box.size), "uint8", order="F")) == 0
    assert list(mag.cubes_on_disk()) == []
    assert not cube(mag).exists()


@each_compression
@pytest.mark.parametrize("whole", [True, False])
def test_a_cube_that_becomes_zero_is_removed(tmp_path, compression, whole):
    mag = make_mag(tmp_path, compression)
    write(mag, PART, noise(mag, PART))
    smaller = BoundingBox(PART.topleft, PART.size - 1)
    write(mag, smaller, np.zeros((1, *smaller.size), "uint8"))
    assert cube(mag).exists()
    box = CUBE_0 if whole else PART
    for _ in range(2):  # removing what is gone is no error
        assert write(mag, box, np.zeros((1, *box.size), "uint8")) == 0
        assert not os.path.lexists(cube(mag))
    assert_holds(mag, CUBE_0, np.zeros((1, 16, 16, 16)))


def test_minus_zero_is_not_nothing(tmp_path):
    mag = make_mag(tmp_path, "lz4", "float32")
    write(mag, CUBE_0, np.full((1, 16, 16, 16), -0.0, "float32"))
    assert np.signbit(mag.read(CUBE_0)).all()


# the file that is replaced


@needs_root
@each_compression
@pytest.mark.parametrize("box", [CUBE_0, PART], ids=["whole", "part"])
def test_mode_and_group_stay(tmp_path, compression, box):
    mag, _ = filled(tmp_path, compression)
    os.chown(cube(mag), -1, GROUP)
    os.chmod(cube(mag), 0o640)
    write(mag, box, noise(mag, box, seed=1))
    info = cube(mag).stat()
    assert (stat.S_IMODE(info.st_mode), info.st_gid) == (0o640, GROUP)


@needs_root
@each_compression
@pytest.mark.parametrize("box", [CUBE_0, PART], ids=["whole", "part"])
def test_new_cubes_are_like_files_made_in_their_folder(tmp_path, compression, box):
    """The umask, and the group of a folder with the setgid bit, also if that is not the private folder's."""
    mag = make_mag(tmp_path, compression)
    write(mag, CUBE_0, noise(mag, CUBE_0))
    old = os.umask(0o027)
    try:
        write(mag, box.offset((0, 0, 16)), noise(mag, box))  # folders are made anew
        for folder in (cube(mag).parent, cube(mag).parent.parent):
            os.chown(folder, -1, GROUP)
            os.chmod(folder, 0o2775)
        write(mag, box.offset((16, 0, 0)), noise(mag, box))
        write(mag, box.offset((0, 16, 0)), noise(mag, box))
        write(mag, box, noise(mag, box, 2))
    finally:
        os.umask(old)
    for number, path in enumerate([cube(mag, 0, 0, 1), cube(mag, 1), cube(mag, 0, 1)]):
        info = path.stat()
        assert (stat.S_IMODE(info.st_mode), info.st_gid) == (0o640, GROUP if number else os.getgid())
    assert stat.S_IMODE(cube(mag, 0, 1).parent.stat().st_mode) == 0o2750
    assert cube(mag).stat().st_gid == os.getgid(), "the cube that was there before keeps its own group"


@needs_root
@each_compression
def test_cubes_of_a_shared_folder_stay_with_its_group(tmp_path, compression):
    mag = make_mag(tmp_path, compression)
    os.chown(mag.path, -1, GROUP)
    os.chmod(mag.path, 0o2770)
    for box in (CUBE_0, PART, PART.offset((16, 0, 0))):
        write(mag, box, noise(mag, box))
        with job_folder(mag) as folder:
            private = mag.staged(f"{folder}/assembled", raw=True)
            private.write_in_place(box, noise(mag, box, 1))
            publish_assembled(mag, private, folder, box)
    for path in [
        cube(mag),
        cube(mag, 1),
        cube(mag).parent,
        Path(mag.path, PRIVATE),
        Path(mag.path, PRIVATE, "locks"),
    ]:
        assert path.stat().st_gid == GROUP, path


@each_compression
@pytest.mark.parametrize("box", [CUBE_0, PART], ids=["whole", "part"])
def test_a_link_stays_and_its_target_is_replaced(tmp_path, compression, box):
    mag, voxels = filled(tmp_path, compression)
    target = tmp_path / "data" / "shared.wkw"
    cube(mag).rename(target)
    cube(mag).symlink_to(target)
    block = noise(mag, box, seed=1)
    write(mag, box, block)
    voxels[(slice(None), *box.to_slices())] = block
    assert cube(mag).is_symlink()
    assert not target.is_symlink()
    assert_holds(mag, CUBE_0, voxels)


def test_a_linked_cube_that_becomes_zero_leaves_no_link_to_nowhere(tmp_path):
    mag, _ = filled(tmp_path)
    target = tmp_path / "data" / "shared.wkw"
    cube(mag).rename(target)
    cube(mag).symlink_to(target)
    write(mag, CUBE_0, np.zeros((1, 16, 16, 16), "uint8"))
    assert not os.path.lexists(cube(mag))
    assert not target.exists()
    assert not mag.read(CUBE_0).any()


@each_compression
@pytest.mark.parametrize("linked", ["cube", "y folder", "z folder"])
@pytest.mark.parametrize("value", [0, 1])
def test_what_leads_out_of_the_dataset_is_not_written(tmp_path, compression, linked, value):
    mag, _ = filled(tmp_path, compression)
    inner = {"cube": cube(mag), "y folder": cube(mag).parent, "z folder": cube(mag).parent.parent}[linked]
    outside = tmp_path / "outside"
    inner.rename(outside)
    inner.symlink_to(outside)
    before = snapshot(cube(mag))
    for box in (CUBE_0, PART, CUBE_0.offset((16, 0, 0))):
        if linked == "cube" and box.topleft.x:
            continue
        with pytest.raises(ReadOnlyError, match="outside"):
            write(mag, box, np.full((1, *box.size), value, "uint8"))
    assert snapshot(cube(mag)) == before
    assert not cube(mag, 1).exists()


# the private folder


def test_the_private_folder_goes_and_locks_stay(tmp_path):
    mag = make_mag(tmp_path)
    with job_folder(mag) as folder:
        assert Path(folder).parent == Path(mag.path, PRIVATE)
        publish_pieces(mag, folder, [piece_of(mag, PART, noise(mag, PART))])
        assert private_names(mag) == sorted(["locks", os.path.basename(folder)])
    assert private_names(mag) == ["locks"]
    assert all(
        re.fullmatch(r"(\d{3}|jobs)\.lock", name) for name in os.listdir(f"{mag.path}/{PRIVATE}/locks")
    )
    with pytest.raises(ZeroDivisionError), job_folder(mag) as folder:
        1 / 0
    assert private_names(mag) == ["locks"]


def test_jobs_have_folders_of_their_own_and_threads_have_roots_of_their_own(tmp_path):
    mag = make_mag(tmp_path)
    with job_folder(mag) as first, job_folder(mag) as second:
        assert first != second
        boxes = [CUBE_0.offset((16 * x, 0, 0)) for x in range(4)]
        barrier = threading.Barrier(4)

        def work(box):
            barrier.wait()
            for _ in range(2):
                publish_pieces(mag, first, [piece_of(mag, box, noise(mag, box))])
            barrier.wait()

        threads = [threading.Thread(target=work, args=(box,)) for box in boxes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len([path for path in Path(first).iterdir() if path.is_dir()]) == 4
    assert len(list(mag.cubes_on_disk())) == 4


@pytest.mark.slow
def test_a_forked_child_takes_a_root_of_its_own(tmp_path):
    mag = make_mag(tmp_path)
    script = """if True:
        import os, sys
        import numpy as np
        from wkdask.geometry import BoundingBox, Vec3Int
        from wkdask.storage.publish.jobs import job_folder
        from wkdask.storage.publish.publish import Piece, publish_pieces
        from wkdask.storage.wkw.mag import WkwMag
        mag = WkwMag.open(sys.argv[1])
        box = BoundingBox((0, 0, 0), (16, 16, 16))
        piece = Piece(Vec3Int(0, 0, 0), box, np.ones((1, 16, 16, 16), "uint8"))
        with job_folder(mag) as folder:
            publish_pieces(mag, folder, [piece])
            child = os.fork()
            publish_pieces(mag, folder, [piece])
            if not child:
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            print(len([entry for entry in os.scandir(folder) if entry.is_dir()]))"""
    with process(script, mag.path) as child:
        out, errors = child.communicate(timeout=60)
    assert out.strip() == "2", errors


@each_compression
@pytest.mark.parametrize("value", [0, 1], ids=["removal", "replacement"])
@pytest.mark.parametrize("box", [CUBE_0, PART], ids=["whole", "part"])
@pytest.mark.parametrize(
    "moment", ["before the first write", "between writes", "while building", "before the rename"]
)
def test_a_task_of_a_job_that_has_ended_publishes_nothing(
    tmp_path, monkeypatch, compression, value, box, moment
):
    mag = make_mag(tmp_path, compression)
    voxels = noise(mag, PART)  # so that zeros in PART empty the cube
    write(mag, PART, voxels)
    before = snapshot(cube(mag))
    block = np.full((1, *box.size), value, "uint8")
    other = CUBE_0.offset((64, 0, 0))
    gone = tmp_path / "gone"
    with job_folder(mag) as folder:

        def end():
            os.rename(folder, gone)

        real_build = WkwMag.build

        def build(self, *args, **options):
            end()
            return real_build(self, *args, **options)

        def fsync(paths):
            list(paths)
            end()

        if moment == "before the first write":
            end()
        else:
            publish_pieces(mag, folder, [piece_of(mag, other, noise(mag, other))])
        if moment == "between writes":
            end()
        if moment == "while building":
            monkeypatch.setattr(WkwMag, "build", build)
        if moment == "before the rename":
            monkeypatch.setattr("wkdask.storage.publish.publisher.fsync_files", fsync)
        with pytest.raises(JobEndedError, match="publishes nothing"):
            publish_pieces(mag, folder, [piece_of(mag, box, block)])
        monkeypatch.undo()
        with pytest.raises(JobEndedError, match="publishes nothing"):  # nor at the second try
            publish_pieces(mag, folder, [piece_of(mag, box, block)])
        assert not os.path.exists(folder), "what the library makes anew is taken away"
    assert snapshot(cube(mag)) == before
    assert_holds(mag, PART, voxels)


IN_A_JOB = """if True:
    import sys, time
    from pathlib import Path
    from wkdask.storage.publish.jobs import job_folder
    from wkdask.storage.wkw.mag import WkwMag
    with job_folder(WkwMag.open(sys.argv[1])) as folder:
        Path(folder, "left").write_text("over")
        print(folder, flush=True)
        sys.stdin.readline()"""


@pytest.mark.slow
def test_folders_of_dead_jobs_are_swept_and_those_of_live_ones_are_not(tmp_path):
    mag = make_mag(tmp_path)
    with process(IN_A_JOB, mag.path) as dead, process(IN_A_JOB, mag.path) as alive:
        dead_folder, live_folder = wait_for_line(dead), wait_for_line(alive)
        os.kill(dead.pid, signal.SIGKILL)
        dead.wait()
        assert os.path.exists(dead_folder)
        with job_folder(mag):
            assert not os.path.exists(dead_folder)
            assert Path(live_folder, "left").read_text() == "over"
        assert private_names(mag) == sorted(["locks", os.path.basename(live_folder)])
        alive.stdin.write("\n")
        alive.stdin.flush()
        alive.wait(timeout=30)
    assert private_names(mag) == ["locks"]


def test_the_sweep_takes_only_what_jobs_made(tmp_path):
    mag = make_mag(tmp_path)
    private = Path(mag.path, PRIVATE)
    keep = ["locks", "mine", "stamp.d", "0123456789abcdef"]
    sweep = ["0123456789ab", ".0123456789ab.gone-" + "0" * 32]
    for name in keep + sweep:
        (private / name / "deep").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (private / "aaaaaaaaaaaa").symlink_to(tmp_path / "elsewhere")
    with job_folder(mag):
        pass
    assert private_names(mag) == sorted([*keep, "aaaaaaaaaaaa"])
    assert os.listdir(tmp_path / "elsewhere") == []


@pytest.mark.parametrize("linked", [PRIVATE, f"{PRIVATE}/locks"])
def test_a_private_folder_that_is_a_link_is_refused(tmp_path, linked):
    """A hostile dataset must not make a job sweep somebody's home."""
    mag = make_mag(tmp_path)
    victim = tmp_path / "home"
    (victim / "0123456789ab").mkdir(parents=True)
    Path(mag.path, linked).parent.mkdir(exist_ok=True)
    Path(mag.path, linked).symlink_to(victim)
    with pytest.raises(ReadOnlyError, match="link"), job_folder(mag):
        pass
    assert (victim / "0123456789ab").exists()


@needs_root
def test_a_mag_that_cannot_be_written(tmp_path):
    mag = make_mag(tmp_path)
    folder = str(mag.path)
    done = subprocess.run(["mount", "--bind", folder, folder], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mount does not work here: {done.stderr.strip()}")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
        with pytest.raises(ReadOnlyError, match="Read-only"), job_folder(mag):
            pass
        assert os.listdir(folder) == ["header.wkw"]
        assert not mag.read(CUBE_0).any()
    finally:
        subprocess.run(["umount", folder], check=True)


# scratch


@each_compression
@pytest.mark.parametrize("box", [CUBE_0, PART], ids=["whole", "part"])
@pytest.mark.parametrize("name", ["x0.wkw", "x0.wkw_tmp"])
@pytest.mark.parametrize("kind", ["junk", "link"])
def test_what_lies_in_a_scratch_slot_does_no_harm(tmp_path, compression, box, name, kind):
    """A killed predecessor leaves files there; the library would follow a link, or go on with the junk."""
    mag, voxels = filled(tmp_path, compression)
    victim = tmp_path / "victim"
    victim.write_text("precious")
    block = noise(mag, box, seed=1)
    with job_folder(mag) as folder:
        publish_pieces(mag, folder, [piece_of(mag, box, block)])
        root = next(path for path in Path(folder).iterdir() if path.is_dir())
        stale = root / "z0" / "y0" / name
        if kind == "junk":
            stale.write_bytes(b"WKW\1" + b"\xff" * 100)
        else:
            stale.symlink_to(victim)
        block = noise(mag, box, seed=2)
        publish_pieces(mag, folder, [piece_of(mag, box, block)])
    voxels[(slice(None), *box.to_slices())] = block
    assert victim.read_text() == "precious"
    assert not cube(mag).is_symlink()
    assert_holds(mag, CUBE_0, voxels)


@pytest.mark.parametrize(
    "block",
    [np.ones((1, 5, 9, 6), ">u2"), np.ones((1, 5, 9, 6), "uint8"), np.ones((1, 5, 9, 5), "uint16"),
     np.ones((2, 5, 9, 6), "uint16"), np.ones((5, 9, 6), "uint16")],
    ids=lambda block: f"{block.dtype.str}{block.shape}",
)  # fmt: skip
def test_a_block_that_does_not_fit_never_reaches_native_code(tmp_path, block):
    """The library takes a bare address: it would read beyond the block."""
    mag, _ = filled(tmp_path, dtype="uint16")
    before = snapshot(cube(mag))
    with pytest.raises(InvalidValueError, match="expected uint16"):
        write(mag, PART, block)
    assert snapshot(cube(mag)) == before


# damage


DAMAGE = {
    "no bytes": lambda data: b"",
    "short": lambda data: data[:-1],
    "magic": lambda data: b"X" + data[1:],
    "other type": lambda data: data[:6] + b"\2\2" + data[8:],
    "undecodable": lambda data: data[: 16 + 64] + b"\xff" * (len(data) - 16 - 64),
}


@pytest.mark.parametrize(
    ("compression", "damage"),
    [(c, name) for c in COMPRESSIONS for name in DAMAGE if c or name != "undecodable"],
)
def test_a_part_of_a_damaged_cube_is_not_written(tmp_path, compression, damage):
    mag, _ = filled(tmp_path, compression)
    cube(mag).write_bytes(DAMAGE[damage](cube(mag).read_bytes()))
    before = snapshot(cube(mag))
    for value in (0, 1):
        with pytest.raises(DamagedCubeError) as caught:
            write(mag, PART, np.full((1, *PART.size), value, "uint8"))
        assert str(cube(mag)) in str(caught.value)
        assert snapshot(cube(mag)) == before
    block = noise(mag, CUBE_0, seed=3)
    write(mag, CUBE_0, block)  # a whole one heals it
    assert_holds(mag, CUBE_0, block)


@dataclass(frozen=True, slots=True)
class Flipping(WkwMag):
    """A mag whose disk flips a bit of a voxel after every build."""

    def build(self, root, slot, box, block, base, **options):
        done = storage.WkwMag.build(self, root, slot, box, block, base, **options)
        corner = Vec3Int(slot * SIDE, 0, 0)
        place = BoundingBox(corner, (SIDE, SIDE, SIDE))
        with contextlib.closing(wkw.Dataset.open(root)) as dataset:
            voxels = dataset.read(tuple(place.topleft), tuple(place.size))
            voxels[0, 4, 4, 4] ^= 1
            dataset.write(tuple(corner), voxels)
        return done


@each_compression
@pytest.mark.parametrize("box", [CUBE_0, PART], ids=["whole", "part"])
def test_verify_sees_a_flipped_bit(tmp_path, compression, box):
    mag, _ = filled(tmp_path, compression)
    before = snapshot(cube(mag))
    flipping = Flipping(mag.path, mag.header)
    with pytest.raises(DamagedCubeError, match="other voxels") as caught:
        write(flipping, box, noise(mag, box, seed=1), verify=True)
    assert str(cube(mag)) in str(caught.value)
    assert snapshot(cube(mag)) == before
    write(flipping, box, noise(mag, box, seed=1), verify=False)
    assert snapshot(cube(mag)) != before


@each_compression
def test_what_is_built_is_checked_before_it_is_published(tmp_path, monkeypatch, compression):
    mag, _ = filled(tmp_path, compression)
    before = snapshot(cube(mag))
    real = WkwMag.build

    def build(self, root, slot, *args, **options):
        done = real(self, root, slot, *args, **options)
        os.truncate(self.slot_path(root, slot), 100)
        return done

    monkeypatch.setattr(WkwMag, "build", build)
    with pytest.raises(DamagedCubeError, match="damaged"):
        write(mag, CUBE_0, noise(mag, CUBE_0, seed=1))
    assert snapshot(cube(mag)) == before


@pytest.mark.slow
def test_a_part_keeps_the_rest_when_descriptors_run_out(tmp_path):
    """An old cube that cannot be opened is not one of zeros: its other voxels would be lost."""
    mag, _ = filled(tmp_path, "lz4")
    before = snapshot(cube(mag))
    script = """if True:
        import os, resource, sys
        from contextlib import contextmanager
        import numpy as np
        from wkdask.geometry import BoundingBox, Vec3Int
        from wkdask.storage.wkw import mag as storage
        from wkdask.storage.wkw import build as wkw_build
        from wkdask.storage.publish.jobs import job_folder
        from wkdask.storage.publish.publish import Piece, publish_pieces
        mag = storage.WkwMag.open(sys.argv[1])
        opened = wkw_build._opened

        @contextmanager
        def starved(*args):
            limit = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, limit[1]))
            try:
                with opened(*args) as cube:
                    yield cube
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limit)

        box = BoundingBox((3, 1, 2), (5, 9, 6))
        piece = Piece(Vec3Int(0, 0, 0), box, np.ones((1, 5, 9, 6), "uint8"))
        with job_folder(mag) as folder:
            publish_pieces(mag, folder, [Piece(Vec3Int(5, 0, 0), box.offset((80, 0, 0)), piece.block)])
            wkw_build._opened = starved
            try:
                publish_pieces(mag, folder, [piece])
            except OSError as error:
                print("error", error)"""
    with process(script, mag.path) as child:
        out, errors = child.communicate(timeout=60)
    assert out.startswith("error"), errors
    assert str(cube(mag)) in out
    assert snapshot(cube(mag)) == before


# staged cubes


@each_compression
def test_staged_cubes(tmp_path, compression):
    """All is built first, then published: whole, in part, empty; twice gives the same."""
    mag, _ = filled(tmp_path, compression)
    write(mag, CUBE_0.offset((16, 0, 0)), noise(mag, CUBE_0, seed=1))
    expected = mag.read(BoundingBox((0, 0, 0), (48, 16, 16)))
    boxes = [CUBE_0, PART.offset((16, 0, 0)), BoundingBox((32, 0, 0), (16, 16, 16))]
    blocks = [noise(mag, boxes[0], 2), noise(mag, boxes[1], 3), np.zeros((1, 16, 16, 16), "uint8")]
    with job_folder(mag) as folder:
        staged = mag.staged(f"{folder}/staged")
        for box, block in zip(boxes, blocks, strict=True):
            publish_pieces(staged, folder, [piece_of(staged, box, block)])
        assert_holds(mag, BoundingBox((0, 0, 0), (48, 16, 16)), expected)
        for _ in range(2):
            for box in boxes:
                index = box.topleft // mag.spec.shard_shape
                assert (publish_staged(mag, staged, folder, index, box) > 0) == (index.x < 2)
    for box, block in zip(boxes, blocks, strict=True):
        expected[(slice(None), *box.to_slices())] = block
    assert_holds(mag, BoundingBox((0, 0, 0), (48, 16, 16)), expected)
    assert private_names(mag) == ["locks"]


@pytest.mark.parametrize("box", [CUBE_0, PART], ids=["whole", "part"])
def test_staged_cubes_of_a_job_that_has_ended(tmp_path, box):
    mag, _ = filled(tmp_path)
    before = snapshot(cube(mag))
    with job_folder(mag) as folder:
        staged = mag.staged(f"{folder}/staged")
        publish_pieces(staged, folder, [piece_of(staged, box, noise(mag, box, 1))])
        os.rename(folder, tmp_path / "gone")
        for _ in range(2):
            with pytest.raises(JobEndedError):
                publish_staged(mag, staged, folder, Vec3Int(0, 0, 0), box)
            with pytest.raises(JobEndedError):
                publish_pieces(staged, folder, [piece_of(staged, box, noise(mag, box, 1))])
            assert not os.path.exists(folder)
    assert snapshot(cube(mag)) == before


def test_staged_cubes_without_second_names(tmp_path, monkeypatch):
    mag = make_mag(tmp_path)
    block = noise(mag, CUBE_0)

    def refuse(*args):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    with job_folder(mag) as folder:
        staged = mag.staged(f"{folder}/staged")
        publish_pieces(staged, folder, [piece_of(staged, CUBE_0, block)])
        for _ in range(2):
            publish_staged(mag, staged, folder, Vec3Int(0, 0, 0), CUBE_0)
    assert_holds(mag, CUBE_0, block)


# space


def test_a_part_of_a_sparse_cube_stays_sparse(tmp_path):
    mag = make_mag(tmp_path, chunk=32, side=256)
    write(mag, BoundingBox((0, 0, 0), (1, 1, 1)), np.ones((1, 1, 1, 1), "uint8"))
    last = BoundingBox((255, 255, 255), (1, 1, 1))
    write(mag, last, np.ones((1, 1, 1, 1), "uint8"))
    info = cube(mag).stat()
    assert info.st_size == 16 + 256**3
    assert info.st_blocks * 512 < 1 << 20
    assert mag.read(BoundingBox((0, 0, 0), (256, 256, 256)), 2).sum() == 2


@each_compression
@pytest.mark.parametrize("part", [False, True])
@pytest.mark.usefixtures("small_disk")
def test_full_disk_while_an_assembled_cube_is_published(tmp_path, compression, part):
    mag = make_mag(tmp_path, compression, chunk=16, side=32)
    box = BoundingBox((0, 0, 0), (32, 32, 32))
    rng = np.random.default_rng(1)
    voxels = rng.integers(0, 256, (1, 32, 32, 32)).astype("uint8", order="F")
    write(mag, box, voxels)
    before = snapshot(cube(mag))
    box = box.with_size((32, 32, 30)) if part else box
    block = np.asfortranarray(255 - voxels[(slice(None), *box.to_slices())])
    with job_folder(mag) as folder:
        private = mag.staged(f"{folder}/assembled", raw=True)
        private.write_in_place(box, block)
        disk = os.statvfs(mag.path)
        Path(mag.path, "filler").write_bytes(bytes(disk.f_bavail * disk.f_frsize - 16_000))
        if part or compression:
            with pytest.raises(OSError, match=r"[Nn]o space left") as caught:
                publish_assembled(mag, private, folder, box)
            assert caught.value.errno == errno.ENOSPC
            assert snapshot(cube(mag)) == before
        Path(mag.path, "filler").unlink()
        publish_assembled(mag, private, folder, box)  # a plain whole one needs no room
    assert private_names(mag) == ["locks"]
    assert_holds(mag, box, block)


@each_compression
@pytest.mark.parametrize("part", [False, True])
@pytest.mark.usefixtures("small_disk")
def test_full_disk(tmp_path, compression, part):
    mag = make_mag(tmp_path, compression, chunk=16, side=64)
    box = BoundingBox((0, 0, 0), (64, 64, 64))
    rng = np.random.default_rng(1)
    voxels = rng.integers(0, 256, (1, 64, 64, 64)).astype("uint8", order="F")  # no compression helps
    write(mag, box, voxels)
    disk = os.statvfs(mag.path)
    Path(mag.path, "filler").write_bytes(bytes(disk.f_bavail * disk.f_frsize - 150_000))
    before = snapshot(cube(mag))
    box = box.with_size((60, 64, 64)) if part else box
    block = np.asfortranarray(255 - voxels[(slice(None), *box.to_slices())])
    with pytest.raises(OSError, match=r"[Nn]o space left") as caught:
        write(mag, box, block)
    assert caught.value.errno == errno.ENOSPC
    assert snapshot(cube(mag)) == before
    assert private_names(mag) == ["locks"]
    Path(mag.path, "filler").unlink()
    write(mag, box, block)
    assert_holds(mag, box, block)


# races and kills


PREPARE = """if True:
    import os, select, sys, time
    import numpy as np
    from wkdask.geometry import BoundingBox, Vec3Int
    from wkdask.storage.publish.jobs import job_folder
    from wkdask.storage.publish.publish import Piece, publish_pieces
    from wkdask.storage.wkw.mag import WkwMag
    mag, me, rounds = WkwMag.open(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    mag.read(BoundingBox((0, 0, 0), (16, 16, 16)))  # what that needs is loaded before the race
    print("ready", flush=True)
    sys.stdin.readline()
"""

PARTS = f"""{PREPARE}
    with job_folder(mag) as folder:
        for number in range(rounds):
            pieces = []
            for x in range(2):
                box = BoundingBox((16 * x + 7 * me, 0, number % 16), (9 if me else 7, 16, 1))
                block = np.full((1, *box.size), 1 + number + 100 * me, "uint8")
                pieces.append(Piece(Vec3Int(x, 0, 0), box, block))
            publish_pieces(mag, folder, pieces, durable=False)
"""

WHOLE = f"""{PREPARE}
    box = BoundingBox((0, 0, 0), (16, 16, 16))
    with job_folder(mag) as folder:
        for number in range(rounds):
            block = np.full((1, 16, 16, 16), 1 + 2 * number + me, "uint8")
            publish_pieces(mag, folder, [Piece(Vec3Int(0, 0, 0), box, block)], durable=False)
"""

READER = f"""{PREPARE}
    box = BoundingBox((0, 0, 0), (16, 16, 16))
    seen = set()
    while not select.select([sys.stdin], [], [], 0)[0]:  # until that is closed
        values = np.unique(mag.read(box))
        assert len(values) == 1, values
        seen.add(int(values[0]))
    print(len(seen))
"""


@pytest.mark.slow
@each_compression
def test_two_processes_write_parts_of_the_same_cubes(tmp_path, compression):
    """Parts that share blocks: 30 rounds, nothing is lost."""
    mag = make_mag(tmp_path, compression)
    run_together(PARTS, [mag.path, 0, 30], [mag.path, 1, 30])
    expected = np.zeros((1, 32, 16, 16), "uint8")
    for number in range(30):
        for x in (0, 16):
            expected[:, x : x + 7, :, number % 16] = 1 + number
            expected[:, x + 7 : x + 16, :, number % 16] = 101 + number
    assert_holds(mag, BoundingBox((0, 0, 0), (32, 16, 16)), expected)
    assert private_names(mag) == ["locks"]


@pytest.mark.slow
@each_compression
def test_two_writers_of_one_cube_and_a_reader(tmp_path, compression):
    mag = make_mag(tmp_path, compression)
    write(mag, CUBE_0, np.full((1, 16, 16, 16), 255, "uint8"))
    with process(READER, mag.path, 0, 0) as reader:
        assert wait_for_line(reader) == "ready"
        reader.stdin.write("go\n")
        reader.stdin.flush()
        run_together(WHOLE, [mag.path, 0, 100], [mag.path, 1, 100])
        out, errors = reader.communicate(timeout=60)
    assert reader.returncode == 0, errors[-1000:]
    assert int(out) >= 2, "the reader met the writers"
    assert np.unique(library_read(mag, CUBE_0)).tolist() in ([199], [200])
