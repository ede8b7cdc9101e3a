"""Photos and masks in files: what belongs together, what is left out and why."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from cgnrt import real
from cgnrt.cli import main
from cgnrt.real.files import find_photos, pair_masks

if TYPE_CHECKING:
    from conftest import Photos

Array = np.ndarray[Any, Any]


@pytest.fixture
def folders(photos: Photos, tmp_path: Path) -> tuple[Path, Path]:
    """Five photos of 96 x 72, and their masks."""
    pictures, masks = tmp_path / "photos", tmp_path / "masks"
    pictures.mkdir()
    masks.mkdir()
    for k, (image, mask) in enumerate(zip(photos.images, photos.masks, strict=True)):
        Image.fromarray(image).save(pictures / f"{k}.png")
        Image.fromarray(grey(mask)).save(masks / f"{k}.png")
    return pictures, masks


def grey(mask: Array) -> Array:
    return (mask[0] * 255).astype(np.uint8)


def run(*arguments: object) -> int:
    return main(["real", *map(str, arguments)])


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_photos_of_folders(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    touch(
        a / "2.JPG", a / "1.tiff", a / "3.gif", a / "note.txt", a / "4.HEIC", a / "sub.png" / "x", b / "1.TIF"
    )
    found = find_photos([a, b / "1.TIF", b])
    photos, others = list(found.photos), list(found.others)
    assert photos == [a / "1.tiff", a / "2.JPG", a / "3.gif", b / "1.TIF", b / "1.TIF"]
    assert others == [a / "4.HEIC", a / "note.txt", a / "sub.png"]
    with pytest.raises(ValueError, match=r"missing.jpg': file is missing, expected a picture"):
        find_photos([a, a / "missing.jpg"])


def test_masks_of_any_suffix(tmp_path: Path) -> None:
    pictures, masks = tmp_path / "photos", tmp_path / "masks"
    photos = [pictures / name for name in ("a.jpg", "b.jpg", "c.d.jpg", "e.png", "f.jpg", "g.jpg")]
    touch(*photos)
    touch(masks / "a.PNG", masks / "b.tiff", masks / "c.d.gif", masks / "e.png.png", masks / "e.jpg")
    touch(masks / "f.png", masks / "f.jpg", masks / "._f.png", masks / "f.txt")
    names = ["a.PNG", "b.tiff", "c.d.gif", "e.png.png", "f.png", "g.png"]
    assert pair_masks(photos, masks) == [masks / name for name in names]
    assert not (masks / "g.png").exists()  # which reading it says


def test_masks_beside_their_photos(tmp_path: Path) -> None:
    touch(tmp_path / "a.jpg", tmp_path / "a.png")
    assert pair_masks([tmp_path / "a.jpg"], tmp_path) == [tmp_path / "a.png"]


def test_two_photos_with_one_name(tmp_path: Path) -> None:
    one, two, masks = tmp_path / "one", tmp_path / "two", tmp_path / "masks"
    photos = [one / "002.jpg", two / "002.jpg"]
    touch(*photos, one / "002.png", masks / "002.png")
    for given in (photos, [one / "002.jpg", one / "002.png"]):
        expected = (
            f"'{masks / '002.png'}': this mask is of two photos, '{given[0]}' and '{given[1]}', expected one"
        )
        with pytest.raises(ValueError, match=re.escape(expected)):
            pair_masks(given, masks)
    touch(masks / "two" / "002.png")
    assert pair_masks(photos, masks) == [masks / "002.png", masks / "two" / "002.png"]
    touch(masks / "one" / "002.gif", masks / "002.jpg.png", masks / "002.png.png")
    assert pair_masks(photos, masks) == [masks / "one" / "002.gif", masks / "two" / "002.png"]
    (masks / "one" / "002.gif").unlink()
    assert pair_masks([one / "002.jpg", one / "002.png"], masks) == [
        masks / "002.jpg.png",
        masks / "002.png.png",
    ]


def test_two_masks_of_one_photo(tmp_path: Path) -> None:
    touch(tmp_path / "photos" / "a.jpg", tmp_path / "masks" / "a.gif", tmp_path / "masks" / "a.tif")
    with pytest.raises(ValueError, match=r"a.jpg': its masks are two, '.*a.gif' and '.*a.tif', expected one"):
        pair_masks([tmp_path / "photos" / "a.jpg"], tmp_path / "masks")
    with pytest.raises(ValueError, match="folder is missing, expected one with masks"):
        pair_masks([tmp_path / "photos" / "a.jpg"], tmp_path / "none")


def test_photos_and_masks_of_many_kinds(photos: Photos, folders: tuple[Path, Path], tmp_path: Path) -> None:
    """The same counterfactuals from 16 bits, transparency, palettes, turned photos and other formats."""
    assert run(folders[0], "--masks", folders[1], "-o", tmp_path / "plain", "--size", 64) == 0
    pictures, masks = tmp_path / "others", tmp_path / "their masks"
    pictures.mkdir()
    masks.mkdir()
    exif = Image.Exif()
    exif[274] = 6
    image = photos.images
    Image.fromarray(image[0]).save(pictures / "0.TIFF", compression="tiff_lzw")
    Image.fromarray(np.dstack([image[1], np.full(image[1].shape[:2], 255, np.uint8)])).save(
        pictures / "1.png"
    )
    Image.fromarray(np.ascontiguousarray(image[2].swapaxes(0, 1)[::-1])).save(pictures / "2.png", exif=exif)
    Image.fromarray(image[3]).save(pictures / "3.webp", lossless=True, exact=True)
    Image.fromarray(image[4]).save(pictures / "4.bmp")
    mask = [grey(each) for each in photos.masks]
    Image.fromarray(mask[0].astype(np.uint16) * 257).save(masks / "0.png")
    Image.fromarray(mask[1].astype(np.float32) / 255).save(masks / "1.tif")
    Image.fromarray(mask[2] > 0).save(masks / "2.PNG")
    Image.fromarray(mask[3]).convert("P").save(masks / "3.gif")
    Image.fromarray(np.dstack([mask[4] * 0 + 255, mask[4]])).save(
        masks / "4.png"
    )  # white, transparent where 0
    assert run(pictures, "--masks", masks, "-o", tmp_path / "other", "--size", 64) == 0
    for k in range(5):
        one, two = (tmp_path / folder / f"{k:06d}.png" for folder in ("plain", "other"))
        assert one.read_bytes() == two.read_bytes()


def spoil(pictures: Path, masks: Path) -> dict[str, str]:
    """Adds photos that cannot be used: their names and a part of what is said of each."""
    good = (pictures / "0.png").read_bytes()
    exif = Image.Exif()
    exif[274] = 6
    (pictures / "._1.jpg").write_bytes(b"\0\x05\x16\x07\0\x02\0\0Mac OS X        ")
    (pictures / "empty.jpg").write_bytes(b"")
    (pictures / "short.png").write_bytes(good[: len(good) // 2])
    (pictures / "text.png").write_bytes(b"hello")
    (pictures / "eps.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n")
    (pictures / "nomask.png").write_bytes(good)
    (pictures / "badmask.png").write_bytes(good)
    (pictures / "square.png").write_bytes(good)
    (pictures / "black.png").write_bytes(good)
    with Image.open(pictures / "0.png") as picture:
        picture.save(pictures / "turned.png", exif=exif)
    (masks / "badmask.png").write_bytes(b"")
    Image.new("L", (72, 72), 255).save(masks / "square.png")
    Image.new("L", (96, 72)).save(masks / "black.png")
    with Image.open(masks / "0.png") as picture:
        picture.save(masks / "turned.png")
    os.mkfifo(pictures / "fifo.png")
    return {
        "._1.jpg": "file is unreadable (cannot identify image file: it is macOS's notes on another file)",
        "empty.jpg": "file is empty, expected a picture.",
        "short.png": "file is unreadable (",
        "text.png": "file is unreadable (cannot identify image file), expected a picture.",
        "eps.jpg": "it is PostScript",
        "nomask.png": f"mask '{masks / 'nomask.png'}': file is missing, expected a picture.",
        "badmask.png": f"mask '{masks / 'badmask.png'}': file is empty, expected a picture.",
        "square.png": "width x height is 72 x 72, expected the photo's 96 x 72, or the same proportions. Make",
        "black.png": "no object in it",
        "turned.png": "width x height is 96 x 72, expected the photo's 72 x 96, or the same proportions. EXIF turns",
        "fifo.png": "file cannot be opened (not a regular file)",
    }


def test_bad_photos_are_named_and_left_out(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures, masks = folders
    assert run(pictures, "--masks", masks, "-o", tmp_path / "good", "--size", 64) == 0
    reasons = spoil(pictures, masks)
    capsys.readouterr()
    assert run(pictures, "--masks", masks, "-o", tmp_path / "out", "--size", 64) == 0
    told = capsys.readouterr().err
    lines = [line for line in told.splitlines() if line.startswith("left out ")]
    for name, reason in reasons.items():
        assert [
            line for line in lines if line.startswith(f"left out {pictures / name}: ") and reason in line
        ], told
    assert len(lines) == len(reasons)
    assert f"Left out {len(reasons)} of {5 + len(reasons)} photos." in told
    for path in (tmp_path / "good").glob("*.png"):
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()
    # Strictly: each of them alone ends the run.
    for name, reason in reasons.items():
        files = [pictures / f"{k}.png" for k in range(5)]
        assert run(*files, pictures / name, "--masks", masks, "--strict", "-o", tmp_path / "x") == 1
        told = capsys.readouterr().err
        assert f"cgnrt real: read '{pictures / name}': " in told
        assert reason in told
        assert not (tmp_path / "x").exists()


def test_bad_photos_beside_a_network(
    tmp_path: Path, golden_saliency_plan: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    for k in range(24):
        noise = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)
        Image.fromarray(noise).resize((64, 64), Image.Resampling.NEAREST).save(tmp_path / f"{k:02d}.png")
    (tmp_path / "empty.jpg").write_bytes(b"")
    squares = []
    for path in sorted(tmp_path.glob("*.png")):
        with Image.open(path) as picture:
            squares.append(np.asarray(picture))
    good = real.usable(real.Saliency(golden_saliency_plan, threads=1)(np.stack(squares)))
    assert good.sum() > 1
    status = run(
        tmp_path, "--saliency", golden_saliency_plan, "-o", tmp_path / "x.png", "--size", 64, "--threads", 1
    )
    assert status == 0
    assert f"Left out {25 - good.sum()} of 25 photos." in capsys.readouterr().err


@pytest.mark.parametrize("orientation", [2, 3, 4, 6])
def test_a_mask_whose_frame_cannot_be_told(
    orientation: int, folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A photo that EXIF mirrors, or a square one that it turns: the mask's proportions say nothing."""
    pictures, masks = folders
    exif = Image.Exif()
    exif[274] = orientation
    box = (0, 0, 72, 72) if orientation == 6 else (0, 0, 96, 72)
    for path in (pictures / "0.png", masks / "0.png"):
        with Image.open(path) as picture:
            picture.crop(box).save(path, **({"exif": exif} if path.parent == pictures else {}))
    assert run(pictures, "--masks", masks, "-o", tmp_path / "out", "--size", 64) == 0
    told = capsys.readouterr().err
    assert told.count("EXIF turns it; its mask must be of the photo as shown") == 1
    assert f"note {pictures / '0.png'}: " in told


def test_masks_of_other_sizes_and_the_same_proportions(folders: tuple[Path, Path], tmp_path: Path) -> None:
    pictures, masks = folders
    for k, size in enumerate([(96, 72), (48, 36), (32, 24), (200, 150), (51, 38)]):
        with Image.open(masks / f"{k}.png") as mask:
            mask.resize(size).save(masks / f"{k}.png")
    assert run(pictures, "--masks", masks, "-o", tmp_path / "out", "--strict", "--size", 64) == 0
