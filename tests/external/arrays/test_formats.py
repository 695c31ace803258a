"""Arrays in files: each format written by a library of its own, and read as a layer, every voxel."""

import gzip
import os
import shutil
import warnings

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from thorough import examples, mostly_slow

from wkdask import BoundingBox, Dataset, VoxelSize, testing
from wkdask.convert.arrays import convert_array, open_arrays
from wkdask.errors import (
    AlreadyExistsError,
    DamagedHeaderError,
    DTypeError,
    InvalidValueError,
    MissingPackageError,
    TaskFailedError,
    UnsupportedFormatError,
    WkdaskWarning,
)
from wkdask.external.arrays.found import Asked

pytestmark = pytest.mark.filterwarnings("ignore::wkdask.errors.WkdaskWarning")
SIZE = VoxelSize((4.6, 4.6, 45))
EIGHT = ["uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float32", "float64"]


# --- writers: each takes voxels (c, x, y, z) and returns what converts them ------------------------------------


def write_mrc(folder, voxels, **how):
    mrcfile = pytest.importorskip("mrcfile")
    path = folder / "a.mrc"
    with warnings.catch_warnings(), mrcfile.new(path, overwrite=True) as file:
        warnings.simplefilter("ignore")
        file.set_data(np.ascontiguousarray(voxels[0].T))
        file.voxel_size = (46, 46, 450)
    return path, {}


def write_hdf5(folder, voxels, chunks=True, **how):
    h5py = pytest.importorskip("h5py")
    path = folder / "a.h5"
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset(
            "volumes/raw", data=voxels.T, chunks=chunks, compression="gzip" if chunks else None
        )
        for dimension, letter in zip(dataset.dims, "zyxc", strict=True):
            dimension.label = letter
        dataset.attrs["resolution"] = (45, 4.6, 4.6)
    return f"{path}:/volumes/raw", {}


def write_n5(folder, voxels, **how):
    ts = pytest.importorskip("tensorstore")
    metadata = {
        "compression": {"type": "gzip"}, "dataType": str(voxels.dtype), "dimensions": voxels[0].shape,
        "blockSize": (16, 13, 8), "axes": ["x", "y", "z"], "resolution": [4.6, 4.6, 45], "units": ["nm"] * 3,
    }  # fmt: skip
    spec = {
        "driver": "n5",
        "kvstore": {"driver": "file", "path": f"{folder}/a.n5/raw/"},
        "metadata": metadata,
    }
    ts.open(spec, create=True).result().write(voxels[0]).result()
    return folder / "a.n5" / "raw", {}


def write_precomputed(folder, voxels, scales=((1, 1, 1),), corner=(0, 0, 0), **how):
    ts = pytest.importorskip("tensorstore")
    for step in scales:
        part = voxels[:, :: step[0], :: step[1], :: step[2]]
        resolution = [side * n for side, n in zip((4.6, 4.6, 45), step, strict=True)]
        spec = {
            "driver": "neuroglancer_precomputed",
            "kvstore": {"driver": "file", "path": f"{folder}/pre/"},
            "multiscale_metadata": {"type": "image", "data_type": str(voxels.dtype), "num_channels": len(voxels)},
            "scale_metadata": {
                "size": part.shape[1:], "resolution": resolution, "encoding": "raw", "chunk_size": (16, 13, 8),
                "voxel_offset": [at // n for at, n in zip(corner, step, strict=True)],
            },
        }  # fmt: skip
        ts.open(spec, create=True).result().write(part.transpose(1, 2, 3, 0)).result()
    return folder / "pre", {}


def write_nrrd(folder, voxels, endian="little", corner=(0, 0, 0), **how):
    nrrd = pytest.importorskip("nrrd")
    path = folder / "a.nrrd"
    header = {
        "encoding": "raw", "endian": endian, "space dimension": 3, "space units": ["nm"] * 3,
        "space directions": np.diag([4.6, 4.6, 45]), "space origin": np.multiply(corner, (4.6, 4.6, 45)),
    }  # fmt: skip
    nrrd.write(
        str(path), voxels[0].astype(voxels.dtype.newbyteorder(">" if endian == "big" else "<")), header
    )
    return path, {}


def write_nifti(folder, voxels, corner=(0, 0, 0), **how):
    nibabel = pytest.importorskip("nibabel")
    affine = np.diag([4.6e-6, 4.6e-6, 45e-6, 1])
    affine[:3, 3] = np.multiply(corner, np.diag(affine)[:3])
    image = nibabel.Nifti1Image(voxels[0], affine, dtype=voxels.dtype)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, folder / "a.nii")
    return folder / "a.nii", {}


