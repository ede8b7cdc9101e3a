"""`real.audit` says what a classifier's answers lean on: on photos whose objects and grounds tell their classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from told_photos import LEVELS, K, N, Told, ask, make_told, read_ground, read_object

from cgnrt import real

Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def told() -> Told:
    return make_told()


def test_a_classifier_that_reads_the_background_alone(told: Told) -> None:
    found = ask(told, read_ground)
    assert found.accuracy["photo"].value == 1
    assert found.keeps["same"].value == 1
    assert found.keeps["other"].value < 0.1
    assert found.accuracy["other"].value < 0.1
    assert found.background_gap > 0.9
    assert found.background_alone.value == 1
    assert found.keeps["texture"].value == 1
    assert found.texture_follows.value == 0
    assert found.keeps["grey"].value < 0.5
    assert (found.photos, found.n, found.seed, found.confidence) == (N, N, 0, 0.95)


def test_a_classifier_that_reads_the_object_alone(told: Told) -> None:
    found = ask(told)
    assert [found.keeps[name].value > 0.95 for name in ("same", "other", "grey")] == [True] * 3
    assert found.background_gap == 0
    assert found.background_alone.value == 1 / K  # the answer is 0 without an object
    # The red is the object's texture.
    assert found.texture_follows.value > 0.9
    assert found.keeps["texture"].value < 0.1
    assert found.keeps["other"].low > 0.9


def test_rates_by_class(told: Told) -> None:
    """A classifier that reads the object of class 2, and the background of others."""

    def mixed(images: Array) -> Array:
        return np.where(read_object(images) == 2, 2, read_ground(images))

    found = ask(told, mixed, classes=["ant", "bee", "cat", "dog"])
    assert list(found.by_class) == ["ant", "bee", "cat", "dog"]
    assert [rates.keeps["other"].value == 1 for rates in found.by_class.values()] == [
        False,
        False,
        True,
        False,
    ]
    for name in ("photo", "same", "other", "grey", "texture"):
        parts = [rates.accuracy[name] for rates in found.by_class.values()]
        assert sum(part.count for part in parts) == found.accuracy[name].count
        assert [part.n for part in parts] == [N // K] * K


def test_what_is_asked(told: Told) -> None:
    """Every kind shows what it says, in [0, 1], in batches of which the last is smaller."""
    asked: list[Array] = []

    def remember(images: Array) -> Array:
        assert images.dtype == np.float32
        assert 0 <= images.min() <= images.max() <= 1
        asked.append(images.copy())
        return np.zeros(len(images), np.int64)

    ask(told, remember, batch_size=25)
    assert [len(images) for images in asked] == [25] * 6 + [15] * 6
    photo, same, other, grey, texture, background = (
        np.concatenate([asked[k], asked[6 + k]]) for k in range(6)
    )
    inside = told.masks[:, 0] == 1
    np.testing.assert_allclose(photo, told.images, atol=1e-6)
    for shown in (same, other, grey):
        np.testing.assert_allclose(
            np.where(inside[:, None], shown, 0), np.where(inside[:, None], told.images, 0), atol=1e-6
        )
    assert (read_ground(same) == told.labels).all()
    assert (read_ground(other) != told.labels).all()
    np.testing.assert_allclose(grey.transpose(0, 2, 3, 1)[~inside], 0.5, atol=1e-6)
    assert background[:, 2].max() == 0  # nowhere blue: no object
    assert (read_ground(background) == told.labels).all()
    np.testing.assert_allclose(
        np.where(inside[:, None], 0, texture), np.where(inside[:, None], 0, told.images), atol=1e-6
    )
    assert (read_object(texture) != told.labels).mean() > 0.9


@pytest.mark.parametrize("form", ["bytes", "signed", "channels last"])
def test_photos_of_every_form(told: Told, form: str) -> None:
    images, masks, options = told.images, told.masks, {}
    if form == "bytes":
        images, masks = np.rint(images * 255).astype(np.uint8), (masks * 255).astype(np.uint8)
    elif form == "signed":
        images, options = images * 2 - 1, {"range": (-1, 1)}
    else:
        images = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    found = real.audit(read_object, images, masks, told.labels, places=False, **options)
    assert found == ask(told)


def test_the_same_whatever_the_batch_size(told: Told) -> None:
    def mixed(images: Array) -> Array:
        return (read_object(images) + read_ground(images)) % K

    expected = ask(told, mixed, seed=3)
    assert ask(told, mixed, seed=3, batch_size=7, threads=1) == expected
    assert ask(told, mixed, seed=4) != expected
    drawn = ask(told, mixed, seed=None)
    assert ask(told, mixed, seed=drawn.seed) == drawn
    more = ask(told, mixed, n=100)
    assert (more.n, more.photos, more.keeps["other"].n) == (100, N, 100)


def test_fewer_images_than_photos_are_spread_over_the_photos(told: Told) -> None:
    order = np.argsort(told.labels, kind="stable")
    images, masks, labels = (array[order] for array in (told.images, told.masks, told.labels))
    found = real.audit(read_object, images, masks, labels, n=8, batch_size=3, places=False)
    assert [rates.keeps["other"].n for rates in found.by_class.values()] == [2] * K
    assert found.accuracy["photo"].value == 1


class Module(torch.nn.Module):
    """Logits by the object's red."""

    def __init__(self) -> None:
        super().__init__()
        self.levels = torch.nn.Parameter(torch.tensor(LEVELS, dtype=torch.float32))
        self.drop = torch.nn.Dropout(0.9)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        weight = (images[:, 2] - 0.5).clamp(min=0) ** 2
        red = (images[:, 0] * weight).sum((1, 2)) / weight.sum((1, 2)).clamp(min=1e-6)
        return self.drop(-(red[:, None] - self.levels).abs())


