"""The audit says exactly what a classifier follows, on a plan whose images tell their labels."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import cgnrt
from cgnrt import Audit, Generator, Labels, MissingDependencyError
from cgnrt.auditing.rates import Rate
from cgnrt.auditing.run import Job

from .telling_plan import LEVELS, K, N, background_of, shape_of, texture_of, write_telling_plan


def counts(rates: tuple[Rate, ...]) -> list[int]:
    return [rate.count for rate in rates]


def independent(telling: Generator) -> tuple[np.ndarray, ...]:
    return telling.sample(N, seed=0).labels


def test_the_plan_tells_its_labels(telling: Generator) -> None:
    batch = telling.sample(N, seed=0)
    for read, labels in zip((shape_of, texture_of, background_of), batch.labels, strict=True):
        np.testing.assert_array_equal(read(batch.images), labels)


def test_a_classifier_that_is_right(telling: Generator) -> None:
    found = cgnrt.audit(shape_of, telling, N)
    shape, texture, background = independent(telling)
    assert counts(found.follows) == [N, (texture == shape).sum(), (background == shape).sum()]
    assert counts(found.changes) == [N, 0, 0]
    assert found.moves.shape.count == N
    assert found.shared.count == N
    assert counts(found.by_class) == np.bincount(shape).tolist() == [rate.n for rate in found.by_class]
    assert found.follows.texture.low < found.chance < found.follows.texture.high
    assert found.follows.shape.high == 1
    assert found.classes == ("shape 0", "shape 1", "shape 2")
    assert (found.plan, found.digest, found.n, found.seed) == ("telling.plan", telling.plan.digest, N, 0)


@pytest.mark.parametrize(("read", "column"), [(texture_of, 1), (background_of, 2)])
def test_a_classifier_that_follows_a_cue(telling: Generator, read: Any, column: int) -> None:
    found = cgnrt.audit(read, telling, N)
    labels = independent(telling)
    assert counts(found.follows) == [(label == labels[column]).sum() for label in labels]
    assert counts(found.changes) == [N if i == column else 0 for i in range(3)]
    assert found.moves[column].count == N
    assert found.shared.count == N  # right wherever the cues agree: that is why it was not noticed
    assert found.follows.shape.value < 0.45


def test_a_constant_classifier(telling: Generator) -> None:
    found = cgnrt.audit(lambda images: np.ones((len(images), K)), telling, N)  # of equal logits the first
    assert counts(found.follows) == [(label == 0).sum() for label in independent(telling)]
    assert counts(found.changes) == [0, 0, 0]
    assert [rate.value for rate in found.by_class] == [1, 0, 0]


def test_a_random_classifier(telling: Generator) -> None:
    random = np.random.default_rng(0)
    found = cgnrt.audit(lambda images: random.random((len(images), K)), telling, 2000, confidence=0.9999)
    for rate in (*found.follows, *found.moves, found.shared):
        assert rate.low < found.chance < rate.high
    for rate in found.changes:
        assert rate.low < 1 - found.chance < rate.high


def test_interventions_change_one_label_and_no_noise(golden_plan: Path) -> None:
    generator = Generator(golden_plan, backend="openvino", precision="fp32", threads=1)
    asked: list[np.ndarray] = []

    def remember(images: np.ndarray) -> np.ndarray:
        asked.append(images.copy())
        return np.zeros(len(images), int)

    cgnrt.audit(remember, generator, 20, batch_size=20, seed=5)
    fact = generator.sample(20, seed=5)
    np.testing.assert_allclose(asked[0], fact.images, atol=2e-5)
    np.testing.assert_allclose(asked[4], generator.sample(20, seed=5, labels="shared").images, atol=2e-5)
    for column, mechanism in enumerate(("shape", "texture", "background")):
        others = [
            generator(
                **fact.labels._asdict() | {mechanism: (fact.labels[column] + step) % 3}, noise=fact.noise
            ).images
            for step in (1, 2)
        ]
        off = np.stack([np.abs(asked[1 + column] - other).max(axis=(1, 2, 3)) for other in others])
        assert off.min(axis=0).max() < 2e-5
        assert (off.argmin(axis=0) == 0).any()  # both other classes come
        assert (off.argmin(axis=0) == 1).any()


def test_the_same_whatever_the_batch_size(telling: Generator) -> None:
    mixed = lambda images: (shape_of(images) + (texture_of(images) == 2)) % K  # noqa: E731
    expected = cgnrt.audit(mixed, telling, 100, seed=3)
    assert cgnrt.audit(mixed, telling, 100, seed=3, batch_size=7) == expected
    assert cgnrt.audit(mixed, telling, 100, seed=4) != expected
    drawn = cgnrt.audit(mixed, telling, 100, seed=None)
    assert cgnrt.audit(mixed, telling, 100, seed=drawn.seed) == drawn


def test_distinct_labels_are_never_equal(make_golden: ModuleType, tmp_path: Path) -> None:
    names = ["red", "green", "blue"]
    path = write_telling_plan(
        make_golden, tmp_path / "named.plan", names={"texture": names, "background": names}
    )
    shown: list[tuple[np.ndarray, np.ndarray]] = []

    def remember(images: np.ndarray) -> np.ndarray:
        shown.append((texture_of(images), background_of(images)))
        return shape_of(images)

    found = cgnrt.audit(remember, path, N, batch_size=N, distinct=True)
    assert found.distinct
    assert "texture and background of different classes" in str(found)
    (texture, background), _, painted, moved, agreeing = shown
    for these, those in (shown[0], shown[1], painted, moved):
        assert (these != those).all()
    assert (painted[0] != texture).all()
    assert (moved[1] != background).all()
    np.testing.assert_array_equal(*agreeing)
    assert found.moves.shape.count == N
    assert cgnrt.audit(shape_of, path, N, batch_size=7, distinct=True) == found
    assert not cgnrt.audit(shape_of, path, 10).distinct


def test_distinct_replaces_by_every_class_that_is_left(make_golden: ModuleType, tmp_path: Path) -> None:
    names = ["red", "green", "blue", "lime"]
    path = write_telling_plan(
        make_golden,
        tmp_path / "four.plan",
        classes=dict.fromkeys(("shape", "texture", "background"), 4),
        names={"texture": [*names[1:], "grey"], "background": names},
    )
    labels = Labels(*np.zeros((3, 4000), np.int64))._replace(background=np.tile([0, 1, 2, 3], 1000))
    labels = labels._replace(
        texture=np.where(labels.background == 1, 1, 0)
    )  # "blue" on "green", else "green"
    job = Job(Generator(path), ("0", "1", "2", "3"), 4000, 256, 0, None, True, None)
    random = np.random.default_rng(0).random(4000)
    pairs = np.stack([labels.background, job.changed(labels, "texture", random).texture], axis=1)
    # Background "red" has no texture of its name; "green" is texture 0, "blue" 1, "lime" 2.
    found = {(int(a), int(b)): int((pairs == (a, b)).all(axis=1).sum()) for a, b in np.unique(pairs, axis=0)}
    assert {(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 2), (2, 3), (3, 1), (3, 3)} == found.keys()
    assert all(abs(count - (333 if pair[0] == 0 else 500)) < 80 for pair, count in found.items())


def test_distinct_of_two_classes(make_golden: ModuleType, tmp_path: Path) -> None:
    two, names = dict.fromkeys(("shape", "texture", "background"), 2), ["red", "green"]
    path = write_telling_plan(
        make_golden, tmp_path / "two.plan", classes=two, names={"texture": names, "background": names}
    )
    with pytest.raises(ValueError, match="distinct is on, but texture has 2 classes, expected at least 3"):
        cgnrt.audit(shape_of, path, 10, distinct=True)


def read_mask(masks: np.ndarray) -> np.ndarray:
    assert masks.shape[1:] == (1, 8, 8)
    assert masks.dtype == np.float32
    return masks[:, 0, 0, :K].argmax(axis=1)


def test_masks_that_show_their_label(telling: Generator) -> None:
    shape = independent(telling)[0]
    found = cgnrt.audit(shape_of, telling, N, mask_classifier=read_mask)
    assert found.masks is not None
    assert found.masks.shown.count == N
    assert counts(found.masks.by_class) == np.bincount(shape).tolist()
    # A classifier that never sees class 2, and a reader that takes class 0 for class 1.
    blind = lambda images: np.minimum(shape_of(images), 1)  # noqa: E731
    found = cgnrt.audit(
        blind, telling, N, mask_classifier=lambda masks: np.maximum(read_mask(masks), 1), batch_size=7
    )
    seen = np.bincount(shape)
    assert found.masks is not None
    assert counts(found.masks.by_class) == [0, seen[1], seen[2]]
    assert (found.masks.shown.count, found.masks.shown.n) == (seen[1] + seen[2], N)
    assert (found.masks.follows.count, found.masks.follows.n) == (seen[1], seen[1] + seen[2])
    assert "masks that show their label: " in str(found)
    assert "masks that show their label, each class:\n  shape 0: 0.0 %" in str(found)
    assert Audit.from_json(found.to_json()) == found
    assert cgnrt.audit(blind, telling, N).masks is None


def test_a_module_reads_masks_whatever_the_classifier_takes(telling: Generator) -> None:
    class Reader(torch.nn.Module):
        def forward(self, masks: torch.Tensor) -> torch.Tensor:
            assert not self.training
            return masks[:, 0, 0, :K]

    reader = Reader()
    found = cgnrt.audit(shape_of, telling, 50, mask_classifier=reader)
    assert found.masks is not None
    assert found.masks.shown.count == 50
    assert reader.training
    assert cgnrt.audit(Cues(), telling, 50, mask_classifier=read_mask).masks is not None


def test_bad_mask_classifiers(telling: Generator) -> None:
    with pytest.raises(TypeError, match="mask_classifier is str, expected a callable"):
        cgnrt.audit(shape_of, telling, 10, mask_classifier="digits")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"labels of the mask_classifier are 3\.\.3, expected 0\.\.2"):
        cgnrt.audit(shape_of, telling, 10, mask_classifier=lambda masks: np.full(len(masks), 3))


def test_batches_bound_the_memory(telling: Generator) -> None:
    sizes: list[int] = []

    def count(images: np.ndarray) -> np.ndarray:
        sizes.append(len(images))
        assert images.dtype == np.float32
        assert images.shape[1:] == (3, 8, 8)
        return np.zeros(len(images), np.uint8)

    cgnrt.audit(count, telling, 25, batch_size=10)
    assert sizes == [10] * 10 + [5] * 5


def test_a_background_without_looks_shows_no_change(make_golden: ModuleType, tmp_path: Path) -> None:
    path = write_telling_plan(make_golden, tmp_path / "blind.plan", blind=("background",))
    found = cgnrt.audit(background_of, path, N)
    assert counts(found.changes) == [0, 0, 0]


def test_the_plan_may_be_a_path_a_plan_or_a_generator(telling: Generator) -> None:
    expected = cgnrt.audit(shape_of, telling, 10)
    assert cgnrt.audit(shape_of, str(telling.plan.path), 10) == expected
    assert cgnrt.audit(shape_of, telling.plan, 10) == expected


def test_a_generator_hands_out_its_own_form(telling: Generator) -> None:
    def read(images: np.ndarray) -> np.ndarray:
        assert images.dtype == np.uint8
        assert images.shape[1:] == (8, 8, 3)
        return shape_of(images.transpose(0, 3, 1, 2))

    assert (
        cgnrt.audit(read, Generator(telling.plan.path, dtype="uint8", layout="NHWC"), N).follows.shape.count
        == N
    )


class Cues(torch.nn.Module):
    """Logits that follow the texture, in the given type."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.levels = torch.nn.Parameter(torch.tanh(torch.tensor(LEVELS)).to(dtype))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return -(images[:, 0, 5, 5, None].to(self.levels.dtype) - self.levels).abs()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_torch_classifier(telling: Generator, dtype: torch.dtype) -> None:
    expected = cgnrt.audit(texture_of, telling, N)
    module = Cues(dtype).eval()
    assert cgnrt.audit(module, telling, N, inputs="torch") == expected
    # With a gradient, from NumPy images: a tensor is taken all the same.
    assert cgnrt.audit(lambda images: module(torch.from_numpy(images)), telling, N) == expected
    with pytest.raises(ValueError, match=r"module in training mode, .* Call classifier\.eval\(\)"):
        cgnrt.audit(module.train(), telling, N, inputs="numpy")