def write_npy(folder, voxels, order="C", **how):
    np.save(folder / "a.npy", np.asarray(voxels, order=order))
    return folder / "a.npy", {"axes": "cxyz", "voxel_size": SIZE}


def write_raw(folder, voxels, order="C", big=False, skip=0, **how):
    data = voxels.astype(voxels.dtype.newbyteorder(">" if big else "<")).tobytes(order)
    (folder / "a.raw").write_bytes(b"h" * skip + data)
    asked = Asked(voxels.shape, str(voxels.dtype), order, big, skip)
    return folder / "a.raw", {"axes": "cxyz", "voxel_size": SIZE, "asked": asked}


def write_knossos(folder, voxels, side=16, mags=(1,), **how):
    for mag in mags:
        part = voxels[0, ::mag, ::mag, ::mag]
        root = folder / "kn" / f"mag{mag}"
        counts = [-(-n // side) for n in part.shape]
        whole = np.zeros([n * side for n in counts], "uint8")
        whole[tuple(map(slice, part.shape))] = part
        for place in np.ndindex(*counts):
            cube = whole[tuple(slice(n * side, (n + 1) * side) for n in place)]
            names = [f"{axis}{n:04}" for axis, n in zip("xyz", place, strict=True)]
            (root.joinpath(*names)).mkdir(parents=True)
            if cube.any():
                (root.joinpath(*names) / f"e_mag{mag}_{'_'.join(names)}.raw").write_bytes(cube.tobytes("F"))
        lines = [f"{word} {axis} {n};" for word, values in (("boundary", part.shape), ("scale", SIZE.factor))
                 for axis, n in zip("xyz", values, strict=True)]  # fmt: skip
        text = "\n".join(
            ['experiment name "e";', *lines, f"magnification {mag};", f"cube_edge_length {side};"]
        )
        (root / "knossos.conf").write_text(text)
    return folder / "kn", {}


WRITERS = {
    "mrc": (write_mrc, ["uint16", "int16", "float32", "int8"], 1),
    "hdf5": (write_hdf5, EIGHT, 2),
    "n5": (write_n5, EIGHT, 1),
    "precomputed": (write_precomputed, ["uint8", "uint16", "uint32", "uint64", "float32"], 2),
    "nrrd": (write_nrrd, EIGHT, 1),
    "nifti": (write_nifti, EIGHT, 1),
    "npy": (write_npy, EIGHT, 2),
    "raw": (write_raw, EIGHT, 2),
    "knossos": (write_knossos, ["uint8"], 1),
}


@pytest.mark.parametrize("kind", WRITERS)
@settings(max_examples=examples(8), phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(data=st.data())
def test_every_voxel_comes_in(tmp_path_factory, kind, data):
    write, dtypes, channels = WRITERS[kind]
    folder = tmp_path_factory.mktemp("arrays")
    shape = data.draw(st.tuples(st.integers(1, channels), *(st.integers(1, 40) for _ in range(3))))
    voxels = testing.random_voxels(shape, data.draw(st.sampled_from(dtypes)))
    how = {
        "order": data.draw(st.sampled_from("CF")), "big": data.draw(st.booleans()),
        "skip": data.draw(st.integers(0, 9)), "endian": data.draw(st.sampled_from(["little", "big"])),
        "chunks": data.draw(st.sampled_from([True, None])),
    }  # fmt: skip
    path, said = write(folder, voxels, **how)
    low = [data.draw(st.integers(0, side - 1)) for side in shape[1:]]
    box = BoundingBox(low, [side - at for side, at in zip(shape[1:], low, strict=True)])
    stored = data.draw(st.sampled_from(["wkw", "zarr3"]))
    reports = convert_array(
        path, folder / "ds", together=True, bbox=box, data_format=stored, chunk_shape=16, shard_shape=32,
        progress=False, **said,
    )  # fmt: skip
    layer = Dataset(folder / "ds").get_layer("color")
    np.testing.assert_array_equal(layer.get_mag(1).read(), voxels[(slice(None), *box.to_slices())])
    assert layer.dtype_per_channel == voxels.dtype
    assert layer.bounding_box == box
    assert [*Dataset(folder / "ds").voxel_size] == pytest.approx([*SIZE], rel=1e-6)
    assert len(reports) == 1


@pytest.mark.parametrize("kind", ["precomputed", "nrrd", "nifti"])
def test_the_place_comes_from_the_file(tmp_path, random_voxels, kind):
    voxels = random_voxels((1, 20, 18, 10))
    path, _ = WRITERS[kind][0](tmp_path, voxels, corner=(12, 8, 3))
    with pytest.warns(WkdaskWarning, match=r"begins at voxel \(12, 8, 3\)"):
        convert_array(path, tmp_path / "ds", progress=False)
    layer = Dataset(tmp_path / "ds").get_layer("color")
    assert layer.bounding_box == BoundingBox((12, 8, 3), (20, 18, 10))
    np.testing.assert_array_equal(layer.get_mag(1).read(), voxels)
    convert_array(path, tmp_path / "other", offset=(1, 2, 3), progress=False)
    assert Dataset(tmp_path / "other").get_layer("color").bounding_box.topleft == (1, 2, 3)


@pytest.mark.parametrize("kind", ["nrrd", "nifti"])
def test_an_origin_between_voxels_is_told(tmp_path, random_voxels, kind):
    path, _ = WRITERS[kind][0](tmp_path, random_voxels((1, 20, 18, 10)), corner=(-2, 0.5, 3))
    source = open_arrays(path)
    assert any("is not applied" in note for note in source.notes)
    assert source.layers[0].scales[0].corner == (0, 0, 0)


def test_scales_of_precomputed_become_mags(tmp_path, random_voxels):
    voxels, steps = random_voxels((1, 40, 32, 16)), [(1, 1, 1), (2, 2, 1), (4, 4, 2)]
    path, _ = write_precomputed(tmp_path, voxels, steps, (8, 16, 4))
    convert_array(path, tmp_path / "ds", chunk_shape=16, shard_shape=32, progress=False)
    layer = Dataset(tmp_path / "ds").get_layer("color")
    assert {mag.to_tuple() for mag in layer.mags} == {*steps}
    for step in steps:
        expected = voxels[0, :: step[0], :: step[1], :: step[2]]
        np.testing.assert_array_equal(layer.get_mag(step).read()[0], expected)


def test_mags_of_knossos_become_mags(tmp_path, random_voxels):
    voxels = random_voxels((1, 40, 32, 16))
    path, _ = write_knossos(tmp_path, voxels, mags=(1, 2))
    convert_array(path, tmp_path / "ds", chunk_shape=16, shard_shape=32, progress=False)
    layer = Dataset(tmp_path / "ds").get_layer("color")
    assert Dataset(tmp_path / "ds").voxel_size == SIZE
    np.testing.assert_array_equal(layer.get_mag(1).read(), voxels)
    np.testing.assert_array_equal(layer.get_mag(2).read(), voxels[:, ::2, ::2, ::2])


def test_channels_become_layers(tmp_path, random_voxels):
    voxels = random_voxels((2, 20, 18, 10), "uint16")
    path, said = write_npy(tmp_path, voxels)
    convert_array(path, tmp_path / "ds", progress=False, **said)
    ds = Dataset(tmp_path / "ds")
    for number in range(2):
        np.testing.assert_array_equal(
            ds.get_layer(f"color_{number}").get_mag(1).read(), voxels[number : number + 1]
        )


# --- MRC ---------------------------------------------------------------------------------------------------


@pytest.fixture
def bytes_mrc(tmp_path):
    """Return a function that makes an MRC file of bytes 0 to 255, and changes its header."""
    mrcfile = pytest.importorskip("mrcfile")
    voxels = np.arange(256, dtype="uint8").reshape(4, 8, 8)

    def make(change):
        path = tmp_path / "b.mrc"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with mrcfile.new(path, overwrite=True) as file:
                file.set_data(voxels.view("int8"))
                file.voxel_size = 10
                change(file.header)
        return path, voxels

    return make


def no_hints(header):
    header.nversion, header.dmin, header.dmax = 0, 0, -1


def stamp(flags):
    def change(header):
        raw = bytearray(bytes(header.extra2))
        raw[40:48] = np.array([1146047817, flags], header.nx.dtype).tobytes()
        header.extra2 = bytes(raw)
        no_hints(header)

    return change


def largest(header):
    no_hints(header)
    header.dmin, header.dmax = 0, 255


def smallest(header):
    no_hints(header)
    header.dmin, header.dmax = -128, 127


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (stamp(0), "uint8"),
        (stamp(1), "int8"),
        (largest, "uint8"),
        (smallest, "int8"),
        (lambda header: None, "int8"),
    ],
)
def test_the_sign_of_bytes(tmp_path, bytes_mrc, change, expected):
    path, voxels = bytes_mrc(change)
    source = open_arrays(path)
    assert source.layers[0].spec.dtype == expected
    assert any(expected in note for note in source.notes)
    convert_array(path, tmp_path / "ds", progress=False)
    got = Dataset(tmp_path / "ds").get_layer("color").get_mag(1).read()[0]
    np.testing.assert_array_equal(got, voxels.view(expected).T)


def test_bytes_without_a_sign_are_asked_for(bytes_mrc):
    path, _ = bytes_mrc(no_hints)
    with pytest.raises(InvalidValueError, match="int8 or uint8"):
        open_arrays(path)
    assert open_arrays(path, asked=Asked(dtype="uint8")).layers[0].spec.dtype == "uint8"


def test_mrc_axes_and_byte_order(tmp_path, random_voxels):
    mrcfile = pytest.importorskip("mrcfile")
    voxels = random_voxels((1, 20, 18, 10), "int16")
    path, _ = write_mrc(tmp_path, voxels)
    with mrcfile.open(path, "r+") as file:
        file.header.mapc, file.header.mapr, file.header.maps = 3, 2, 1
    convert_array(path, tmp_path / "ds", progress=False)
    got = Dataset(tmp_path / "ds").get_layer("color").get_mag(1).read()
    np.testing.assert_array_equal(got[0], voxels[0].transpose(2, 1, 0))
    data = bytearray(path.read_bytes())  # the other byte order, but for texts
    for start, stop in ((0, 96), (108, 112), (196, 208), (216, 224)):
        data[start:stop] = np.frombuffer(bytes(data[start:stop]), "<i4").byteswap().tobytes()
    data[1024:] = np.frombuffer(bytes(data[1024:]), "<i2").byteswap().tobytes()
    data[212:216] = b"\x11\x11\x00\x00"
    (tmp_path / "big.mrc").write_bytes(data)
    convert_array(tmp_path / "big.mrc", tmp_path / "ds2", progress=False)
    np.testing.assert_array_equal(Dataset(tmp_path / "ds2").get_layer("color").get_mag(1).read(), got)


# --- HDF5, N5 ----------------------------------------------------------------------------------------------


def test_one_dataset_is_taken_and_several_are_listed(tmp_path, random_voxels):
    h5py = pytest.importorskip("h5py")
    voxels = random_voxels((1, 20, 18, 10))
    write_hdf5(tmp_path, voxels)
    source = open_arrays(tmp_path / "a.h5")
    assert any("one dataset, /volumes/raw" in note for note in source.notes)
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["labels"] = np.zeros((3, 4, 5), "uint32")
    with pytest.raises(InvalidValueError, match=r"a\.h5:/labels.*/volumes/raw"):
        open_arrays(tmp_path / "a.h5")
    with pytest.raises(InvalidValueError, match="no dataset '/nothing'"):
        open_arrays(f"{tmp_path}/a.h5:/nothing")


def test_links_of_hdf5_are_followed_within_the_file(tmp_path, random_voxels):
    h5py = pytest.importorskip("h5py")
    voxels = random_voxels((1, 20, 18, 10))
    write_hdf5(tmp_path, voxels)
    shutil.copy(tmp_path / "a.h5", tmp_path / "b.h5")
    with h5py.File(tmp_path / "b.h5", "a") as file:
        file["data"] = h5py.SoftLink("/volumes")
        file["lost"] = h5py.SoftLink("/nowhere")
        file["away"] = h5py.ExternalLink("a.h5", "/volumes")
    convert_array(f"{tmp_path}/b.h5:/data/raw", tmp_path / "ds", progress=False)
    np.testing.assert_array_equal(Dataset(tmp_path / "ds").get_layer("color").get_mag(1).read(), voxels)
    with pytest.raises(InvalidValueError, match="no dataset '/lost'"):
        open_arrays(f"{tmp_path}/b.h5:/lost")
    with pytest.raises(UnsupportedFormatError, match=r"link into .*a\.h5; name /volumes/raw"):
        open_arrays(f"{tmp_path}/b.h5:/away/raw")


def test_parts_of_hdf5_in_files_that_are_not_there_are_no_zeros(tmp_path, random_voxels, monkeypatch):
    h5py = pytest.importorskip("h5py")
    monkeypatch.chdir(tmp_path)  # where HDF5 puts external files
    voxels = random_voxels((4, 9, 10))
    layout = h5py.VirtualLayout((4, 9, 10), "uint8")
    for z, section in enumerate(voxels):
        layout[z] = h5py.VirtualSource(f"s{z}.h5", "image", (9, 10))
        with h5py.File(f"s{z}.h5", "w") as file:
            file["image"] = section
    with h5py.File("a.h5", "w") as file:
        file.create_virtual_dataset("volume", layout)
        file.create_dataset("raw", (4, 9, 10), "uint8", external=[("a.raw", 0, 360)])[...] = voxels
    how = {"axes": "zyx", "voxel_size": (1, 1, 1), "progress": False}
    convert_array(f"{tmp_path}/a.h5:/volume", tmp_path / "ds", **how)
    np.testing.assert_array_equal(Dataset(tmp_path / "ds").get_layer("color").get_mag(1).read()[0], voxels.T)
    (tmp_path / "s2.h5").unlink()
    with pytest.raises(DamagedHeaderError, match=r"s2\.h5:image is not there"):
        convert_array(f"{tmp_path}/a.h5:/volume", tmp_path / "other", **how)
    with pytest.raises(UnsupportedFormatError, match=r"another file, a\.raw"):
        convert_array(f"{tmp_path}/a.h5:/raw", tmp_path / "other", **how)
    assert not (tmp_path / "other").exists()


def test_an_n5_group(tmp_path, random_voxels):
    voxels = random_voxels((1, 20, 18, 10))
    path, _ = write_n5(tmp_path, voxels)
    source = open_arrays(path.parent)
    assert any("the dataset raw of" in note for note in source.notes)
    assert open_arrays(f"{path.parent}:/raw").layers[0].scales[0].array.path == str(path)
    shutil.copytree(path, path.parent / "other")
    with pytest.raises(InvalidValueError, match=r"other.*raw"):
        open_arrays(path.parent)
    for n, name in enumerate(("other", "raw")):
        (path.parent / name).rename(path.parent / f"s{n}")
    assert any("s1 are left out" in note for note in open_arrays(path.parent).notes)


# --- NRRD, NIfTI -------------------------------------------------------------------------------------------


def test_nrrd_with_channels_and_a_detached_header(tmp_path, random_voxels):
    nrrd = pytest.importorskip("nrrd")
    voxels = random_voxels((3, 20, 18, 10))
    header = {
        "encoding": "raw", "kinds": ["vector", "domain", "domain", "domain"], "space units": ["nm"] * 3,
        "space dimension": 3, "space directions": np.vstack([[np.nan] * 3, np.diag([4, 5, 6])]),
    }  # fmt: skip
    nrrd.write(str(tmp_path / "a.nhdr"), voxels, header)
    convert_array(tmp_path / "a.nhdr", tmp_path / "ds", progress=False)
    assert Dataset(tmp_path / "ds").voxel_size == (4, 5, 6)
    np.testing.assert_array_equal(Dataset(tmp_path / "ds").get_layer("color").get_mag(1).read(), voxels)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        (b"type: uint16", "order the bytes"),
        (b"type: uint16\nendian: middle", "'middle'"),
        (b"type: uint8\ndimension: 2", "dimension says 2"),
        (b"type: uint8\nspacings: 1 1", "spacings says 2"),
        (b"type: uint8\nsizes: 4 -4 4", "-4"),
        (b"type: uint8\nbyte skip: -5", "-5"),
        (b"type: uint8\nline skip: 1", "1 lines"),
        (b"type: uint8\nline skip: 1\ndata file: data", "1 lines"),
    ],
)
def test_a_nrrd_that_does_not_say_where_its_voxels_are(tmp_path, field, message):
    pytest.importorskip("nrrd")
    said = {line.split(b":")[0] for line in field.split(b"\n")}
    usual = [b"dimension: 3", b"sizes: 4 4 4", b"encoding: raw"]
    lines = [b"NRRD0004", *field.split(b"\n"), *(line for line in usual if line.split(b":")[0] not in said)]
    (tmp_path / "a.nrrd").write_bytes(b"\n".join(lines) + b"\n\n" + bytes(128))
    (tmp_path / "data").write_bytes(b"a line\n" + bytes(128))
    with pytest.raises((DamagedHeaderError, UnsupportedFormatError), match=message):
        open_arrays(tmp_path / "a.nrrd", axes="xyz", voxel_size=(1, 1, 1))