def test_a_torch_module(told: Told) -> None:
    module = Module().train()
    assert ask(told, module) == ask(told)
    assert module.training
    plain = module.eval()
    assert ask(told, lambda images: plain(images).detach(), inputs="torch") == ask(told)


def test_labels_of_some_of_the_classes(told: Told) -> None:
    """As of a classifier of ImageNet about photos of a few of its classes."""
    numbers = np.array([217, 0, 491, 701])

    def wide(images: Array) -> Array:
        logits = np.zeros((len(images), 1000), np.float32)
        logits[np.arange(len(images)), numbers[read_object(images)]] = 1
        return logits

    names = {217: "springer", 0: "tench", 491: "saw", 701: "chute"}
    found = real.audit(
        wide, told.images, told.masks, numbers[told.labels], classes=names, places=False, batch_size=16
    )
    assert list(found.by_class) == ["tench", "springer", "saw", "chute"]
    assert found.keeps == ask(told).keeps
    twice = real.audit(
        wide, told.images, told.masks, numbers[told.labels], classes=dict.fromkeys(numbers.tolist(), "it")
    )
    assert list(twice.by_class) == ["it (0)", "it (217)", "it (491)", "it (701)"]


def test_the_worst_examples(told: Told) -> None:
    found = ask(
        told, read_ground, classes=list("abcd"), names=[f"photos/{i}.jpg" for i in range(N)], examples=3
    )
    assert len(found.examples) == 3
    for example in found.examples:
        photo = int(example.name.removeprefix("photos/").removesuffix(".jpg"))
        assert example.label == "abcd"[told.labels[photo]]
        assert example.answers["photo"] == example.answers["background"] == example.label
        assert example.answers["other"] != example.label
        assert example.images["photo"].dtype == np.uint8
        np.testing.assert_allclose(
            example.images["photo"] / 255, told.images[photo].transpose(1, 2, 0), atol=0.003
        )
    none = ask(told, lambda images: (read_object(images) + 1) % K)
    assert none.examples == ()  # nothing is right, so nothing is lost


def constant(answer: Callable[[Array], Any]) -> Callable[[Array], Any]:
    return lambda images: answer(np.zeros((len(images), K), np.float32))


def with_nan(logits: Array) -> Array:
    logits[min(3, len(logits) - 1)] = np.nan
    return logits


def changing(images: Array) -> Array:
    images[5] -= 0.25
    return np.zeros(len(images), np.int64)