def test_a_module_is_asked_in_evaluation_mode_and_put_back(telling: Generator) -> None:
    expected = cgnrt.audit(texture_of, telling, N)
    frozen = torch.nn.BatchNorm2d(3).eval()  # a part that its owner keeps in evaluation mode
    module = torch.nn.Sequential(frozen, torch.nn.Dropout(0.9), Cues()).train()
    frozen.eval()
    assert cgnrt.audit(module, telling, N) == expected
    assert [part.training for part in module.modules()] == [True, False, True, True]
    assert frozen.num_batches_tracked == 0
    with pytest.raises(ValueError, match="number of logits of the classifier is 8, expected 3"):
        cgnrt.audit(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 8)).train(), telling, N)


def test_a_module_gets_images_on_its_device(telling: Generator) -> None:
    places: list[str] = []

    class Elsewhere(torch.nn.Linear):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            places.append(str(images.device))
            assert not torch.is_grad_enabled()
            return torch.zeros(len(images), K)

    cgnrt.audit(Elsewhere(1, 1, device="meta"), telling, 20, batch_size=20)
    assert places == ["meta"] * 6


def test_a_module_of_another_picture_size_fails_before_the_work(telling: Generator) -> None:
    sizes: list[int] = []
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, K)).train()
    module.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    with pytest.raises(RuntimeError, match="cannot be multiplied") as caught:
        cgnrt.audit(module, telling, N)
    assert sizes == [1]
    assert module.training
    asked, note = caught.value.__notes__
    assert "was asked about torch.float32 of shape (1, 3, 8, 8)" in asked
    assert re.search(
        r"was given images \(1, 3, 8, 8\) float32 of '.*telling\.plan'\. .* pass Generator", note
    )


