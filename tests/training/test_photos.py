"""Folders of photos, their masks, and packs: what is found, what is left out, what is refused."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from cgnrt.errors import CgnrtError
from cgnrt.real import Saliency
from cgnrt_export import export_saliency
from cgnrt_training import cli
from cgnrt_training.photos import writing
from cgnrt_training.photos.folder import scan_photos
from cgnrt_training.photos.masks import FoundMasks, MaskFolder
from cgnrt_training.photos.pack import SMALLEST_SHARE, open_photos, pack_photos

CLASSES = ("cat", "dog")
SIZE = 16


def picture(seed: int, width: int = 24, height: int = 20) -> np.ndarray[Any, Any]:
    pixels: np.ndarray[Any, Any] = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return pixels


def write_folder(folder: Path, each: int = 3) -> Path:
    """Photos of two classes."""
    for k, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(each):
            Image.fromarray(picture(10 * k + number)).save(folder / name / f"{number}.png")
    return folder


def write_masks(folder: Path, photos: Path) -> Path:
    """Masks whose left part, wider from photo to photo, is the object."""
    for at, path in enumerate(sorted(photos.rglob("*.png"))):
        target = folder / path.relative_to(photos)
        target.parent.mkdir(parents=True, exist_ok=True)
        mask = np.zeros((20, 24), np.uint8)
        mask[:, : 6 + 2 * at] = 255
        Image.fromarray(mask).save(target)
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "images")


class Brightness(nn.Module):
    """Finds light pixels."""

    def forward(self, image: Tensor) -> Tensor:
        return image.mean(1, keepdim=True)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan of 32 px that finds light pixels."""
    path = tmp_path_factory.mktemp("plan") / "light.plan"
    scale: dict[str, Any] = {"mean": (0, 0, 0), "std": (1, 1, 1), "divide_by": "range", "stretch": False}
    export_saliency(path, Brightness(), family="light", resolution=(32, 32), precision="fp32", **scale)
    return path


def pack(images: Path, output: Path, *more: object) -> int:
    words = ["photos", "--images", images, "--output", output, "--size", SIZE, "--threads", 1, *more]
    return cli.main([str(word) for word in words])


