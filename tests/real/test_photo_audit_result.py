"""The result of an audit of photos: as JSON, as a table, as a plot, as a sheet."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cgnrt import CgnrtError, MissingDependencyError, real

Array = np.ndarray[Any, Any]
SIDE = 40


@pytest.fixture(scope="module")
def found() -> real.PhotoAudit:
    """Of a classifier that tells bright grounds from dark ones; every third photo has the other ground."""
    y, x = np.mgrid[:SIDE, :SIDE]
    images = np.zeros((12, SIDE, SIDE, 3), np.uint8)
    masks = np.zeros((12, SIDE, SIDE), bool)
    labels = np.arange(12) % 2
    for i, label in enumerate(labels):
        masks[i] = (y - 12 - i) ** 2 + (x - 20) ** 2 < 64
        images[i] = 220 if (label == 1) != (i % 3 == 0) else 30
        images[i][masks[i]] = (120, 20 * i, 128)
    return real.audit(
        lambda images: (images[:, 0, 0, 0] > 0.4).astype(int),
        images,
        masks,
        labels,
        classes=["night", "day"],
        names=[f"photos/{i}.jpg" for i in range(12)],
        confidence=0.9,
        examples=4,
    )


def test_json_is_the_audit(found: real.PhotoAudit) -> None:
    again = real.PhotoAudit.from_json(found.to_json())
    assert again == found
    content = json.loads(found.to_json())
    assert content["keeps"]["grey"]["value"] == found.keeps["grey"].value
    assert content["by_class"]["day"]["background_alone"]["n"] == 6
    assert content["background_gap"] == found.background_gap
    assert set(content["by_size"]) == {"0.25", "0.5", "1", "2", "4"}
    assert [example["name"] for example in content["examples"]] == [e.name for e in found.examples]
    assert "images" not in content["examples"][0]
    assert again.by_size[0.25] == found.by_size[0.25]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(format="cgnrt-audit"), "format is not 'cgnrt-photo-audit'"),
        (lambda c: c.update(format_version=2), "format version is 2, expected 1. Upgrade"),
        (lambda c: c.pop("clipped"), "content is damaged .*clipped"),
        (lambda c: c["keeps"].pop("other"), "content is damaged .*keeps is of"),
        (lambda c: c["accuracy"]["photo"].update(count=-1), "content is damaged .*a rate is"),
        (
            lambda c: c["by_position"].pop("centre"),
            "content is damaged .*by_position or by_size is not complete",
        ),
        (lambda c: c["by_size"].update(large=c["by_size"]["1"]), "content is damaged .*large"),
        (lambda c: c.update(n=None), "content is damaged .*n is None"),
        (lambda c: c["by_class"].update(day=[]), "content is damaged"),
        (lambda c: c.update(examples=[{}]), "content is damaged"),
    ],
)
def test_content_that_is_not_an_audit(
    found: real.PhotoAudit, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    content = json.loads(found.to_json())
    change(content)
    with pytest.raises(ValueError, match=f"^read audit: {message}"):
        real.PhotoAudit.from_dict(content)
    with pytest.raises(ValueError, match=r"^read audit: content is not JSON"):
        real.PhotoAudit.from_json("{")


def test_the_table(found: real.PhotoAudit) -> None:
    text = str(found)
    assert text.startswith("12 photos of 2 classes, seed 0, 90 % intervals\n")
    for name, title in (("photo", "the photo itself"), ("other", "background of another")):
        line = next(line for line in text.splitlines() if title in line)
        assert str(found.accuracy[name]) in line
        assert name == "photo" or str(found.keeps[name]) in line
    assert f"the background alone gives the label: {found.background_alone}" in text
    assert f"background gap: {100 * found.background_gap:.1f} points" in text
    assert f"  night: {found.by_class['night'].keeps['other']}" in text
    assert "right by place, %, objects at a third of their size (centre bias 0.00)" in text


def test_the_table_of_many_classes_shows_the_lowest(found: real.PhotoAudit) -> None:
    rates = found.by_class["day"]
    many = {**vars(found), "by_class": {f"class {k}": rates for k in range(12)}}
    text = str(real.PhotoAudit(**many))
    assert "same answer on a background of another class, lowest 10 of 12:" in text
    assert "class 10" not in text


def test_the_plot(found: real.PhotoAudit, tmp_path: Path) -> None:
    target = tmp_path / "audit.png"
    found.plot(target)
    with Image.open(target) as image:
        assert image.format == "PNG"
        width, height = image.size
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert width > 2 * height
    for colour in ((0x1B, 0x6C, 0xA8), (0xE0, 0x8E, 0x2B), (0x7A, 0x7A, 0x7A)):
        assert (np.abs(pixels - colour).max(axis=2) < 8).sum() > 500
    with pytest.raises(CgnrtError, match="the file exists"):
        found.plot(target)
    found.plot(target, title="mine", force=True)
    with pytest.raises(ValueError, match=r"expected a name that ends in \.png"):
        found.plot(tmp_path / "audit.pdf")
    plain = real.PhotoAudit(**{**vars(found), "by_position": {}, "by_size": {}, "clipped": {}})
    plain.plot(tmp_path / "plain.png")
    with Image.open(tmp_path / "plain.png") as image:
        assert image.size[0] < 2 * image.size[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["audit.png", "plain.png"]


def test_matplotlib_is_missing(
    found: real.PhotoAudit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "matplotlib.figure", raising=False)
    with pytest.raises(MissingDependencyError, match=r"Run: pip install 'cgnrt\[plot\]'"):
        found.plot(tmp_path / "audit.png")
    assert not list(tmp_path.iterdir())


def test_the_sheet(found: real.PhotoAudit, tmp_path: Path) -> None:
    target = tmp_path / "sheet.png"
    found.sheet(target, tile=64)
    with Image.open(target) as image:
        width, height = image.size
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert len(found.examples) == 4
    assert width > 4 * 64
    assert height > 6 * 64
    green, red = (
        (np.abs(pixels - colour).max(axis=2) < 3).sum() for colour in ((36, 120, 66), (176, 42, 42))
    )
    assert green > 1000  # the photos themselves are right
    assert red > 1000
    with pytest.raises(CgnrtError, match="the file exists"):
        found.sheet(target)
    found.sheet(target, force=True)
    with pytest.raises(ValueError, match=r"expected a name that ends in \.png"):
        found.sheet(tmp_path / "sheet.jpg")
    with pytest.raises(ValueError, match="tile is 8, expected at least 32"):
        found.sheet(tmp_path / "small.png", tile=8)
    with pytest.raises(ValueError, match=r"images of the examples are missing.*run the audit again"):
        real.PhotoAudit.from_json(found.to_json()).sheet(tmp_path / "again.png")
    with pytest.raises(ValueError, match="examples are missing"):
        real.PhotoAudit(**{**vars(found), "examples": ()}).sheet(tmp_path / "none.png")
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]