def test_nifti_of_colours_and_scaled(tmp_path, random_voxels):
    nibabel = pytest.importorskip("nibabel")
    voxels = random_voxels((3, 20, 18, 10))
    rgb = np.zeros(voxels.shape[1:], [("R", "u1"), ("G", "u1"), ("B", "u1")])
    for name, channel in zip("RGB", voxels, strict=True):
        rgb[name] = channel
    image = nibabel.Nifti1Image(rgb, np.eye(4))
    image.header.set_xyzt_units("micron")
    nibabel.save(image, tmp_path / "rgb.nii")
    convert_array(tmp_path / "rgb.nii", tmp_path / "ds", progress=False)
    np.testing.assert_array_equal(Dataset(tmp_path / "ds").get_layer("color").get_mag(1).read(), voxels)
    scaled = nibabel.Nifti1Image(voxels[0], np.eye(4))
    scaled.header.set_xyzt_units("micron")
    nibabel.save(scaled, tmp_path / "scaled.nii")
    with open(tmp_path / "scaled.nii", "r+b") as file:  # scl_slope and scl_inter of the header
        file.seek(112)
        file.write(np.array([2, 1], "<f4").tobytes())
    assert any("scaling 2.0" in note for note in open_arrays(tmp_path / "scaled.nii").notes)


