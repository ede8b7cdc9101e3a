"""`real.in9` and `real.cue_conflict` on small folders of their layouts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cgnrt import CgnrtError, real
from cgnrt.auditing.rates import Rate
from cgnrt.real.known_sets.groups import CUE_CONFLICT, IN9

from .conftest import CATEGORIES, GROUPS, KNOWN_SIDE

Array = np.ndarray[Any, Any]
RED, GREEN = 0, 1  # the object or the shape; the background or the texture


def reads(channel: int, step: int, members: Any = None) -> Callable[[Array], Array]:
    """A classifier of a channel's group: logits of the groups, or of ImageNet's classes."""

    def classify(images: Array) -> Array:
        assert images.dtype == np.float32
        assert images.shape[1:] == (3, KNOWN_SIDE, KNOWN_SIDE)
        groups = np.rint(images[:, channel, 0, 0] * 255 / step).astype(int)
        count = 9 if step == 20 else 16
        logits = np.zeros((len(images), count if members is None else 1000), np.float32)
        for row, group in enumerate(groups):
            column = group if members is None else 404 if group >= count else members[group][-1]
            if column < logits.shape[1]:
                logits[row, column] = 20
        return logits

    return classify


OBJECT = reads(RED, 20, IN9.members)
BACKGROUND = reads(GREEN, 20, IN9.members)


def in9(classifier: Any, folder: Path, **options: Any) -> real.In9Audit:
    return real.in9(classifier, folder, size=KNOWN_SIDE, progress=False, **options)


def cues(classifier: Any, folder: Path, **options: Any) -> real.CueConflictAudit:
    return real.cue_conflict(classifier, folder, size=KNOWN_SIDE, progress=False, **options)


def test_a_classifier_of_objects_has_no_gap(in9_folder: Path) -> None:
    found = in9(OBJECT, in9_folder)
    assert list(found.accuracy) == ["original", "mixed_same", "mixed_rand", "mixed_next", "only_fg"]
    assert all(rate.count == rate.n == 36 for rate in found.accuracy.values())
    assert found.background_gap == 0
    assert found.classes == 1000


def test_a_classifier_of_backgrounds_has_one(in9_folder: Path) -> None:
    found = in9(BACKGROUND, in9_folder, confidence=0.9)
    assert {name: rate.count for name, rate in found.accuracy.items()} == {
        "original": 36,
        "mixed_same": 36,
        "mixed_rand": 9,  # one of each group's four has the background of its own
        "mixed_next": 0,
        "only_fg": 0,
    }
    assert found.accuracy["mixed_rand"] == Rate.of(9, 36, 0.9)
    assert found.background_gap == 0.75
    # On black it answers airliner, which is in no group.
    assert found.outside["only_fg"].value == 1
    assert found.outside["mixed_rand"].count == 0
    assert found.by_group["mixed_rand"] == {name: Rate.of(1, 4, 0.9) for name in GROUPS}


def test_newcombe() -> None:
    # The first example of Newcombe (1998), table II: 56 of 70 and 48 of 80, method 10.
    found = real.In9Audit(
        1000,
        0.95,
        {"mixed_same": Rate.of(56, 70, 0.95), "mixed_rand": Rate.of(48, 80, 0.95)},
        {},
        {},
    )
    assert found.background_gap_interval == pytest.approx((0.0524, 0.3339), abs=5e-5)  # as printed there


def test_answers_of_the_nine_groups(in9_folder: Path) -> None:
    found = in9(reads(GREEN, 20), in9_folder, sets=["mixed_rand", "mixed_same"])
    assert found.classes == 9
    assert list(found.accuracy) == ["mixed_same", "mixed_rand"]
    assert found.background_gap == 0.75


def test_labels_with_the_number_of_classes(in9_folder: Path, cue_folder: Path) -> None:
    wide = in9(lambda images: OBJECT(images).argmax(1), in9_folder, classes=1000, sets=["mixed_rand"])
    narrow = in9(lambda images: reads(RED, 20)(images).argmax(1), in9_folder, classes=9, sets=["mixed_rand"])
    assert wide.accuracy == narrow.accuracy
    assert wide.background_gap is None
    assert wide.background_gap_interval is None
    assert "BG-gap: unknown without the sets mixed_same and mixed_rand" in str(wide)
    found = cues(lambda images: reads(RED, 15)(images).argmax(1), cue_folder, classes=16)
    assert found.shape_bias.value == 1


@pytest.mark.parametrize("members", [None, CUE_CONFLICT.members])
def test_shape_bias(cue_folder: Path, members: Any) -> None:
    shape, texture = reads(RED, 15, members), reads(GREEN, 15, members)
    found = cues(shape, cue_folder)
    assert (found.shape.count, found.texture.count, found.shape.n, found.left_out) == (48, 0, 48, 16)
    assert found.shape_bias == Rate.of(48, 48, 0.95)
    found = cues(texture, cue_folder)
    assert (found.shape.count, found.texture.count) == (0, 48)
    assert found.shape_bias.value == 0


def test_shape_bias_is_of_the_answers_that_are_one_of_both(cue_folder: Path) -> None:
    def sees(images: Array) -> Array:
        """Shapes up to car, textures from car on up to oven, and chairs elsewhere."""
        shapes = np.rint(images[:, RED, 0, 0] * 255 / 15).astype(int)
        textures = np.rint(images[:, GREEN, 0, 0] * 255 / 15).astype(int)
        answers = np.where(shapes < 6, shapes, np.where(shapes < 14, textures, 8))
        return np.eye(16, dtype=np.float32)[answers]

    found = cues(sees, cue_folder)
    chairs = sum((shape + 5 * step) % 16 == 8 for shape in (14, 15) for step in (1, 2, 3))
    assert found.shape == Rate.of(18, 48, 0.95)
    assert found.texture == Rate.of(24 + chairs, 48, 0.95)
    assert found.shape_bias == Rate.of(18, 42 + chairs, 0.95)
    assert found.by_category["airplane"].shape_bias == Rate.of(3, 3, 0.95)
    assert found.by_category["car"].shape_bias == Rate.of(0, 3, 0.95)
    assert tuple(found.by_category) == CATEGORIES


def test_the_last_batch_counts_as_it_is(in9_folder: Path, cue_folder: Path) -> None:
    sizes: list[int] = []

    def seen(images: Array) -> Array:
        sizes.append(len(images))
        return BACKGROUND(images)

    found = in9(seen, in9_folder, batch_size=25, sets=["mixed_same", "mixed_rand"])
    assert sizes == [25, 11, 25, 11]
    assert found == in9(BACKGROUND, in9_folder, sets=["mixed_same", "mixed_rand"])
    shape = reads(RED, 15)
    assert cues(shape, cue_folder, batch_size=7) == cues(shape, cue_folder)


def test_some_of_the_pictures_are_spread_over_the_groups(in9_folder: Path, cue_folder: Path) -> None:
    found = in9(OBJECT, in9_folder, n=9, sets=["original"])
    assert {rate.n for rate in found.by_group["original"].values()} == {1}
    assert cues(reads(RED, 15), cue_folder, n=16).shape.n == 16
    assert cues(reads(RED, 15), cue_folder, n=1000).shape.n == 48


def test_a_torch_module(in9_folder: Path, cue_folder: Path) -> None:
    class Reader(torch.nn.Module):
        def __init__(self, step: int, count: int) -> None:
            super().__init__()
            self.step, self.count = step, count

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            assert not self.training
            groups = (images[:, RED, 0, 0] * 255 / self.step).round().long().clamp(max=self.count - 1)
            return torch.nn.functional.one_hot(groups, self.count).to(torch.bfloat16)

    module = Reader(20, 9)
    assert in9(module, in9_folder, sets=["mixed_rand"]).accuracy["mixed_rand"].value == 1
    assert module.training
    assert cues(Reader(15, 16), cue_folder).shape_bias.value == 1


def test_pictures_of_another_size_are_cropped_and_scaled(in9_folder: Path) -> None:
    found = real.in9(
        lambda images: np.full(len(images), 0),
        in9_folder,
        size=32,
        classes=9,
        sets=["original"],
        progress=False,
    )
    assert found.accuracy["original"].count == 4


def changes(images: Array) -> Array:
    images[0] = 0
    return np.zeros((len(images), 1000))


@pytest.mark.parametrize(
    ("classifier", "options", "message"),
    [
        (
            lambda images: np.zeros((len(images), 10)),
            {},
            r"number of logits of the classifier is 10, expected 1000 \(ImageNet's classes\) or 9 \(ImageNet-9's gr",
        ),
        (
            lambda images: np.zeros((len(images), 9)),
            {"classes": 1000},
            r"number of logits of the classifier is 9, expected 1000, the number of classes",
        ),
        (
            lambda images: np.zeros(len(images), int),
            {},
            r"labels, which do not tell the number of classes. Pass classes=1000 or classes=9",
        ),
        (
            lambda images: np.full(len(images), 9),
            {"classes": 9},
            r"labels of the classifier are 9\.\.9, expected 0\.\.8",
        ),
        (OBJECT, {"classes": 16}, r"classes is 16, expected 1000 .* or 9 .*, or None"),
        (
            lambda images: np.full((len(images), 9), np.nan),
            {},
            r"logits of the classifier for picture '.*original.val.00_dog.n0_0.JPEG' are NaN",
        ),
        (
            lambda images: np.zeros((len(images), 3, 3)),
            {},
            r"answer of the classifier has shape \(36, 3, 3\)",
        ),
        (changes, {}, r"the classifier changed the pixels of picture '.*00_dog.n0_0.JPEG'"),
        (OBJECT, {"n": 0}, r"n is 0, expected at least 1"),
        (OBJECT, {"batch_size": 0}, r"batch_size is 0, expected at least 1"),
        (OBJECT, {"confidence": 1}, r"confidence is 1, expected a number between 0 and 1"),
        (OBJECT, {"size": 0}, r"size is 0, expected at least 1"),
        (OBJECT, {"size": 8.0}, r"size is 8.0, expected an int"),
        (OBJECT, {"inputs": "jax"}, r"inputs is 'jax', expected 'numpy' or 'torch'"),
        ("resnet50", {}, r"classifier is str, expected a callable"),
    ],
)
def test_what_is_refused(in9_folder: Path, classifier: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        real.in9(classifier, in9_folder, **{"size": KNOWN_SIDE, "progress": False, **options})


@pytest.mark.parametrize(
    ("classifier", "options", "message"),
    [
        (
            lambda images: np.zeros((len(images), 9)),
            {},
            r"number of logits of the classifier is 9, expected 1000 .* or 16 \(Cue Conflict's categories\)",
        ),
        (
            lambda images: np.zeros(len(images), int),
            {"classes": 1000},
            r"labels of 1000 classes, expected logits or probabilities .m, 1000.*pass classes=16",
        ),
    ],
)
def test_what_cue_conflict_refuses(
    cue_folder: Path, classifier: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        cues(classifier, cue_folder, **options)


def test_a_damaged_picture_is_named(in9_folder: Path, cue_folder: Path) -> None:
    (in9_folder / "mixed_rand/val/05_insect/n5_1.JPEG").write_bytes(b"\xff\xd8\xff\xe0 cut short")
    with pytest.raises(ValueError, match=r"read '.*mixed_rand.val.05_insect.n5_1.JPEG': file is unreadable"):
        in9(OBJECT, in9_folder)
    (cue_folder / "bear/bear9-dog2.png").write_bytes(b"")
    (cue_folder / "bear/bear9-clock2.png").unlink(missing_ok=True)
    with pytest.raises(ValueError, match=r"read '.*bear.bear9-dog2.png': file is empty"):
        cues(reads(RED, 15), cue_folder)


def test_json_is_the_audit(in9_folder: Path, cue_folder: Path) -> None:
    found = in9(BACKGROUND, in9_folder)
    assert real.In9Audit.from_json(found.to_json()) == found
    content = json.loads(found.to_json())
    assert content["accuracy"]["mixed_rand"]["value"] == 0.25
    assert content["background_gap"] == 0.75
    assert content["background_gap_interval"] == list(found.background_gap_interval or ())
    shapes = cues(reads(RED, 15), cue_folder)
    assert real.CueConflictAudit.from_json(shapes.to_json()) == shapes
    assert json.loads(shapes.to_json())["shape_bias"]["value"] == 1
    assert all(isinstance(rates, real.CueRates) for rates in shapes.by_category.values())


def test_answers_that_are_neither_have_no_bias(cue_folder: Path) -> None:
    found = cues(lambda images: np.full(len(images), 0), cue_folder, classes=16)
    assert found.by_category["bird"].shape_bias.n == 0
    assert "  bird      none" in str(found)
    assert real.CueConflictAudit.from_json(found.to_json()) == found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(format="cgnrt-audit"), r"format is not 'cgnrt-in9-audit'"),
        (lambda c: c.update(format_version=2), r"format version is 2, expected 1"),
        (lambda c: c.update(classes="9"), r"content is damaged \(classes is '9'\)"),
        (lambda c: c.pop("outside"), r"content is damaged \('outside'\)"),
        (lambda c: c["outside"].pop("original"), r"are not of the same sets"),
        (lambda c: c["accuracy"]["original"].update(count=99), r"content is damaged \(a rate is"),
    ],
)
def test_content_that_is_no_audit(in9_folder: Path, change: Callable[[Any], Any], message: str) -> None:
    content = in9(OBJECT, in9_folder, sets=["original"]).to_dict()
    change(content)
    with pytest.raises(ValueError, match=message):
        real.In9Audit.from_dict(content)


def test_content_that_is_no_audit_of_cues(cue_folder: Path) -> None:
    content = cues(reads(RED, 15), cue_folder).to_dict()
    with pytest.raises(ValueError, match=r"content is damaged \(left_out is None\)"):
        real.CueConflictAudit.from_dict(content | {"left_out": None})
    with pytest.raises(ValueError, match=r"content is not JSON"):
        real.CueConflictAudit.from_json("{")


def test_the_tables(in9_folder: Path, cue_folder: Path) -> None:
    shown = str(in9(BACKGROUND, in9_folder))
    assert shown.startswith("ImageNet-9: 180 pictures of 5 sets, answers of 1,000 classes, 95 % intervals\n")
    assert "  mixed_rand    25.0 % (13.8..41.1)" in shown
    assert "36 pictures of 1 set, " in str(in9(OBJECT, in9_folder, sets=["original"]))
    assert "BG-gap (mixed_same less mixed_rand): 75.0 points (" in shown
    assert "  musical instrument  25.0 % (" in shown
    shown = str(cues(reads(RED, 15), cue_folder))
    assert shown.startswith(
        "Cue Conflict: 48 pictures (16 without a conflict left out), answers of 16 classes, 95 % intervals\n"
    )
    assert "shape bias: 100.0 % (" in shown


def test_the_plots(in9_folder: Path, cue_folder: Path, tmp_path: Path) -> None:
    found = [
        in9(BACKGROUND, in9_folder),
        cues(lambda images: np.full(len(images), 0), cue_folder, classes=16),
    ]
    for number, audit in enumerate(found):
        path = tmp_path / f"{number}.png"
        audit.plot(path)
        assert path.read_bytes().startswith(b"\x89PNG")
        with pytest.raises(CgnrtError, match=r"exists"):
            audit.plot(path)
        audit.plot(path, force=True)
        with pytest.raises(ValueError, match=r"expected a name that ends in .png"):
            audit.plot(tmp_path / "a.jpg")
