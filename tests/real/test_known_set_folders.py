"""Folders that are not as ImageNet-9 or Cue Conflict have them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cgnrt import real
from cgnrt.real.known_sets.folders import find_cue_conflict, find_in9

from .conftest import paint


def test_in9_in_order(in9_folder: Path) -> None:
    paint(in9_folder / "original/val/.hidden/x.JPEG", 0, 0)
    (in9_folder / "original/val/00_dog/Thumbs.db").write_bytes(b"x")
    (in9_folder / "original/val/00_dog/.n.JPEG").write_bytes(b"x")
    found = find_in9(in9_folder, None)
    assert list(found) == ["original", "mixed_same", "mixed_rand", "mixed_next", "only_fg"]
    files = found["original"].files
    assert len(files) == 36
    assert [file.parent.name for file in files[:5]] == ["00_dog"] * 4 + ["01_bird"]
    assert found["original"].labels.tolist() == [group for group in range(9) for _ in range(4)]


def test_blanks_may_have_been_replaced(in9_folder: Path) -> None:
    place = in9_folder / "original/val"
    for name in ("02_wheeled vehicle", "06_musical instrument"):
        (place / name).rename(place / name.replace(" ", "_"))
    assert find_in9(in9_folder, ["original"])["original"].labels.tolist()[8:12] == [2] * 4


@pytest.mark.parametrize(
    ("change", "sets", "message"),
    [
        (
            lambda f: shutil.rmtree(f),
            None,
            r"read '.*bg_challenge': folder is missing, expected one with the sets",
        ),
        (
            lambda f: shutil.rmtree(f / "mixed_rand"),
            ["mixed_same", "mixed_rand"],
            r"folder 'mixed_rand' is missing, expected ImageNet-9's sets",
        ),
        (lambda f: shutil.rmtree(f / "original/val"), None, r"read '.*original': folder 'val' is missing"),
        (
            lambda f: shutil.rmtree(f / "original/val/03_reptile"),
            None,
            r"read '.*original.val': group '03_reptile' is missing, expected all 9",
        ),
        (
            lambda f: (f / "original/val/03_reptile").rename(f / "original/val/03_reptil"),
            None,
            r"group is '03_reptil', expected '00_dog', .* or '08_fish'. Did you mean '03_reptile'\?",
        ),
        (
            lambda f: paint(f / "original/val/02_wheeled_vehicle/x.JPEG", 0, 0),
            None,
            r"group 2 is there twice, '02_wheeled vehicle' and '02_wheeled_vehicle', expected once",
        ),
        (
            lambda f: [file.unlink() for file in (f / "original/val/08_fish").iterdir()],
            None,
            r"read '.*08_fish': pictures are missing, expected at least 1",
        ),
        (lambda f: None, ["mixed_random"], r"set is 'mixed_random', expected .* Did you mean 'mixed_rand'\?"),
        (lambda f: None, [], r"sets are empty, expected at least one name"),
        (lambda f: None, "mixed_rand", r"sets is 'mixed_rand', expected a list of names"),
    ],
)
def test_other_folders_than_imagenet_9(
    in9_folder: Path, change: Callable[[Path], Any], sets: Any, message: str
) -> None:
    change(in9_folder)
    with pytest.raises((TypeError, ValueError), match=message):
        find_in9(in9_folder, sets)


def test_the_folder_to_give_instead(in9_folder: Path, cue_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Give '.*bg_challenge'\."):
        real.in9(len, in9_folder.parent)
    with pytest.raises(ValueError, match=r"'original', .* or 'no_fg' is missing.* Give '.*bg_challenge'\."):
        real.in9(len, in9_folder / "mixed_rand")
    with pytest.raises(ValueError, match=r"Give '.*style-transfer-preprocessed-512'\."):
        real.cue_conflict(len, cue_folder.parent)
    (tmp_path / "texture-vs-shape").mkdir()
    cue_folder.parent.joinpath("stimuli").mkdir()
    cue_folder.rename(tmp_path / "stimuli" / cue_folder.name)
    (tmp_path / "stimuli").rename(tmp_path / "texture-vs-shape" / "stimuli")
    with pytest.raises(ValueError, match=r"Give '.*stimuli.style-transfer-preprocessed-512'\."):
        real.cue_conflict(len, tmp_path / "texture-vs-shape")
    with pytest.raises(ValueError, match=r"Give '.*style-transfer-preprocessed-512'\."):
        real.cue_conflict(len, tmp_path / "texture-vs-shape/stimuli" / cue_folder.name / "bear")


def test_cues_of_files(cue_folder: Path) -> None:
    found = find_cue_conflict(cue_folder)
    assert len(found) == 64
    assert found.files[0].name == "airplane10-dog3.png"
    assert (found.labels[0], found.textures[0]) == (0, 10)
    assert len(found.conflicting()) == 48


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: shutil.rmtree(f), r"folder is missing, expected one with the categories of Cue Conflict"),
        (
            lambda f: [shutil.rmtree(f / name) for name in ("oven", "truck")],
            r"folder 'oven' and 'truck' is missing, expected one for each of Cue Conflict's 16 categories",
        ),
        (
            lambda f: paint(f / "trucks/truck1-bear1.png", 0, 0),
            r"category is 'trucks', .* Did you mean 'truck'\?",
        ),
        (
            lambda f: paint(f / "truck/truck1.png", 0, 0),
            r"name is 'truck1.png', expected one as 'airplane1-bicycle2",
        ),
        (
            lambda f: paint(f / "truck/truck1-ovens2.png", 0, 0),
            r"category is 'ovens', .* Did you mean 'oven'\?",
        ),
        (
            lambda f: paint(f / "truck/car1-oven2.png", 0, 0),
            r"shape is 'car', expected 'truck', which its folder",
        ),
        (
            lambda f: [file.unlink() for file in (f / "truck").iterdir()],
            r"read '.*truck': pictures are missing, expected at least 1",
        ),
    ],
)
def test_other_folders_than_cue_conflict(
    cue_folder: Path, change: Callable[[Path], Any], message: str
) -> None:
    change(cue_folder)
    with pytest.raises(ValueError, match=message):
        find_cue_conflict(cue_folder)


def test_no_conflict(cue_folder: Path) -> None:
    for file in cue_folder.rglob("*.png"):
        shape, _, texture = file.stem.partition("-")
        if shape.rstrip("0123456789") != texture.rstrip("0123456789"):
            file.unlink()
    with pytest.raises(ValueError, match=r"pictures whose texture is of another category .* are missing"):
        real.cue_conflict(len, cue_folder)