# --- what is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["mrc", "nrrd", "nifti", "npy", "raw", "hdf5"])
def test_a_file_that_is_cut_off_is_named_and_leaves_nothing(tmp_path, random_voxels, kind):
    path, said = WRITERS[kind][0](tmp_path, random_voxels((1, 20, 18, 10), "uint16"), chunks=None)
    file = str(path).split(":")[0]
    os.truncate(file, os.path.getsize(file) - 100)
    with pytest.raises(DamagedHeaderError, match=os.path.basename(file)):
        convert_array(path, tmp_path / "ds", progress=False, **said)
    assert not (tmp_path / "ds").exists()


def test_a_cube_that_is_cut_off_is_named(tmp_path, random_voxels):
    path, _ = write_knossos(tmp_path, random_voxels((1, 40, 20, 10)))
    cube = next((tmp_path / "kn").rglob("*_x0001_y0000_z0000.raw"))
    os.truncate(cube, 100)
    with pytest.raises(TaskFailedError, match=r"x0001_y0000_z0000\.raw has 100 bytes"):
        convert_array(path, tmp_path / "ds", progress=False)


@pytest.mark.parametrize("kind", ["mrc", "nifti", "npy"])
def test_files_that_are_compressed_as_a_whole_are_refused(tmp_path, random_voxels, kind):
    path, said = WRITERS[kind][0](tmp_path, random_voxels((1, 20, 18, 10), "uint16"))
    packed = tmp_path / f"{path.name}.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(UnsupportedFormatError, match="gunzip"):
        open_arrays(packed, **said)


