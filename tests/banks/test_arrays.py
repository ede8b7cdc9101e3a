"""`banks.from_arrays`: photos in memory as a plan."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cgnrt
from cgnrt import banks
from cgnrt.errors import PlanError
from cgnrt.plan import MECHANISMS, BankSource, Plan

from .conftest import photo

IMAGES, MASKS = (np.stack(part) for part in zip(*(photo(k) for k in range(6)), strict=True))
LABELS = np.array([1, 0, 1, 0, 1, 0])


def test_arrays_are_a_plan(tmp_path: Path) -> None:
    out = tmp_path / "out.plan"
    source = BankSource("mine", 6, "0" * 64)
    digest = banks.from_arrays(out, IMAGES, MASKS, LABELS, classes=["cat", "dog"], sources=[source], seed=3)
    with Plan.open(out) as plan:
        assert plan.digest == digest
        order = [1, 3, 5, 0, 2, 4]  # class by class
        for name in MECHANISMS:
            bank = plan.banks[name]
            assert (bank.classes, bank.labels.tolist()) == (("cat", "dog"), [0] * 3 + [1] * 3)
            assert bank.spec.sources == (source,)
            for place, k in enumerate(order):
                entry = banks.Recipe("patches", 3, 0, 1).entry(
                    IMAGES[k].transpose(2, 0, 1).astype(np.float32), MASKS[k] / np.float32(255), k
                )
                assert not isinstance(entry, str)
                assert np.array_equal(bank.pictures[place], entry[name])
    assert cgnrt.Generator(out).sample(4, seed=0).images.shape == (4, 3, 72, 96)
    with pytest.raises(PlanError, match="the name of an existing file"):
        banks.from_arrays(out, IMAGES, MASKS, LABELS)
    banks.from_arrays(out, IMAGES, MASKS, LABELS, force=True)
    with Plan.open(out) as plan:
        assert plan.banks["shape"].classes == ("0", "1")


@pytest.mark.parametrize("texture", banks.TEXTURES)
def test_every_form_of_the_same_photos_is_one_plan(tmp_path: Path, texture: str) -> None:
    given: list[tuple[Any, Any, dict[str, Any]]] = [
        (IMAGES, MASKS, {}),
        (IMAGES.transpose(0, 3, 1, 2), MASKS[:, None], {}),
        (IMAGES.astype(np.float64) / 255, MASKS == 255, {}),
        (IMAGES.astype(np.float32) / 127.5 - 1, MASKS / 255, {"range": (-1, 1)}),
    ]
    for k, (images, masks, options) in enumerate(given):
        banks.from_arrays(tmp_path / f"{k}.plan", images, masks, LABELS, texture=texture, **options)
    assert len({(tmp_path / f"{k}.plan").read_bytes() for k in range(2)}) == 1
    with Plan.open(tmp_path / "0.plan") as one:
        for k in (2, 3):
            with Plan.open(tmp_path / f"{k}.plan") as other:
                for name in MECHANISMS:
                    apart = one.banks[name].pictures.astype(int) - other.banks[name].pictures
                    assert np.abs(apart).max() <= 1


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"masks": MASKS * 0}, ValueError, "photo 0 cannot be used: no object in it. Leave out photos that"),
        ({"masks": MASKS[:, :20]}, ValueError, "bank masks: shape is (6, 20, 96), expected (6, 1, 72, 96)"),
        ({"images": IMAGES[..., :2]}, ValueError, "bank images: shape is"),
        ({"images": IMAGES.astype(float)}, ValueError, "expected 0..1"),
        ({"labels": LABELS[:3]}, ValueError, "labels are int64 (3,), expected integers (6,)."),
        ({"labels": LABELS.astype(float)}, ValueError, "labels are float64 (6,), expected integers (6,)."),
        ({"labels": LABELS * 2}, ValueError, "class '1' has no picture, expected at least one."),
        ({"classes": ["cat"]}, ValueError, "labels are 0..1, expected 0..0."),
        ({"texture": "none"}, ValueError, "texture is 'none'"),
    ],
)
def test_bad_arguments(tmp_path: Path, change: dict[str, Any], error: type[Exception], message: str) -> None:
    given = {"images": IMAGES, "masks": MASKS, "labels": LABELS, **change}
    with pytest.raises(error, match=re.escape(message)):
        banks.from_arrays(tmp_path / "out.plan", **given)
    assert not (tmp_path / "out.plan").exists()
