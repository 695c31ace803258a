"""OME-Zarr metadata: what we write is understood as it was meant, and so is what others write with less."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wkdask import Mag, Vec3Int, VoxelSize
from wkdask.errors import InvalidValueError
from wkdask.external.zarr.ome_zarr import ScaleEntry, corner_of, place, read_image
from wkdask.layer.multiscales import _placed

mags = st.tuples(*[st.sampled_from([1, 2, 4, 8, 64])] * 3).map(Mag)
sides = st.tuples(*[st.floats(1e-3, 1e4)] * 3)


def written(folder, axes, datasets, unit, version="0.5"):
    """Write the metadata of a group, and read them."""
    listed = [
        {"name": axis, "type": "channel"} if axis == "c" else {"name": axis, "type": "space", "unit": unit}
        for axis in axes
    ]
    content = {"multiscales": [{"axes": listed, "datasets": datasets, "version": version}]}
    folder.mkdir(exist_ok=True)
    if version == "0.4":
        (folder / ".zattrs").write_text(json.dumps(content))
    else:
        group = {
            "zarr_format": 3,
            "node_type": "group",
            "attributes": {"ome": {"version": version, **content}},
        }
        (folder / "zarr.json").write_text(json.dumps(group))
    return read_image(str(folder))


@given(
    others=st.lists(mags, max_size=4, unique_by=str),
    factor=sides,
    unit=st.sampled_from(["nanometer", "micrometer", "angstrom", "inch"]),
    axes=st.permutations("cxyz").map("".join),
    version=st.sampled_from(["0.4", "0.5"]),
)
def test_what_we_write_is_read_as_it_was_meant(tmp_path_factory, others, factor, unit, axes, version):
    size = VoxelSize(factor, unit)
    wanted = sorted({Mag(1), *others}, key=lambda mag: mag.to_vec3_int().prod())
    datasets = [
        {"path": str(number), "coordinateTransformations": _placed(mag, size, axes)}
        for number, mag in enumerate(wanted)
    ]
    folder = tmp_path_factory.getbasetemp() / f"image{version}"
    image = written(folder, axes, datasets[::-1], unit, version)
    assert (image.voxel_size, image.axes) == (size, axes)
    finest = image.scales[0]
    assert corner_of(image.path, finest) == (0, 0, 0)
    found = {entry.name: place(entry, finest) for entry in image.scales}
    assert found == {str(number): (mag, Vec3Int(0, 0, 0)) for number, mag in enumerate(wanted)}


@given(
    mag=mags,
    size=sides,
    steps=st.tuples(*[st.integers(-5, 50)] * 3),
    begin=st.tuples(*[st.integers(0, 10**6)] * 3),
)
def test_a_scale_lies_where_its_translation_says(mag, size, steps, begin):
    # the middle of the first voxel, from that of the finest scale's
    finest = ScaleEntry("0", size, tuple(b * s for b, s in zip(begin, size, strict=True)))
    middles = [(b + n * m + (m - 1) / 2) * s for b, n, m, s in zip(begin, steps, mag, size, strict=True)]
    scale = ScaleEntry("1", tuple(m * s for m, s in zip(mag, size, strict=True)), tuple(middles))
    assert corner_of("image", finest) == begin
    assert place(scale, finest) == (mag, Vec3Int(*(n * m for n, m in zip(steps, mag, strict=True))))


def test_voxels_that_lie_between_or_are_no_multiples():
    finest = ScaleEntry("0", (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    for sides, shift, words in [
        ((2.0, 2.0, 1.5), (0.5, 0.5, 0.25), "no whole multiples"),
        ((3.0, 3.0, 1.0), (1.0, 1.0, 0.0), "powers of two"),
        ((0.5, 1.0, 1.0), (0.0, 0.0, 0.0), "no whole multiples"),
        ((2.0, 2.0, 1.0), (0.8, 0.5, 0.0), "between"),
        ((2.0, 2.0, 1.0), (1.5, 0.5, 0.0), "between"),  # one voxel of mag 1 is half a voxel of mag 2
    ]:
        with pytest.raises(InvalidValueError, match=words):
            place(ScaleEntry("1", sides, shift), finest)
    for shift in [(0.5, 0.0, 0.0), (-1.0, 0.0, 0.0)]:
        with pytest.raises(InvalidValueError, match="--offset"):
            corner_of("image", ScaleEntry("0", (1.0, 1.0, 1.0), shift))


def test_few_digits_are_enough(tmp_path):
    def at(*scale):
        return [{"type": "scale", "scale": list(scale)}]

    datasets = [
        {"path": "0", "coordinateTransformations": at(0.045, 0.00461, 0.00461)},
        {"path": "1", "coordinateTransformations": at(0.045, 0.00922, 0.009221)},
    ]
    image = written(tmp_path / "i", "zyx", datasets, "micrometer")
    assert place(image.scales[1], image.scales[0]) == (Mag("2-2-1"), Vec3Int(0, 0, 0))
    assert image.voxel_size == VoxelSize((0.00461, 0.00461, 0.045), "micrometer")


def test_transformations_follow_each_other(tmp_path):
    # first those of a scale, then those of the image: sides and places grow together
    datasets = [
        {
            "path": "0",
            "coordinateTransformations": [
                {"type": "scale", "scale": [2, 1, 1]},
                {"type": "translation", "translation": [4, 3, 0]},
            ],
        }
    ]
    folder = tmp_path / "i"
    written(folder, "zyx", datasets, "nanometer")
    content = json.loads((folder / "zarr.json").read_text())
    content["attributes"]["ome"]["multiscales"][0]["coordinateTransformations"] = [
        {"type": "identity"},
        {"type": "scale", "scale": [10, 5, 5]},
    ]
    (folder / "zarr.json").write_text(json.dumps(content))
    image = read_image(str(folder))
    assert image.scales == (ScaleEntry("0", (5.0, 5.0, 20.0), (0.0, 15.0, 40.0)),)
    assert corner_of(image.path, image.scales[0]) == (0, 3, 2)