def test_a_compressed_nrrd_is_refused(tmp_path, random_voxels):
    nrrd = pytest.importorskip("nrrd")
    nrrd.write(str(tmp_path / "a.nrrd"), random_voxels((20, 18, 10)), {"encoding": "gzip"})
    with pytest.raises(UnsupportedFormatError, match="encoding raw"):
        open_arrays(tmp_path / "a.nrrd")


@pytest.mark.parametrize(
    ("left_out", "words"), [("axes", "--axes"), ("voxel_size", "--voxel-size"), ("asked", "--shape")]
)
def test_what_a_file_does_not_say_is_asked_for(tmp_path, random_voxels, left_out, words):
    path, said = write_raw(tmp_path, random_voxels((1, 20, 18, 10)))
    del said[left_out]
    with pytest.raises(InvalidValueError, match=words):
        convert_array(path, tmp_path / "ds", progress=False, **said)
    assert not (tmp_path / "ds").exists()


def test_raw_voxels_of_another_length(tmp_path, random_voxels):
    path, said = write_raw(tmp_path, random_voxels((1, 20, 18, 10)), skip=12)
    said["asked"] = Asked((1, 20, 18, 10), "uint8")
    with pytest.raises(InvalidValueError, match=r"skip=12"):
        open_arrays(path, **said)


