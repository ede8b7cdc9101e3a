"""`cgnrt audit --photos`: a folder of photos, a classifier by its name."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cgnrt import real
from cgnrt.cli import main

SIDE = 48
SOURCE = """
import numpy as np
import torch

def by_ground(images):
    # cats on dark grounds, dogs on bright ones
    assert images.shape[1:] == (3, 48, 48) and images.dtype == np.float32
    return (images[:, 1, 0, 0] > 0.5).astype(int)

def wide(images):
    logits = np.zeros((len(images), 1000))
    logits[np.arange(len(images)), np.where(by_ground(images), 207, 281)] = 1
    return logits

def empty(images):
    return np.full((len(images), 2), np.nan)

class Ground(torch.nn.Module):
    def forward(self, images):
        bright = images[:, 1, 0, 0]
        return torch.stack([0.5 - bright, bright - 0.5], 1)

model = Ground()
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: photos of cats and dogs, their masks, and a module of classifiers."""
    y, x = np.mgrid[:SIDE, :SIDE]
    for k in range(8):
        name = ("cat", "dog")[k % 2]
        inside = (y - 20 - k) ** 2 + (x - 22) ** 2 < 100
        photo = np.full((SIDE, SIDE, 3), (40, 200)[k % 2], np.uint8)
        photo[inside] = (90, 10 * k, 160)
        for folder, picture in (("photos", photo), ("masks", (inside * 255).astype(np.uint8))):
            path = tmp_path / folder / name / f"{k}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path)
    (tmp_path / "own_photo_classifiers.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "own_photo_classifiers", raising=False)
    return tmp_path


WORDS = ["--photos", "photos", "--masks", "masks", "--size", "48", "--threads", "1"]


def audit(name: str, *more: str, words: list[str] = WORDS) -> int:
    return main(["audit", *words, f"own_photo_classifiers:{name}", *more])


def read(folder: Path) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], list[int]]:
    files = [
        folder / name / f"{k}.png" for name, ks in (("cat", (0, 2, 4, 6)), ("dog", (1, 3, 5, 7))) for k in ks
    ]
    pictures = []
    for file in files:
        with Image.open(file) as image:
            pictures.append(np.asarray(image))
    masks = []
    for file in files:
        with Image.open(folder.parent / "masks" / file.parent.name / file.name) as image:
            masks.append(np.asarray(image))
    return np.stack(pictures), np.stack(masks), [0] * 4 + [1] * 4


def test_the_command(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit("by_ground", "-o", "audit.json", "--plot", "audit.png", "--sheet", "sheet.png") == 0
    told = capsys.readouterr()
    images, masks, labels = read(here / "photos")
    expected = real.audit(
        lambda images: (images[:, 1, 0, 0] > 0.5).astype(int),
        images,
        masks,
        labels,
        classes=["cat", "dog"],
        names=[
            f"photos/{name}/{k}.png" for name, first in (("cat", 0), ("dog", 1)) for k in range(first, 8, 2)
        ],
    )
    assert told.out == f"{expected}\n"
    assert expected.keeps["other"].value == 0
    assert expected.background_alone.value == 1
    assert real.PhotoAudit.from_json((here / "audit.json").read_text()) == expected
    for name in ("audit.png", "sheet.png"):
        with Image.open(here / name) as picture:
            assert picture.format == "PNG"
            assert picture.size > (400, 300)
    assert audit("by_ground", "--sheet", "sheet.png") == 1
    assert "the file exists" in capsys.readouterr().err


def test_the_classifier_may_come_first(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "own_photo_classifiers:model", "--no-places", "-n", "4", *WORDS]) == 0
    told = capsys.readouterr().out
    assert told.startswith("8 photos of 2 classes, 4 images of each kind, seed 0, 95 % intervals\n")
    assert "right by place" not in told
    assert (
        main(["audit", "--photos=photos", "--masks", "masks", "--size", "48", "own_photo_classifiers:model"])
        == 0
    )


@pytest.mark.parametrize(
    "labels", [{"cat": 281, "dog": 207, "fox": 277}, [*["x"] * 207, "dog", *["x"] * 73, "cat"]]
)
def test_numbers_of_another_classifier(here: Path, capsys: pytest.CaptureFixture[str], labels: Any) -> None:
    Path("labels.json").write_text(json.dumps(labels))
    assert audit("wide", "--no-places", "--labels", "labels.json", "-o", "audit.json") == 0
    found = real.PhotoAudit.from_json(Path("audit.json").read_text())
    assert found.accuracy["photo"].value == 1
    assert list(found.by_class) == ["dog", "cat"]
    assert {example.answers["photo"] for example in found.examples} == {"cat", "dog"}


def test_a_sheet_of_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("labels.json").write_text('{"cat": 1, "dog": 0}')
    assert audit("by_ground", "--no-places", "--labels", "labels.json", "--sheet", "sheet.png") == 0
    assert "no sheet: no photo is right and lost when something else changes" in capsys.readouterr().err
    assert not Path("sheet.png").exists()


def test_photos_that_cannot_be_used_are_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(np.zeros((SIDE, SIDE), np.uint8)).save(here / "masks" / "cat" / "2.png")
    Image.fromarray(np.full((SIDE, SIDE), 255, np.uint8)).save(here / "masks" / "dog" / "5.png")
    assert audit("by_ground", "--no-places") == 0
    told = capsys.readouterr()
    assert "left out photos/cat/2.png: no object in it" in told.err
    assert "left out photos/dog/5.png: its object covers 100.00% of the picture" in told.err
    assert told.out.startswith("6 photos of 2 classes")
    assert audit("by_ground", "--strict") == 1
    assert "read 'photos/cat/2.png': no object in it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*WORDS, "x.plan", "own_photo_classifiers:by_ground"], "plan is 'x.plan' beside --photos"),
        (
            ["--photos", "photos", "own_photo_classifiers:by_ground"],
            "masks of the photos are missing. Give --masks",
        ),
        (
            [*WORDS, "own_photo_classifiers:by_ground", "--truncation", "0.5"],
            "--truncation is not supported with --ph",
        ),
        (
            [*WORDS, "own_photo_classifiers:by_ground", "--device", "cuda"],
            "--device is not supported with --photos",
        ),
        (
            ["x.plan", "own_photo_classifiers:by_ground", "--masks", "masks"],
            "--masks is not supported with a plan",
        ),
        (
            ["x.plan", "own_photo_classifiers:by_ground", "--sheet", "a.png"],
            "--sheet is not supported with a plan",
        ),
        (
            [*WORDS, "own_photo_classifiers:by_ground", "--sheet", "a.jpg"],
            "expected a name that ends in .png",
        ),
        ([*WORDS, "own_photo_classifiers:by_ground", "--size", "8"], "size is 8, expected at least 32"),
        (
            [*WORDS, "own_photo_classifiers:empty"],
            "logits of the classifier for photo 'photos/cat/0.png' (the photo itself) are NaN",
        ),
        (
            [*WORDS, "own_photo_classifiers:wide"],
            "number of logits of the classifier is 1000, expected 2, the number of classes",
        ),
        (
            [*WORDS, "own_photo_classifiers:wide", "--labels", "labels.json"],
            "class 'dog' of photo 'photos/dog/1.png' is missing, expected a number for each sub-folder of 'photos'. "
            "Did you mean 'dogs'?",
        ),
        ([*WORDS, "own_photo_classifiers:wide", "--labels", "no.json"], "audit 'no.json': file is missing"),
        (
            [*WORDS, "own_photo_classifiers:wide", "--labels", "bad.json"],
            "audit 'bad.json': content is not JSON",
        ),
        (
            [*WORDS, "own_photo_classifiers:wide", "--labels", "odd.json"],
            "is not an object from names to numbers",
        ),
        (
            ["--photos", "photos/cat", "--masks", "masks", "--size", "48", "own_photo_classifiers:by_ground"],
            "photo 'photos/cat/0.png' has no donor among 4 photos. Add a photo of another label",
        ),
    ],
)
def test_what_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    Path("labels.json").write_text('{"cat": 281, "dogs": 207}')
    Path("bad.json").write_text("{")
    Path("odd.json").write_text('{"cat": -1, "dog": 2}')
    assert main(["audit", *words]) == 1
    told = capsys.readouterr()
    assert message in told.err
    assert told.out == ""


def test_a_plan_is_needed_without_photos(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["audit", "own_photo_classifiers:by_ground"])
    assert stop.value.code == 2
    assert "required: MODULE:FUNCTION" in capsys.readouterr().err
