"""`cgnrt real --sets`: test sets that take photos apart, as folders of classes with an index."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from told_photos import K, Told, make_told, read_ground, read_object

from cgnrt.cli import main
from cgnrt.real.parts import Grids, Parts
from cgnrt.real.photos import read_masks, read_pictures
from cgnrt.real.sets import SETS, TestSets, parse_sets

Array = np.ndarray[Any, Any]
N = 12
NAMES = ("ant", "bee", "cat", "dog")


@pytest.fixture
def told() -> Told:
    return make_told(N)


def sets_of(images: Array, told: Told, seed: int = 0) -> TestSets:
    pictures = read_pictures(images, "test")
    masks = read_masks(told.masks, N, pictures.size, "test")
    parts = Parts(pictures, masks, Grids(), filled=True, operation="test")
    return TestSets(parts, told.labels, seed, 1)


def test_what_each_set_shows(told: Told) -> None:
    made = sets_of(told.images, told)
    numbers = np.arange(2, 2 + 2 * N)
    photos = numbers % N
    inside = told.masks[photos] == 1
    own, labels = told.images[photos], told.labels[photos]
    shown, index = zip(*(made.make(name, numbers) for name in SETS), strict=True)
    images, of = dict(zip(SETS, shown, strict=True)), dict(zip(SETS, index, strict=True))
    np.testing.assert_array_equal(images["original"], own)
    for name in ("mixed_same", "mixed_rand", "only_fg"):
        np.testing.assert_allclose(images[name] * inside, own * inside, atol=1e-6)
        assert (of[name][:, :2] == photos[:, None]).all()
    assert (told.labels[of["mixed_same"][:, 2]] == labels).all()
    assert (of["mixed_same"][:, 2] != photos).all()
    assert (read_ground(images["mixed_same"]) == labels).all()
    assert len(set(told.labels[of["mixed_rand"][:, 2]] == labels)) == 2  # some of the class, some of others
    np.testing.assert_array_equal(read_ground(images["mixed_rand"]), told.labels[of["mixed_rand"][:, 2]])
    assert (images["only_fg"] * ~inside).max() == 0
    for name in ("only_bg_b", "only_bg_t", "no_fg"):
        outside = images[name] * ~inside
        assert images[name][:, 2].max() == 0  # nothing of the object
        assert (of[name][:, 1] == -1).all()
        assert (read_ground(images[name]) == labels).all()
        if name == "no_fg":
            np.testing.assert_array_equal(outside, own * ~inside)
            assert (images[name] * inside).max() == 0
    for image, mask in zip(images["only_bg_b"], inside[:, 0], strict=True):
        black = image.max(axis=0) == 0
        rows, columns = np.nonzero(mask)
        expected = np.zeros_like(mask)
        expected[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
        np.testing.assert_array_equal(black, expected)
    assert images["only_bg_t"][:, 1].min() > 0  # no hole
    assert (of["only_bg_t"][:, 0] == -1).all()
    assert (of["only_fg"][:, 2] == -1).all()


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_sets_of_bytes(told: Told, layout: str) -> None:
    bytes_ = np.rint(told.images * 255).astype(np.uint8)
    made = sets_of(bytes_ if layout == "NCHW" else np.ascontiguousarray(bytes_.transpose(0, 2, 3, 1)), told)
    floats = sets_of(bytes_.astype(np.float32) / 255, told)
    for name in SETS:
        images, index = made.make(name, np.arange(N))
        expected, same = floats.make(name, np.arange(N))
        assert images.dtype == np.uint8
        found = images if layout == "NCHW" else images.transpose(0, 3, 1, 2)
        np.testing.assert_allclose(found / 255, expected, atol=0.51 / 255)
        np.testing.assert_array_equal(index, same)


def test_a_picture_depends_on_its_number_and_the_seed(told: Told) -> None:
    made = sets_of(told.images, told)
    for name in SETS:
        whole, _ = made.make(name, np.arange(30))
        np.testing.assert_array_equal(made.make(name, np.array([17]))[0][0], whole[17])
        other, _ = sets_of(told.images, told, seed=1).make(name, np.arange(30))
        assert np.array_equal(other, whole) != name.startswith("mixed")
        assert len(made.make(name, np.arange(0))[0]) == 0


@pytest.fixture
def folders(told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for k, label in enumerate(told.labels):
        photo = np.rint(255 * told.images[k].transpose(1, 2, 0)).astype(np.uint8)
        for folder, picture in (("photos", photo), ("masks", (255 * told.masks[k, 0]).astype(np.uint8))):
            path = tmp_path / folder / NAMES[label] / f"{k}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path)
    return tmp_path


def run(*words: str) -> int:
    return main(["real", "photos", "--masks", "masks", "--size", "48", "--threads", "1", *words])


def rows(folder: str) -> list[dict[str, str]]:
    with Path(folder, "index.csv").open() as file:
        return list(csv.DictReader(file))


def test_folders_of_classes(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-o", "sets", "--sets", "all", "-n", "16", "--start", "3") == 0
    assert capsys.readouterr().out == "sets\n"
    assert {path.name for path in Path("sets").iterdir()} == set(SETS)
    for name in SETS:
        index = rows(f"sets/{name}")
        assert [int(row["index"]) for row in index] == list(range(3, 19))
        files = {
            str(path.relative_to(folders / "sets" / name))
            for path in (folders / "sets" / name).rglob("*.png")
        }
        assert {row["file"] for row in index} == files
        assert {path.name for path in Path("sets", name).iterdir()} == {"index.csv", *NAMES}
        for row in index:
            shown = row["file"].partition("/")[0]
            assert shown in NAMES
            for part in ("shape", "texture", "background"):
                assert (row[part] == "") == (row[f"{part}_class"] == "")
                assert row[part] == "" or Path(row[part]).parent.name == row[f"{part}_class"]
            if name == "mixed_same":
                assert row["background_class"] == row["shape_class"] == shown
                assert row["background"] != row["shape"]
            if name == "only_fg":
                assert row["background"] == ""
            if name == "only_bg_t":
                assert row["shape"] == row["texture"] == ""
                assert row["background_class"] == shown
    with Image.open(Path("sets", "only_fg", rows("sets/only_fg")[0]["file"])) as image:
        image = np.asarray(image)[None].transpose(0, 3, 1, 2) / 255
    assert NAMES[read_object(image)[0]] == rows("sets/only_fg")[0]["file"].partition("/")[0]
    assert image[0, :, 0, 0].max() == 0


def test_a_run_goes_on_and_replaces_nothing(
    folders: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = TestSets.make
    calls: list[str] = []

    def stop(self: TestSets, name: str, numbers: Array) -> tuple[Array, Array]:
        calls.append(name)
        if len(calls) == 4:  # the second step of the second set
            raise KeyboardInterrupt
        return made(self, name, numbers)

    words = ("-o", "sets", "--sets", "only_fg,mixed_rand", "-n", "20")
    monkeypatch.setattr(TestSets, "make", stop)
    assert run(*words) == 1
    assert "interrupted" in capsys.readouterr().err
    assert calls == ["only_fg", "only_fg", "mixed_rand", "mixed_rand"]
    assert (len(rows("sets/only_fg")), len(rows("sets/mixed_rand"))) == (20, 16)
    monkeypatch.setattr(TestSets, "make", made)
    # The finished set is not made again, nor replaced.
    assert run(*words) == 1
    assert "write 'sets/only_fg': the folder has files in it" in capsys.readouterr().err
    kept = (
        Path("sets/mixed_rand/ant").stat().st_mtime_ns,
        Path("sets/mixed_rand/ant/000000.png").stat().st_mtime_ns,
    )
    assert run("-o", "sets", "--sets", "mixed_rand", "-n", "20") == 0
    assert len(rows("sets/mixed_rand")) == 20
    assert Path("sets/mixed_rand/ant/000000.png").stat().st_mtime_ns == kept[1]
    assert run("-o", "again", "--sets", "mixed_rand", "-n", "20") == 0
    for path in Path("again/mixed_rand").rglob("*.png"):
        assert (Path("sets") / path.relative_to("again")).read_bytes() == path.read_bytes()


def test_a_killed_runs_leftovers_in_class_folders_are_removed(folders: Path) -> None:
    assert run("-o", "sets", "--sets", "no_fg") == 0
    left = Path("sets/no_fg/ant/.000000.png.123.0123abcd.tmp")
    left.write_bytes(b"cut")
    assert run("-o", "sets", "--sets", "no_fg", "--force") == 0
    assert not left.exists()


def test_a_sheet_of_sets(folders: Path) -> None:
    assert run("-o", "sheet.png", "--sets", "all", "-n", "3", "--tile", "48") == 0
    with Image.open("sheet.png") as sheet:
        width, height = sheet.size
    assert 3 * 54 < width < 3 * 54 + 140
    assert len(SETS) * 54 <= height < len(SETS) * 54 + 20


def test_names_of_sets() -> None:
    assert parse_sets("all") == tuple(SETS)
    assert parse_sets("no_fg, only_fg,no_fg") == ("no_fg", "only_fg")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--sets", "mixed_sane"],
            "real: set is 'mixed_sane', expected all, or some of original, mixed_same",
        ),
        (["--sets", "mixed_sane"], "Did you mean 'mixed_same'?"),
        (["--sets", "all", "--swap", "texture"], "--swap is not supported with --sets"),
        (["--sets", "all", "--donors", "same"], "--donors is not supported with --sets"),
    ],
)
def test_what_is_refused(
    folders: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert run("-o", "sets", *words) == 1
    assert message in capsys.readouterr().err
    assert not Path("sets").exists()


def test_a_class_of_one_photo(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for k in (4, 8):
        Path(f"photos/ant/{k}.png").unlink()
    assert run("-o", "sets", "--sets", "mixed_same") == 1
    assert "class 'ant' has 1 usable photo, expected at least 2 of each class" in capsys.readouterr().err
    assert run("-o", "sets", "--sets", "mixed_rand,only_fg") == 0
    assert len(NAMES) == K
