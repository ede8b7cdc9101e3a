"""`Generator.batches`: what one `sample` call gives, cut up, in the memory of one batch."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cgnrt import Batch, Generator
from cgnrt.render import pools

FIELDS = ("images", "indices", "index", "mask", "foreground", "background")


@pytest.fixture(scope="module")
def demo(demo_plan: Path) -> Generator:
    """The native engine, which computes each image by itself: to the last bit the same however it is asked for."""
    return Generator(demo_plan, backend="native")


def assert_same(parts: Sequence[Batch], whole: Batch) -> None:
    for name in FIELDS:
        if getattr(whole, name) is None:
            assert all(getattr(part, name) is None for part in parts)
        else:
            np.testing.assert_array_equal(
                np.concatenate([getattr(part, name) for part in parts]), getattr(whole, name)
            )
    for field in ("labels", "noise"):
        for mine, its in zip(joined(parts, field), getattr(whole, field), strict=True):
            np.testing.assert_array_equal(mine, its)
    assert {part.seed for part in parts} == {whole.seed}


def joined(parts: Sequence[Batch], field: str) -> list[np.ndarray]:
    return [np.concatenate(columns) for columns in zip(*(getattr(p, field) for p in parts), strict=True)]


@pytest.mark.parametrize("batch_size", [1, 7, 23, 100])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"parts": True, "start": 5, "do": {"shape": 3}},
        {"pool": (6, 5, 4), "parts": True, "start": 11},
        {"per_noise": 3, "hold": "all", "classes": {"texture": [1, 4]}},
        {"labels": "shared", "shared_noise": False},
    ],
)
def test_batches_are_one_sample_cut_up(demo: Generator, batch_size: int, options: dict[str, Any]) -> None:
    parts = list(demo.batches(23, batch_size, seed=4, **options))
    assert [len(part) for part in parts] == [min(batch_size, 23 - k) for k in range(0, 23, batch_size)]
    assert_same(parts, demo.sample(23, seed=4, **options))


def test_what_has_a_row_for_each_sample_is_cut_up(demo: Generator) -> None:
    indices = np.array([5, 0, -3, 5, 99, 7, 1], np.int64)
    parts = list(demo.batches(None, 3, seed=4, indices=indices))
    assert_same(parts, demo.sample(indices=indices, seed=4))
    noise = demo.sample(7, seed=9).noise
    for given in (noise, (noise.shape, None, noise.background), tuple(noise)[:3]):
        assert_same(list(demo.batches(7, 3, seed=4, noise=given)), demo.sample(7, seed=4, noise=given))


def test_truncation_may_be_one_or_one_for_each(imagenet_like: Path) -> None:
    gen = Generator(imagenet_like)
    each = np.linspace(0.1, 1, 7)
    for truncation in (0.3, each, list(each)):
        parts = [b.pre_mask for b in gen.batches(7, 3, seed=4, truncation=truncation, parts=True)]
        whole = gen.sample(7, seed=4, truncation=truncation, parts=True).pre_mask
        np.testing.assert_allclose(np.concatenate(parts), whole, atol=2e-4)


def test_a_batch_is_rendered_when_it_is_asked_for(demo: Generator) -> None:
    """Far more samples than there is memory for."""
    first, second = itertools.islice(demo.batches(10**13, 4, seed=1, start=2), 2)
    assert_same([first, second], demo.sample(8, seed=1, start=2))
    last = next(demo.batches(2**63 - 1, 2, seed=1))
    assert last.indices.tolist() == [0, 1]


def test_images_go_to_the_memory_that_is_given(demo: Generator) -> None:
    out = np.empty((5, 3, 32, 32), np.float32)
    whole = demo.sample(12, seed=1).images
    seen = 0
    for batch in demo.batches(12, 5, seed=1, out=out):
        assert np.shares_memory(batch.images, out)
        np.testing.assert_array_equal(batch.images, whole[seen : seen + len(batch)])
        seen += len(batch)
    assert seen == 12
    small = np.empty((2, 3, 32, 32), np.float32)  # all that two samples need
    assert len(list(demo.batches(2, 5, seed=1, out=small))) == 1


def test_without_a_seed_one_is_drawn_for_all(demo: Generator) -> None:
    parts = list(demo.batches(6, 2))
    assert_same(parts, demo.sample(6, seed=parts[0].seed))
    assert next(demo.batches(6, 2)).seed != parts[0].seed


def test_no_samples_are_no_batches(demo: Generator) -> None:
    assert list(demo.batches(0, 4, seed=1)) == []
    assert list(demo.batches(None, 4, seed=1, indices=[])) == []


def test_a_pool_is_built_once(demo: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    built = []
    prepare = pools.Pool.prepare

    def spy(*arguments: Any, **options: Any) -> None:
        built.append(arguments)
        prepare(*arguments, **options)

    monkeypatch.setattr(pools.Pool, "prepare", spy)
    stream = demo.batches(20, 4, seed=77, pool=3)
    assert not built  # checking the arguments draws nothing
    assert len(list(stream)) == 5
    assert len(built) == 1


U = np.zeros((4, 16), np.float32)


@pytest.mark.parametrize(
    ("error", "options", "message"),
    [
        (ValueError, {"batch_size": 0}, r"batch_size is 0, expected at least 1"),
        (TypeError, {"batch_size": 2.5}, r"batch_size is 2\.5, expected an int"),
        (ValueError, {"n": -1}, r"n is -1, expected 0 or more"),
        (TypeError, {"n": None}, r"n is None, expected an int"),
        (ValueError, {"start": 2**63 - 2}, r"start \+ n is .*, expected at most"),
        (ValueError, {"indices": [1, 2], "n": 3}, r"n is 3 beside 2 indices"),
        (ValueError, {"seed": -1}, r"seed is -1, expected"),
        (ValueError, {"do": {"shape": 10}}, r"do\['shape'\] is 10, expected 0\.\.9"),
        (ValueError, {"labels": "both"}, r"labels is 'both', expected"),
        (ValueError, {"pool": (1, 2)}, r"pool is \(1, 2\), expected three sizes"),
        (ValueError, {"pool": 2, "per_noise": 2}, r"per_noise is set beside a pool"),
        (ValueError, {"truncation": 0.5}, r"truncation is given, but this plan has no truncation"),
        (ValueError, {"truncation": [0.5] * 4}, r"truncation is given, but this plan has no truncation"),
        (ValueError, {"noise": (U, U)}, r"noise has 2 parts, expected 3 or 4"),
        (ValueError, {"noise": (U[:3], U, U)}, r"noise of shape is float32 \(3, 16\), expected"),
        (ValueError, {"out": np.empty((1, 3, 32, 32), np.float32)}, r"out is .*, expected room for 2 images"),
        (ValueError, {"out": 5}, r"out is 5, expected room for 2 images"),
        (ValueError, {"out": np.empty((2, 3, 8, 8), np.float32)}, r"out is \(0, 3, 8, 8\), expected shape"),
        (Exception, {"out": np.empty((2, 3, 32, 32))}, r"out.*float64"),
        (TypeError, {"colour": 5}, r"option is 'colour', expected one of classes, distinct, do, hold,"),
    ],
)
def test_bad_arguments_are_told_before_the_first_batch(
    demo: Generator, error: type[Exception], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(error, match=message):
        demo.batches(**{"n": 4, "batch_size": 2, "seed": 0, **options})
