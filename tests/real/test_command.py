"""`cgnrt real`."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from cgnrt import real
from cgnrt.cli import main

if TYPE_CHECKING:
    from conftest import Photos


@pytest.fixture
def folders(photos: Photos, tmp_path: Path) -> tuple[Path, Path]:
    """A folder of photos and one of their masks; photo 3 has no object."""
    pictures, masks = tmp_path / "photos", tmp_path / "masks"
    pictures.mkdir()
    masks.mkdir()
    for k, (image, mask) in enumerate(zip(photos.images, photos.masks, strict=True)):
        Image.fromarray(image).save(pictures / f"{k}.png")
        grey = (mask[0] * 255).astype(np.uint8) * (k != 3)
        Image.fromarray(grey).save(masks / f"{k}.png")
    (pictures / "notes.txt").write_text("no photo")
    return pictures, masks


def read(path: Path) -> np.ndarray[Any, Any]:
    with Image.open(path) as image:
        return np.asarray(image)


def square(path: Path) -> np.ndarray[Any, Any]:
    """The middle of a photo of 72 x 96, at 64 x 64."""
    with Image.open(path) as image:
        return np.asarray(image.resize((64, 64), Image.Resampling.LANCZOS, (12, 0, 84, 72)))


def run(*arguments: object) -> int:
    return main(["real", *map(str, arguments)])


def test_a_folder_of_counterfactuals(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures, masks = folders
    out = tmp_path / "out"
    options = ["--masks", masks, "-o", out, "-n", 18, "--start", 2, "--seed", 4, "--size", 64]
    assert run(pictures, *options) == 0
    told = capsys.readouterr()
    assert told.out == f"{out}\n"
    assert f"left out {pictures / '3.png'}: no object in it" in told.err
    assert "Left out 1 of 5 photos." in told.err
    assert "not read, since not called like photos: 1 (.txt)" in told.err
    with (out / "index.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == [f"{k:06d}.png" for k in range(2, 20)]
    assert {p.name for p in out.iterdir()} == {"index.csv", *(row["file"] for row in rows)}
    # The same by the library, on photos brought to the same size.
    files = [pictures / f"{k}.png" for k in (0, 1, 2, 4)]
    squares, grey = (np.stack([square(folder / p.name) for p in files]) for folder in (pictures, masks))
    batch = real.counterfactuals(squares, grey, seed=4, n=18, start=2)
    for row, parts, image in zip(rows, batch.index, batch.images, strict=True):
        assert [row[name] for name in ("shape", "texture", "background")] == [str(files[k]) for k in parts]
        assert (row["index"], row["seed"]) == (str(int(row["file"][:6])), "4")
        np.testing.assert_array_equal(read(out / row["file"]), image)
    # Not over what is there, unless told to; what has other names stays.
    assert run(pictures, *options) == 1
    assert (
        "the folder has files in it, expected an empty or a new one. Pass --force" in capsys.readouterr().err
    )
    (out / "mine.txt").write_text("kept")
    (out / "000002.png").write_bytes(b"old")
    assert run(pictures, *options, "--force") == 0
    assert read(out / "000002.png").shape == (64, 64, 3)
    assert (out / "mine.txt").read_text() == "kept"


def test_a_sheet(folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures, masks = folders
    out = tmp_path / "sheets" / "sheet.png"
    files = [pictures / f"{k}.png" for k in (0, 1, 4)]
    options = ["--masks", masks, "-o", out, "--size", 48, "--tile", 40, "--swap", "background"]
    assert run(*files, *options) == 0
    with Image.open(out) as sheet:
        width, height = sheet.size
    assert 3 * 46 < width < 3 * 46 + 120
    assert 5 * 46 <= height < 5 * 46 + 20
    before = out.read_bytes()
    assert run(*files, *options) == 1
    assert "the file exists, expected a new one. Pass --force to replace it." in capsys.readouterr().err
    assert run(*files, *options, "--force") == 0
    assert out.read_bytes() == before


def test_objects_found_by_a_plan(
    photos: Photos, tmp_path: Path, golden_saliency_plan: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    for k in range(8):
        noise = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)
        Image.fromarray(noise).resize((64, 64), Image.Resampling.NEAREST).save(tmp_path / f"{k}.png")
    out = tmp_path / "out.png"
    status = run(tmp_path, "--saliency", golden_saliency_plan, "-o", out, "--size", 64, "--threads", 1)
    told = capsys.readouterr()
    files = [read(tmp_path / f"{k}.png") for k in range(8)]
    good = real.usable(real.Saliency(golden_saliency_plan, threads=1)(np.stack(files)))
    assert told.err.count("left out") == 8 - good.sum()
    assert status == (0 if good.sum() > 1 else 1)
    assert out.exists() == (status == 0)


@pytest.fixture
def classes(photos: Photos, tmp_path: Path) -> tuple[Path, Path]:
    """A folder with two photos of a cat and two of a dog, one of them deeper, and the masks of these names."""
    for k, name in enumerate(["cat/0", "cat/1", "dog/2", "dog/more/4"]):
        for folder, image in [("photos", photos.images[k]), ("masks", photos.masks[k, 0] * 255)]:
            path = tmp_path / folder / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.astype(np.uint8)).save(path)
    return tmp_path / "photos", tmp_path / "masks"


@pytest.mark.parametrize("donors", ["same", "other"])
def test_folders_of_classes(classes: tuple[Path, Path], tmp_path: Path, donors: str) -> None:
    pictures, masks = classes
    (pictures / "cat" / "notes.txt").write_text("no photo")
    out = tmp_path / "out"
    assert run(pictures, "--masks", masks, "-o", out, "-n", 12, "--size", 64, "--donors", donors) == 0
    with (out / "index.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["shape"] for row in rows} == {str(path) for path in pictures.rglob("*.png")}
    for row in rows:
        for part in ("shape", "texture", "background"):
            assert row[f"{part}_class"] == Path(row[part]).relative_to(pictures).parts[0]
            if part != "shape":
                assert (row[f"{part}_class"] == row["shape_class"]) == (donors == "same")


def test_classes_without_donors(
    classes: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures, masks = classes
    for given, donors, message in [
        ([pictures / "cat"], "other", "all usable photos are of class 'cat', expected at least 2 classes."),
        ([pictures / "cat", pictures / "dog"], "same", "class 'dog' has 1 usable photo, expected at least 2"),
    ]:
        assert run(*given, "--masks", masks, "-o", tmp_path / "x", "--donors", donors) == 1
        assert message in capsys.readouterr().err


def test_objects_of_wrong_sizes_are_left_out(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the shares both photos are taken, as `real.usable` says."""
    pictures, masks = folders
    dot, wall = np.zeros((2, 72, 96), np.uint8)
    dot[30:36, 40:50] = 255
    wall[12:] = 255
    Image.fromarray(dot).save(masks / "0.png")
    Image.fromarray(wall).save(masks / "1.png")
    assert run(pictures, "--masks", masks, "-o", tmp_path / "a.png", "--size", 64) == 0
    told = capsys.readouterr().err
    assert "0.png: its object covers 1.1" in told
    assert "expected at least 0.02 of it (min_object)" in told
    assert "1.png: its object covers 8" in told
    assert "expected at most 0.8 of it (max_object)" in told
    options = ["--min-object", 0, "--max-object", 1, "--size", 64]
    assert run(pictures, "--masks", masks, "-o", tmp_path / "b.png", *options) == 0
    assert "Left out 1 of 5 photos." in capsys.readouterr().err
    both = np.stack([dot, wall])
    assert real.usable(both).tolist() == [False, False]
    assert real.usable(both, min_object=0.005, max_object=0.9).tolist() == [True, True]
    with pytest.raises(ValueError, match=r"usable: min_object is 0.5 and max_object 0.1, expected shares"):
        real.usable(both, min_object=0.5, max_object=0.1)