def test_types_that_no_layer_has(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((3, 4, 5), "complex64"))
    with pytest.raises(DTypeError, match="complex64"):
        open_arrays(tmp_path / "a.npy", axes="xyz", voxel_size=SIZE)
    np.save(tmp_path / "b.npy", np.ones((3, 4, 5), "float16"))
    convert_array(tmp_path / "b.npy", tmp_path / "ds", axes="xyz", voxel_size=SIZE, progress=False)
    assert Dataset(tmp_path / "ds").get_layer("color").dtype_per_channel == "float32"


def test_a_library_that_is_missing_is_named(tmp_path, random_voxels, monkeypatch):
    import sys

    path, _ = write_hdf5(tmp_path, random_voxels((1, 20, 18, 10)))
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingPackageError, match=r"wkdask\[inputs\]"):
        open_arrays(path)


# --- as a job ----------------------------------------------------------------------------------------------


def test_it_is_resumed(tmp_path, random_voxels):
    voxels = random_voxels((1, 70, 40, 20))
    path, said = write_npy(tmp_path, voxels)
    how = {"chunk_shape": 16, "shard_shape": 32, "progress": False, **said}
    (first,) = convert_array(path, tmp_path / "ds", **how)
    (again,) = convert_array(path, tmp_path / "ds", resume=True, **how)
    assert (first.was_finished, again.was_finished) == (False, True)


