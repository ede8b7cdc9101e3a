"""Data sets with places: what each format says of them, and that another place makes another data set."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from cgnrt import CgnrtError, Generator, Place, shards
from cgnrt.cli import main
from cgnrt.shards.formats import FORMATS

from .conftest import Make, N, contents
from .test_verify import SHARD, edit, rewrite, sign

PLACE = Place(dy=(-0.25, 0.25), dx=(-0.5, 0), scale=(0.5, 1.5), flip=0.5)
WITHOUT = ["index", "seed", "shape", "shape_name", "texture", "texture_name", "background", "background_name"]


def rows(folder: Path, manifest: shards.Manifest) -> list[dict[str, Any]]:
    """Every sample of a data set, as its format reads it."""
    read = FORMATS[manifest.storage.format].read
    return [row for record in manifest.shards for row in read(folder / record.name, manifest.storage)]


@pytest.mark.parametrize("options", [{}, {"pool": 6, "refresh": 2}, {"do": {"scale": 1}}], ids=str)
@pytest.mark.parametrize("format", list(FORMATS))
def test_every_format_tells_the_places(
    make: Make, pixels: Generator, tmp_path: Path, format: str, options: dict[str, Any]
) -> None:
    manifest = make(tmp_path, format=format, image="raw", masks=True, place=PLACE, **options)
    expected = pixels.sample(N, seed=5, place=PLACE, parts=True, **options)
    found = rows(tmp_path, manifest)
    told = [[row[name] for name in ("dy", "dx", "scale", "flip")] for row in found]
    np.testing.assert_array_equal(told, expected.place)
    assert [type(value) for value in told[0]] == [int, int, float, bool]
    if format == "webdataset":
        pictures, masks = ([_array(row[name]) for row in found] for name in ("picture", "mask"))
    else:
        pictures, masks = ([row[name] for row in found] for name in ("picture", "mask"))
    np.testing.assert_array_equal(pictures, expected.images)
    np.testing.assert_array_equal(masks, np.rint(expected.mask[:, 0] * 255).astype(np.uint8))
    assert shards.verify(tmp_path, deep=True) == []
    assert shards.Manifest.read(tmp_path) == manifest


def _array(content: bytes) -> np.ndarray:
    from cgnrt._support.encode import decode

    return decode(content, "raw")


def test_the_columns_of_tables_and_arrays(make: Make, pixels: Generator, tmp_path: Path) -> None:
    expected = pixels.sample(N, seed=5, place=PLACE).place
    make(tmp_path / "parquet", format="parquet", place=PLACE)
    table = pq.read_table(sorted((tmp_path / "parquet").glob("*.parquet")))
    assert table.schema.names == [*WITHOUT, "dy", "dx", "scale", "flip", "image"]
    kinds = [str(table.schema.field(name).type) for name in ("dy", "dx", "scale", "flip")]
    assert kinds == ["int32", "int32", "float", "bool"]
    columns = np.stack([table.column(name).to_numpy() for name in ("dy", "dx", "scale", "flip")], axis=1)
    np.testing.assert_array_equal(columns, expected)
    make(tmp_path / "npz", format="npz", place=PLACE)
    files = sorted((tmp_path / "npz").glob("*.npz"))
    arrays = [np.load(path, allow_pickle=False)["place"] for path in files]
    assert {array.dtype for array in arrays} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(np.concatenate(arrays), expected)


def test_without_a_place_nothing_is_said_of_one(make: Make, whole: Path, tmp_path: Path) -> None:
    manifest = shards.Manifest.read(whole)
    assert "place" not in manifest.header["samples"]
    assert list(rows(whole, manifest)[0]) == [*WITHOUT, "picture"]
    for format in ("parquet", "npz"):
        make(tmp_path / format, format=format)
    assert pq.read_schema(tmp_path / "parquet" / "shard-000000.parquet").names == [*WITHOUT, "image"]
    with np.load(tmp_path / "npz" / "shard-000000.npz") as shard:
        assert "place" not in shard.files


def test_the_command_and_what_it_resumes(
    demo_plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [
        "generate",
        str(demo_plan),
        "-n",
        "12",
        "--shard-size",
        "4",
        "-o",
        str(tmp_path),
        "--processes",
        "2",
    ]
    placed = [*given, "--place", "dx=-0.5:0,scale=0.5:1.5", "--place", "flip", "--do", "dy=0.25"]
    assert main(placed) == 0
    samples = json.loads((tmp_path / "manifest.json").read_text())["samples"]
    assert samples["place"] == {"dy": [0.25, 0.25], "dx": [-0.5, 0.0], "scale": [0.5, 1.5], "flip": 1.0}
    assert samples["do"] == {}
    whole = contents(tmp_path)
    (tmp_path / "shard-000001.tar").unlink()
    assert main(placed) == 0
    assert contents(tmp_path) == whole
    capsys.readouterr()
    for other, message in (
        (given, "samples.place is None, expected {'dy': [0.25, 0.25]"),
        ([*placed[:-1], "dy=0.5"], "samples.place is {'dy': [0.5, 0.5]"),
        ([*given, "--place", "x=1"], "sample: place has 'x', expected some of dy, dx, scale, flip. Did you mean 'dx'?"),
        ([*given, "--do", "dx=-1:1"], "sample: do['dx'] is '-1:1', expected a number. Use --place"),
        ([*given, "--do", "scale=big"], "sample: place scale is 'big', expected a number or LOW:HIGH."),
        ([*given, "--do", "flup=1"], "texture, background, dy, dx, scale, flip. Did you mean 'flip'?"),
    ):  # fmt: skip
        assert main(other) == 1
        assert message in capsys.readouterr().err
    assert contents(tmp_path) == whole


def test_another_place_is_another_data_set(make: Make, tmp_path: Path) -> None:
    make(tmp_path, n=4, place=PLACE)
    for other in (None, Place(scale=0.5)):
        with pytest.raises(
            CgnrtError, match=r"samples.place is .*, expected \{'dy': .* or --force to start again"
        ):
            make(tmp_path, n=4, place=other)
    assert make(tmp_path, n=4, place=PLACE) == shards.Manifest.read(tmp_path)


def test_places_for_each_sample_are_refused(make: Make, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"generate: place is given for each sample \(list\), expected a cgnrt.Place"
    ):
        make(tmp_path / "out", place=[[0, 0, 1, 0]] * N)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dy": 9}, "dy is 9, expected -8..8"),
        ({"dx": 1}, "dx is 1, expected -16..0"),
        ({"dx": -0.5}, "dx is -0.5, expected -16..0"),
        ({"scale": 2.0}, "scale is 2.0, expected 0.5..1.5"),
        ({"scale": None}, "scale is None, expected 0.5..1.5"),
        ({"flip": 1}, "flip is 1, expected False..True"),
    ],
    ids=str,
)
def test_places_that_are_not_of_the_manifest(
    make: Make, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    make(tmp_path, place=PLACE)

    def spoil(members: list[tuple[str, bytes]]) -> None:
        name, content = members[1]
        members[1] = (name, json.dumps(json.loads(content) | change).encode())

    rewrite(tmp_path / SHARD, spoil)
    sign(tmp_path)
    assert shards.verify(tmp_path) == [f"{SHARD}: sample 0: {message}"]


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (7, "samples.place is damaged (place is 7, expected an object of dy, dx, scale, flip)"),
        ({"dy": 0}, "samples.place is damaged (place is {'dy': 0}, expected an object of"),
        (
            {"dy": 9, "dx": 0, "scale": 1, "flip": 0},
            "samples.place is damaged (sample: place dy is 9, expected",
        ),
        (
            {"dy": "a", "dx": 0, "scale": 1, "flip": 0},
            "samples.place is damaged (sample: place dy is 'a', expected",
        ),
    ],
)
def test_a_manifest_with_a_damaged_place(make: Make, tmp_path: Path, place: Any, message: str) -> None:
    make(tmp_path, n=4, place=PLACE)
    edit(tmp_path, lambda content: content["samples"].update(place=place))
    with pytest.raises(CgnrtError, match=re.escape(message)):
        shards.verify(tmp_path)
