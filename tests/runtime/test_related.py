"""Images of the same noise: those of calls, to the last bit, with no network run twice for one label."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cgnrt
from cgnrt import Generator, Labels
from cgnrt.render.host import HostDevice

from .conftest import EnginePlan

WHERE = np.array([4, 0, 7, -2, 4, 9])


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each mechanism has run."""
    counted: Counter[str] = Counter()
    run = HostDevice.run

    def spy(self: HostDevice, name: str, *inputs: Any) -> dict[str, np.ndarray]:
        counted[name] += 1
        return run(self, name, *inputs)

    monkeypatch.setattr(HostDevice, "run", spy)
    return counted


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_each_is_what_a_call_gives(engine_plan: EnginePlan, runs: Counter[str], dtype: str) -> None:
    gen = Generator(engine_plan.plan, backend=engine_plan.backend, threads=1, dtype=dtype)
    related = gen.related(seed=3, indices=WHERE)
    drawn, agreeing = (gen.sample(indices=WHERE, seed=3, labels=kind) for kind in ("independent", "shared"))  # type: ignore[arg-type]
    labels = [related.labels]
    labels += [
        labels[0]._replace(**{name: (column + 1) % 3}) for name, column in related.labels._asdict().items()
    ]
    labels.append(related.shared_labels)
    expected = [drawn, *(gen(*changed, indices=WHERE, seed=3) for changed in labels[1:4]), agreeing]
    runs.clear()
    found = related.render(labels)
    assert runs == {"shape": 2, "texture": 3, "background": 3}
    for mine, its in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mine.images, its.images)
        for a, b in zip((*mine.labels, *mine.noise), (*its.labels, *its.noise), strict=True):
            np.testing.assert_array_equal(a, b)
        assert (mine.seed, mine.indices.tolist()) == (3, WHERE.tolist())


def test_the_first_has_its_parts(golden_plan: Path) -> None:
    gen = Generator(golden_plan, backend="openvino", threads=1)
    related = gen.related(seed=3, indices=WHERE, distinct=True)
    first, second = related.render([related.labels, related.shared_labels], parts=True)
    expected = gen.sample(indices=WHERE, seed=3, distinct=True, parts=True)
    np.testing.assert_array_equal(related.labels, expected.labels)
    for name in ("images", "mask", "foreground", "background"):
        np.testing.assert_array_equal(getattr(first, name), getattr(expected, name))
    assert (second.mask, second.foreground) == (None, None)


def test_truncation_is_that_of_a_call(imagenet_like: Path) -> None:
    gen = Generator(imagenet_like, threads=1)
    found = gen.related(seed=3, indices=WHERE, truncation=0.3)
    np.testing.assert_array_equal(
        found.render([found.labels])[0].images, gen.sample(indices=WHERE, seed=3, truncation=0.3).images
    )


def test_an_audit_runs_eight_networks_for_five_images(demo_plan: Path, runs: Counter[str]) -> None:
    gen = Generator(demo_plan)
    cgnrt.audit(lambda images: np.zeros(len(images), np.int64), gen, 12, batch_size=6)
    assert runs == {"shape": 4, "texture": 6, "background": 6}


def test_none_of_them_and_none_in_them(gen: Generator) -> None:
    assert gen.related(seed=1, indices=WHERE).render([]) == []
    nothing = gen.related(seed=1, indices=[])
    (batch,) = nothing.render([nothing.labels])
    assert batch.images.shape == (0, 3, 8, 8)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (np.zeros(5, np.int64), r"labels\[1\] of texture are int64 \(5,\), expected int64 \(6,\)"),
        (np.zeros(6), r"labels\[1\] of texture are float64 \(6,\), expected int64"),
        (np.full(6, 3), r"labels\[1\] of texture are 3\.\.3, expected 0\.\.2"),
        (np.full(6, -1), r"labels\[1\] of texture are -1\.\.-1, expected 0\.\.2"),
    ],
)
def test_bad_labels(gen: Generator, column: np.ndarray, message: str) -> None:
    related = gen.related(seed=1, indices=WHERE)
    good = related.labels
    with pytest.raises(ValueError, match=message):
        related.render([good, Labels(good.shape, column, good.background)])