def test_photos_are_packed_by_class_and_name(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "pack"
    assert pack(images, output) == 0
    assert capsys.readouterr().out == f"{output}\n"
    photos = open_photos(output)
    assert (len(photos), photos.classes, photos.size, photos.masks) == (6, CLASSES, SIZE, None)
    assert photos.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert isinstance(photos.images, np.memmap)
    assert not photos.images.flags.writeable
    square = Image.fromarray(picture(10)).resize((SIZE, SIZE), Image.Resampling.LANCZOS, box=(2, 0, 22, 20))
    np.testing.assert_array_equal(photos.images[3].transpose(1, 2, 0), np.asarray(square))
    assert json.loads((output / "photos.json").read_text())["splits"]["train"]["names"][0] == "cat/0.png"
    assert sorted(path.name for path in output.iterdir()) == [
        "photos.json",
        "train.images.npy",
        "train.labels.npy",
    ]


def test_train_and_val(tmp_path: Path) -> None:
    images = tmp_path / "images"
    write_folder(images / "train", 2)
    write_folder(images / "val", 1)
    masks = write_masks(tmp_path / "masks", images)
    output = tmp_path / "pack"
    assert pack(images, output, "--masks", masks) == 0
    train, val = open_photos(output), open_photos(output, "val")
    assert (len(train), len(val)) == (4, 2)
    assert train.masks is not None
    assert val.masks is not None
    assert val.masks.shape == (2, SIZE, SIZE)
    with pytest.raises(ValueError, match=r"split is 'test', expected one of train, val"):
        open_photos(output, "test")
    assert pack(images / "train", output, "--force") == 0  # nothing of the old pack stays
    names = ["photos.json", "train.images.npy", "train.labels.npy"]
    assert sorted(path.name for path in output.iterdir()) == names


def test_formats_depths_and_deeper_folders(images: Path, tmp_path: Path) -> None:
    deeper = images / "cat" / "more" / "here"
    deeper.mkdir(parents=True)
    Image.fromarray(picture(1)).convert("RGBA").save(deeper / "A.PNG")
    Image.fromarray(picture(2)).save(deeper / "b.webp", lossless=True)
    Image.fromarray(picture(3)[..., 0]).save(deeper / "c.tiff")
    Image.fromarray(picture(3)).save(deeper / "d.JPG")
    (deeper / ".hidden.png").write_bytes(b"x")
    (deeper / "notes.txt").write_text("x")
    log = io.StringIO()
    pack_photos(images, tmp_path / "pack", SIZE, log=log)
    assert "1 files are not called like pictures" not in log.getvalue()
    assert "2 files are not called like pictures, and are not read" in log.getvalue()
    assert np.bincount(open_photos(tmp_path / "pack").labels).tolist() == [7, 3]


def test_broken_and_small_photos_are_named_and_left_out(images: Path, tmp_path: Path) -> None:
    whole = (images / "cat" / "0.png").read_bytes()
    (images / "cat" / "1a.png").write_bytes(whole[:-60])
    (images / "cat" / "1b.png").write_bytes(b"")
    (images / "cat" / "1c.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n")
    Image.fromarray(picture(5, 40, 15)).save(images / "dog" / "9.png")
    log = io.StringIO()
    pack_photos(images, tmp_path / "pack", SIZE, log=log)
    for name, reason in (
        ("1a.png", "file is unreadable"),
        ("1b.png", "file is empty"),
        ("1c.jpg", "it is PostScript"),
        ("9.png", "photo has 40 x 15 pixels, expected at least 16 each way"),
    ):
        (line,) = [line for line in log.getvalue().splitlines() if name in line]
        assert line.startswith("left out ")
        assert reason in line
    assert "4 were left out" in log.getvalue()
    assert len(open_photos(tmp_path / "pack")) == 6
    left_out = json.loads((tmp_path / "pack" / "photos.json").read_text())["splits"]["train"]["left_out"]
    assert [name for name, _ in left_out] == ["cat/1a.png", "cat/1b.png", "cat/1c.jpg", "dog/9.png"]


def test_folders_that_are_refused(images: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="folder is missing, expected one with photos"):
        scan_photos(tmp_path / "none")
    with pytest.raises(ValueError, match="folders of classes are missing, expected one sub-folder"):
        scan_photos(images / "cat")
    (images / "bird").mkdir()
    Image.fromarray(picture(1)).save(images / "bird" / "1.png")
    (images / "fish").mkdir()
    with pytest.raises(ValueError, match=r"photos of class 'bird' has 1, 'fish' has 0, expected at least 2"):
        scan_photos(images)
    both = tmp_path / "both"
    write_folder(both / "train")
    write_folder(both / "val")
    (both / "val" / "dog").rename(both / "val" / "wolf")
    with pytest.raises(ValueError, match=r"others than those of train \('dog' missing; 'wolf' besides\)"):
        scan_photos(both)


def test_names_that_a_plan_could_not_have(images: Path) -> None:
    (images / "dog").rename(images / "dog\n")
    with pytest.raises(ValueError, match=r"name of a class is 'dog\\n', expected at most 200 characters"):
        scan_photos(images)
    (images / "dog\n").rename(images / "c\u0430t")
    with pytest.raises(ValueError, match=r"names of classes are 'cat' and 'c\\u0430t', which look the same"):
        scan_photos(images)
    (images / "c\u0430t").rename(images / "cafe\u0301")  # as macOS writes it
    assert scan_photos(images).classes == ("caf\u00e9", "cat")


def test_a_class_of_which_one_photo_can_be_read(images: Path, tmp_path: Path) -> None:
    for number in (0, 2):
        (images / "dog" / f"{number}.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"number of photos of class 'dog' has 1, expected at least 2"):
        pack_photos(images, tmp_path / "pack", SIZE, log=io.StringIO())
    assert not (tmp_path / "pack" / "photos.json").exists()


def test_masks_of_a_folder(images: Path, tmp_path: Path) -> None:
    masks = write_masks(tmp_path / "masks", images)
    (masks / "cat" / "1.png").rename(masks / "cat" / "1.png.png")
    pack_photos(images, tmp_path / "pack", SIZE, MaskFolder(masks), log=io.StringIO())
    photos = open_photos(tmp_path / "pack")
    assert photos.masks is not None
    assert (photos.masks[:, :, -1] == 0).all()
    widths = (photos.masks.astype(float) / 255).sum(2).mean(1)
    np.testing.assert_allclose(widths, [(4 + 2 * k) * SIZE / 20 for k in range(6)], atol=0.5)
    assert photos.with_object().tolist() == list(range(6))


def test_masks_that_are_refused(images: Path, tmp_path: Path) -> None:
    masks = write_masks(tmp_path / "masks", images)
    output = tmp_path / "pack"

    def refused(message: str, folder: Path = masks) -> None:
        with pytest.raises(ValueError, match=message):
            pack_photos(images, output, SIZE, MaskFolder(folder), force=True, log=io.StringIO())

    refused("masks .*: folder is missing", tmp_path / "none")
    refused("folder is that of the photos, expected another one", images)
    (masks / "cat" / "0.png").rename(masks / "cat" / "7.png")
    refused(r"masks of 1 photos are missing, expected one for each photo: .*cat/0\.png")
    Image.fromarray(np.zeros((20, 24), np.uint8)).save(masks / "cat" / "0.png")
    refused(r"photos of 1 masks are missing, expected one for each mask: .*cat/7\.png")
    (masks / "cat" / "7.png").rename(masks / "cat" / "0.bmp")
    refused(r"masks of photo 'train/cat/0\.png' are .*0\.bmp, .*0\.png, expected one")
    (masks / "cat" / "0.bmp").unlink()
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(masks / "cat" / "0.png")
    refused(r"photo '.*cat/0\.png': mask '.*': width x height is 20 x 20, expected the photo's 24 x 20")
    (masks / "cat" / "0.png").write_bytes(b"no picture")
    refused(r"photo '.*cat/0\.png': mask '.*': file is unreadable")
    assert not (output / "photos.json").exists()


def test_masks_that_a_network_finds(images: Path, plan: Path, tmp_path: Path) -> None:
    for k, path in enumerate(sorted(images.rglob("*.png"))):
        pixels = np.full((40, 40, 3), 20, np.uint8)
        pixels[:, : 10 + 2 * k] = 220
        Image.fromarray(pixels).save(path)
    output = tmp_path / "pack"
    assert pack(images, output, "--saliency", plan) == 0
    photos = open_photos(output)
    assert photos.masks is not None
    shares = photos.masks.mean((1, 2)) / 255
    np.testing.assert_allclose(shares, [(10 + 2 * k) / 40 for k in range(6)], atol=0.03)


def test_no_object_anywhere(images: Path, tmp_path: Path) -> None:
    masks = write_masks(tmp_path / "masks", images)
    for path in masks.rglob("*.png"):
        Image.fromarray(np.zeros((20, 24), np.uint8)).save(path)
    for _ in range(2):  # the pack is there, and the answer stays the same
        with pytest.raises(
            ValueError, match=r"the largest object covers 0\.00% of its photo, expected at least 1%"
        ):
            pack_photos(images, tmp_path / "pack", SIZE, MaskFolder(masks), log=io.StringIO())
    one = np.zeros((20, 24), np.uint8)
    one[5:9, 8:12] = 255
    Image.fromarray(one).save(masks / "dog" / "1.png")
    pack_photos(images, tmp_path / "pack", SIZE, MaskFolder(masks), force=True, log=io.StringIO())
    photos = open_photos(tmp_path / "pack")
    assert photos.with_object().tolist() == [4]
    assert len(photos) == 6
    assert SMALLEST_SHARE < 16 / 400


def test_a_pack_without_masks_has_no_objects(images: Path, tmp_path: Path) -> None:
    pack_photos(images, tmp_path / "pack", SIZE, log=io.StringIO())
    with pytest.raises(ValueError, match="masks are missing, expected a pack with masks"):
        open_photos(tmp_path / "pack").with_object()


def test_the_same_command_again_does_nothing(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "pack"
    assert pack(images, output) == 0
    before = {path.name: path.stat().st_mtime_ns for path in output.iterdir()}
    assert pack(images, output) == 0
    assert {path.name: path.stat().st_mtime_ns for path in output.iterdir()} == before
    first = open_photos(output).fingerprint
    Image.fromarray(picture(99)).save(images / "cat" / "3.png")
    assert pack(images, output) == 1
    assert "fingerprint of the pack differ from those asked for" in capsys.readouterr().err
    assert pack(images, output, "--force") == 0
    assert open_photos(output).fingerprint != first
    assert len(open_photos(output)) == 7
    assert pack(images, output, "--size", 12) == 1
    assert "size of the pack differ from those asked for" in capsys.readouterr().err


class Stops:
    """Masks that end after some photos."""

    def __init__(self, masks: MaskFolder, after: int) -> None:
        self.masks_, self.left = masks, after
        self.about, self.prepare, self.masks = masks.about, masks.prepare, masks.masks

    def look(self, entry: Any, picture: Any, size: int) -> np.ndarray[Any, Any]:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return self.masks_.look(entry, picture, size)


def test_a_stopped_pack_goes_on(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "_BLOCK", 2)
    masks = write_masks(tmp_path / "masks", images)
    (images / "cat" / "1.png").write_bytes(b"no picture")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    pack_photos(images, whole, SIZE, MaskFolder(masks), log=io.StringIO())
    for after in (3, 1):
        with pytest.raises(KeyboardInterrupt):
            pack_photos(images, parts, SIZE, Stops(MaskFolder(masks), after), log=io.StringIO())
        assert not (parts / "photos.json").exists()
        with (parts / ".unfinished" / "train.images").open("ab") as file:
            file.write(b"half a row")  # as a kill leaves it
        with (parts / ".unfinished" / "journal.jsonl").open("ab") as file:
            file.write(b'{"split": "tr')
    with pytest.raises(ValueError, match="the folder has an unfinished pack of other photos, size or masks"):
        pack_photos(images, parts, SIZE + 1, MaskFolder(masks), log=io.StringIO())
    log = io.StringIO()
    pack_photos(images, parts, SIZE, Stops(MaskFolder(masks), 2), log=log)
    assert "goes on after 4 photos" in log.getvalue()
    assert same(whole, parts)


def same(one: Path, other: Path) -> bool:
    names = sorted(path.name for path in one.iterdir())
    assert sorted(path.name for path in other.iterdir()) == names
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


def test_an_unfinished_pack_that_is_damaged(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "_BLOCK", 2)
    masks = write_masks(tmp_path / "masks", images)
    output = tmp_path / "pack"
    with pytest.raises(KeyboardInterrupt):
        pack_photos(images, output, SIZE, Stops(MaskFolder(masks), 3), log=io.StringIO())
    rows, journal = (output / ".unfinished" / name for name in ("train.images", "journal.jsonl"))
    os.truncate(rows, 100)
    with pytest.raises(CgnrtError, match=r"train\.images': content is cut short\. Remove the folder"):
        pack_photos(images, output, SIZE, MaskFolder(masks), log=io.StringIO())
    journal.write_text("{]\n")
    with pytest.raises(CgnrtError, match=r"journal\.jsonl': content is damaged .* Remove the folder"):
        pack_photos(images, output, SIZE, MaskFolder(masks), log=io.StringIO())
    pack_photos(images, tmp_path / "another", SIZE, MaskFolder(masks), log=io.StringIO())


def test_a_full_disk_keeps_what_is_done(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(writing, "_BLOCK", 2)
    output = tmp_path / "pack"
    append, calls = writing._append, [0]

    def full(file: Any, content: bytes) -> None:
        calls[0] += 1
        if calls[0] == 3:
            file.write(content[:5])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        append(file, content)

    monkeypatch.setattr(writing, "_append", full)
    assert pack(images, output) == 1
    said = capsys.readouterr().err
    assert f"write '{output}': No space left on device, expected a writable place with room" in said
    assert pack(images, output) == 0
    assert "goes on after 2 photos" in capsys.readouterr().err
    assert pack(images, tmp_path / "whole") == 0
    assert same(output, tmp_path / "whole")


def test_packs_that_are_refused(images: Path, tmp_path: Path) -> None:
    output = tmp_path / "pack"
    with pytest.raises(CgnrtError, match=r"photos\.json is unreadable .*, expected a finished pack"):
        open_photos(output)
    pack_photos(images, output, SIZE, log=io.StringIO())
    path = output / "photos.json"
    about = json.loads(path.read_text())
    for content, message in (
        ("{", r"photos\.json': content is damaged"),
        (json.dumps([1]), "content is damaged .it is not a pack's"),
        (json.dumps(about | {"format_version": 2}), "format version is 2, expected 1. Upgrade cgnrt"),
        (json.dumps(about | {"size": "16"}), "content is damaged .entries are missing or of another type"),
        (json.dumps({k: v for k, v in about.items() if k != "splits"}), "entries are missing"),
        (
            json.dumps(about | {"size": 17}),
            r"array is uint8 \(6, 3, 16, 16\), expected uint8 \(6, 3, 17, 17\)",
        ),
        (json.dumps(about | {"masks": {}}), r"train\.masks\.npy': file is unreadable"),
    ):
        path.write_text(content)
        with pytest.raises(CgnrtError, match=message):
            open_photos(output)
    with pytest.raises(ValueError, match="size is 0, expected at least 1"):
        pack_photos(images, output, 0)


def test_the_command_needs_no_torch(images: Path, tmp_path: Path) -> None:
    program = (
        "import sys\nfrom cgnrt_training import cli\n"
        f"status = cli.main(['photos', '--images', {str(images)!r}, '--output', {str(tmp_path / 'pack')!r}, "
        "'--size', '16'])\nprint(status, 'torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "0 False"


def test_masks_of_a_plan_are_those_of_the_photo(plan: Path, tmp_path: Path) -> None:
    """Not of the small picture: a thin bright line is found, and scaled down with its weight."""
    images = write_folder(tmp_path / "images", 2)
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, 30:34] = 255
    for path in images.rglob("*.png"):
        Image.fromarray(pixels).save(path)
    source = FoundMasks(Saliency(plan, threads=1))
    pack_photos(images, tmp_path / "pack", SIZE, source, log=io.StringIO())
    masks = open_photos(tmp_path / "pack").masks
    assert masks is not None
    assert masks.sum(2).max() / 255 == pytest.approx(1.0, abs=0.1)  # 2 of 32 columns are 1 of 16
    torch.testing.assert_close(torch.tensor(masks[0]), torch.tensor(masks[3]))