def test_voxels_that_are_read_otherwise_are_another_job(tmp_path, random_voxels):
    path, said = write_raw(tmp_path, random_voxels((1, 20, 20, 20), "uint16"))
    convert_array(path, tmp_path / "ds", progress=False, **said)
    said["asked"] = Asked((1, 20, 20, 20), "uint16", "F")
    with pytest.raises(AlreadyExistsError):
        convert_array(path, tmp_path / "ds", progress=False, resume=True, **said)


@pytest.mark.cluster
@pytest.mark.parametrize("kind", mostly_slow(WRITERS, lambda _, kind: kind == "hdf5"))
def test_on_a_cluster(tmp_path, random_voxels, client, kind):
    dtype = WRITERS[kind][1][0]
    voxels = random_voxels((1, 70, 40, 20), dtype)
    path, said = WRITERS[kind][0](tmp_path, voxels)
    convert_array(
        path,
        tmp_path / "ds",
        client=client,
        chunk_shape=16,
        shard_shape=32,
        together=True,
        progress=False,
        **said,
    )
    np.testing.assert_array_equal(Dataset(tmp_path / "ds").get_layer("color").get_mag(1).read(), voxels)


# --- the command -------------------------------------------------------------------------------------------


def test_the_command(tmp_path, random_voxels, invoke):
    voxels = random_voxels((1, 20, 18, 10), "uint16")
    path, _ = write_raw(tmp_path, voxels, "F")
    raw = [
        "--shape",
        "1,20,18,10",
        "--dtype",
        "uint16",
        "--order",
        "F",
        "--axes",
        "cxyz",
        "--voxel-size",
        "4,4,40",
    ]
    out = invoke("convert", path, tmp_path / "ds", *raw, "--dry-run")
    assert "axes cxyz and voxels of 4 × 4 × 40 nm" in out
    assert not (tmp_path / "ds").exists()
    invoke("convert", path, tmp_path / "ds", *raw, "--downsample")
    layer = Dataset(tmp_path / "ds").get_layer("color")
    np.testing.assert_array_equal(layer.get_mag(1).read(), voxels)
    assert "--shape" in invoke("convert", path, tmp_path / "x", "--voxel-size", "4,4,40", code=1)
    npy, _ = write_npy(tmp_path, voxels)
    assert "--axes" in invoke("convert", npy, tmp_path / "x", "--voxel-size", "4,4,40", code=1)
    assert "raw voxels" in invoke("convert", npy, tmp_path / "x", "--skip", "4", code=2)
    assert "image files only" in invoke("convert", npy, tmp_path / "x", "--gaps", "keep", code=2)
    assert "alone" in invoke("convert", npy, path, tmp_path / "x", code=2)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("name", ["a.npy", "a.nrrd"])
def test_what_was_exported_comes_back(tmp_path, random_voxels, name):
    ds = Dataset.create(tmp_path / "ds", SIZE)
    voxels = random_voxels((1, 70, 40, 20), "uint32")
    ids = ds.add_layer("ids", "segmentation", dtype_per_channel="uint32")
    ids.add_mag(1, shard_shape=32, chunk_shape=16).write(voxels, offset=(3, 4, 5), progress=False)
    ids.get_mag(1).export(tmp_path / name, progress=False)
    if name == "a.nrrd":
        pytest.importorskip("nrrd")
    said = {"axes": "cxyz", "voxel_size": SIZE, "offset": (3, 4, 5)} if name == "a.npy" else {}
    how = {"layer_name": "ids", "category": "segmentation", "progress": False}
    convert_array(tmp_path / name, tmp_path / "back", **how, **said)
    back = Dataset(tmp_path / "back")
    assert [*back.voxel_size] == pytest.approx([*SIZE])
    assert back.get_layer("ids").bounding_box == ids.bounding_box
    np.testing.assert_array_equal(back.get_layer("ids").get_mag(1).read(), voxels)