def test_what_is_refused(
    folders: tuple[Path, Path], tmp_path: Path, golden_plan: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures, masks = folders
    out = tmp_path / "x.png"
    (tmp_path / "empty").mkdir()
    (tmp_path / "set" / "train" / "cat").mkdir(parents=True)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    (tmp_path / "file").write_text("")
    for arguments, message in [
        (
            [tmp_path / "empty", "--masks", masks],
            "photos are missing, expected .jpg, .jpeg, .png, .webp, .bmp, .tif, .tiff, .gif files in the",
        ),
        ([tmp_path / "missing.jpg", "--masks", masks], "missing.jpg': file is missing, expected a picture."),
        (
            [tmp_path / "broken.png", "--masks", masks],
            "broken.png': file is unreadable (cannot identify image file",
        ),
        ([pictures, "--masks", tmp_path], "0.png': file is missing, expected a picture. Check the path."),
        (
            [pictures / "0.png", "--masks", masks],
            "usable photos are 1, expected at least 2 to exchange parts.",
        ),
        (
            [tmp_path / "set", "--masks", masks],
            "its sub-folders are parts of a data set ('train'), expected photos or a sub-folder for each class.",
        ),
        (
            [pictures, "--masks", masks, "--min-object", 2],
            "real: min_object is 2 and max_object 0.8, expected shares of the picture",
        ),
        ([pictures, "--masks", masks, "-n", 0], "real: n is 0, expected at least 1."),
        (
            [pictures, "--masks", masks, "--size", 8],
            "real: size is 8, expected at least 32.",
        ),
        ([pictures, "--masks", masks, "--seed", -1], "seed is -1, expected 0..2**64 - 1."),
        ([pictures, "--saliency", golden_plan], "kind is 'cgn', expected 'saliency'."),
        (
            [pictures, "--masks", masks, "-o", tmp_path / "file"],
            "it is a file, expected a folder, or a name that ends",
        ),
    ]:
        assert run("-o", out, *arguments) == 1
        assert message in capsys.readouterr().err
        assert not out.exists()
    with pytest.raises(SystemExit):
        run(pictures, "-o", out)
    assert "one of the arguments --saliency --masks is required" in capsys.readouterr().err