def test_torch_is_asked_for_and_missing(telling: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    message = r"audit, inputs 'torch': package 'torch' is not installed\. Run: pip install 'cgnrt\[torch\]'"
    with pytest.raises(MissingDependencyError, match=message):
        cgnrt.audit(shape_of, telling, N, inputs="torch")
    assert cgnrt.audit(shape_of, telling, N).follows.shape.count == N


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            lambda m: np.zeros((m, 10)),
            "number of logits of the classifier is 10, expected 3, the classes of the plan",
        ),
        (
            lambda m: np.zeros((m - 1, K)),
            r"has shape \(9, 3\), expected logits \(10, 3\) or integer labels \(10,\)",
        ),
        (lambda m: np.zeros((m, K, 1)), r"has shape \(10, 3, 1\)"),
        (lambda m: 1, r"has shape \(\)"),
        (lambda m: None, "is NoneType, expected an array"),
        (lambda m: [[0], [0, 1]] * 5, r"is list \(.*expected an array"),
        (lambda m: np.zeros(m), r"is float64 \(10,\), expected"),
        (lambda m: np.zeros((m, K), complex), "is complex128, expected"),
        (lambda m: np.arange(m), r"labels of the classifier are 0\.\.9, expected 0\.\.2"),
        (lambda m: np.arange(m) % K - 1, r"labels of the classifier are -1\.\.1, expected 0\.\.2"),
        (
            lambda m: np.diag([np.nan] * m)[:, :K] + np.eye(m)[:, :K],
            "of the classifier for image 0 .* NaN",
        ),
        (lambda m: np.full((m, K), np.nan), "for image 0 of a batch are NaN"),
        (lambda m: np.full((m, K), -np.inf), "for image 0 of a batch are all -inf"),
        (lambda m: np.full((m, K), -np.inf, np.float16), "for image 0 of a batch are all -inf"),
        (
            lambda m: np.where(np.arange(m) == 4, -np.inf, 0)[:, None] * np.ones(K),
            "for image 4 .* all -inf",
        ),
    ],
)
def test_answers_that_are_none(telling: Generator, answer: Callable[[int], Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=f"^audit: .*{message}"):
        cgnrt.audit(lambda images: answer(len(images)), telling, 10)


def test_infinite_logits_are_numbers(telling: Generator) -> None:
    def certain(images: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore"):
            return np.log(np.eye(K)[shape_of(images)])

    assert cgnrt.audit(certain, telling, N).follows.shape.count == N


def test_what_the_classifier_raises_goes_through(telling: Generator) -> None:
    class OwnError(Exception):
        pass

    own = OwnError("out of order")

    def fail(images: np.ndarray) -> np.ndarray:
        raise own

    with pytest.raises(OwnError) as caught:
        cgnrt.audit(fail, telling, 10)
    assert caught.value is own


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "n is 0, expected at least 1"),
        ({"n": -1}, "n is -1, expected at least 1"),
        ({"n": 2.0}, r"n is 2\.0, expected an int"),
        ({"batch_size": 0}, "batch_size is 0, expected at least 1"),
        ({"confidence": 1.0}, r"confidence is 1\.0, expected a number between 0 and 1"),
        ({"confidence": math.nan}, "confidence is nan"),
        ({"inputs": "jax"}, "inputs is 'jax', expected 'numpy' or 'torch'"),
        ({"classifier": "model"}, "classifier is str, expected a callable"),
        ({"seed": -1}, r"seed is -1, expected 0\.\."),
        ({"truncation": 0.5}, "this plan has no truncation"),
    ],
)
def test_bad_arguments(telling: Generator, options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        cgnrt.audit(**{"classifier": shape_of, "plan": telling, "n": 10} | options)


def test_mechanisms_of_different_classes(make_golden: ModuleType, tmp_path: Path) -> None:
    path = write_telling_plan(make_golden, tmp_path / "two.plan", classes={"texture": 2})
    with pytest.raises(
        ValueError, match="classes are shape 3, texture 2, background 3, expected the same number"
    ):
        cgnrt.audit(shape_of, path, 10)
    alone = dict.fromkeys(("shape", "texture", "background"), 1)
    path = write_telling_plan(make_golden, tmp_path / "one.plan", classes=alone)
    with pytest.raises(ValueError, match="at least 2"):
        cgnrt.audit(shape_of, path, 10)