@pytest.mark.parametrize(
    ("classifier", "message"),
    [
        (
            constant(with_nan),
            r"logits of the classifier for photo 'p3' \(the photo itself\) are NaN, expected numbers",
        ),
        (
            constant(lambda logits: logits - np.inf),
            r"logits of the classifier for photo 'p0' \(the photo itself\) are all -inf, expected at least one number",
        ),
        (
            constant(lambda logits: logits[:-1]),
            r"answer of the classifier has shape \(15, 4\), expected logits \(16, k\) or integer labels \(16,\) "
            r"\(photo 'p0' \(the photo itself\) and those after it\)",
        ),
        (constant(lambda logits: logits[:, 0]), r"answer of the classifier is float32 \(16,\)"),
        (
            constant(lambda logits: logits[:, :3]),
            r"label of photo 'p3' is 3, expected 0..2, the classifier's classes",
        ),
        (
            constant(lambda logits: np.arange(len(logits)) - 2),
            r"labels of the classifier are -2..13, expected 0 or more, the number of classes "
            r"\(photo 'p0' \(the photo itself\)\)",
        ),
        (changing, r"the classifier changed the pixels of photo 'p5' \(the photo itself\)"),
        (None, "classifier is NoneType, expected a callable"),
    ],
)
def test_classifiers_that_are_refused(told: Told, classifier: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=f"^audit: {message}"):
        ask(told, classifier, names=[f"p{i}" for i in range(N)])


def test_a_module_that_changes_its_input(told: Told) -> None:
    class Normalised(Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return super().forward(images.sub_(0.1))

    with pytest.raises(ValueError, match=r"changed the pixels of photo 0 \(the photo itself\)"):
        ask(told, Normalised())


def test_a_fault_on_a_later_kind_names_it(told: Told) -> None:
    def shy(images: Array) -> Array:
        logits = np.eye(K, dtype=np.float32)[read_object(images)]
        logits[images[:, 2].max((1, 2)) < 0.5] = np.nan
        return logits

    with pytest.raises(
        ValueError, match=r"logits of the classifier for photo 0 \(the background alone\) are NaN"
    ):
        ask(told, shy)


def test_another_number_of_logits(told: Told) -> None:
    with pytest.raises(
        ValueError, match="number of logits of the classifier is 4, expected 5, the number of classes"
    ):
        ask(told, lambda images: np.zeros((len(images), K)), classes=list("abcde"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"labels": np.zeros(3, int)},
            r"labels are int64 \(3,\), expected integers \(40,\), one for each photo",
        ),
        ({"labels": np.full(N, 0.5)}, r"labels are float64 \(40,\), expected integers"),
        ({"labels": np.arange(N) - 1}, "label of photo 0 is -1, expected 0 or more"),
        ({"classes": ["a", "b"]}, "label of photo 2 is 2, expected 0..1, the classifier's classes"),
        ({"classes": "abcd"}, "classes is 'abcd', expected a list of names"),
        ({"names": ["a"]}, "names are 1, expected 40, one for each photo"),
        ({"labels": np.zeros(N, int)}, "photo 0 has no donor among 40 photos. Add a photo of another label"),
        (
            {"labels": np.where(np.arange(N) == 7, 3, np.arange(N) % 2)},
            "photo 7 has no donor among 40 photos. Add another photo of its label",
        ),
        ({"n": 0}, "n is 0, expected at least 1"),
        ({"batch_size": 0}, "batch_size is 0, expected at least 1"),
        ({"confidence": 2.0}, r"confidence is 2\.0, expected a number between 0 and 1"),
        ({"inputs": "jax"}, "inputs is 'jax', expected 'numpy' or 'torch'"),
        ({"range": (0, 0.5)}, r"images: images\[0, 1, 0, 0\] is .*, expected 0..0.5|images: images"),
    ],
)
def test_bad_arguments(told: Told, change: dict[str, Any], message: str) -> None:
    labels = change.pop("labels", told.labels)
    with pytest.raises((ValueError, TypeError), match=f"^audit:? ?{message}"):
        real.audit(read_object, told.images, told.masks, labels, **change)


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (0.0, r"the maximum of masks\[6\] is 0, expected an object \(at least 0.5\)"),
        (1.0, r"the background of masks\[6\] is too small, expected a rectangle without object"),
        (np.nan, r"masks\[6, 0, 0, 0\] is nan, expected 0..1"),
    ],
)
def test_masks_without_an_object_or_that_fill_the_picture(told: Told, fill: float, message: str) -> None:
    masks = told.masks.copy()
    masks[6] = fill
    with pytest.raises(ValueError, match=f"^audit masks: {message}"):
        real.audit(read_object, told.images, masks, told.labels)
