"""The noise: known answers, golden draws, every variant bit by bit, accuracy and statistics."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from statistics import NormalDist
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from module_ops import core

from cgnrt import ops

KINDS: dict[str, Callable[..., Any]] = {
    "normal": core.normal,
    "truncated_normal": core.truncated_normal,
    "integers": lambda seed, indices, slot, size, **options: core.integers(
        seed, indices, slot, [3 + 7 * e for e in range(size)] or 1, size, **options
    ),
}
# Random123's known answers for philox4x32-10: counter, key, result.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def numbers(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_the_reference_gives_the_known_answers(
    noise_reference: ModuleType, counter: str, key: str, answer: str
) -> None:
    assert noise_reference.philox(numbers(counter), numbers(key)) == numbers(answer)


def test_philox_gives_the_known_answer(implementation: str) -> None:
    words = core.philox(0, np.zeros(1, np.int64), 0, 1, implementation=implementation)
    assert words.tolist() == [numbers(KNOWN_ANSWERS[0][2])]


def test_philox_equals_the_reference(noise_reference: ModuleType, implementation: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        seed, slot = int(rng.integers(0, 2**64, dtype=np.uint64)), int(rng.integers(0, 2**32))
        indices = rng.integers(0, 2**63, 3)
        got = core.philox(seed, indices, slot, 5, implementation=implementation)
        expected = [noise_reference.words(seed, int(i), slot, 20) for i in indices]
        np.testing.assert_array_equal(got, expected)


def test_golden_draws(noise_reference: ModuleType, implementation: str) -> None:
    draws = json.loads(noise_reference.GOLDEN.read_text())
    assert noise_reference.golden() == draws
    for draw in draws:
        key, size = (draw["seed"], np.array([draw["index"]]), draw["slot"]), len(draw["words"])
        options = {"implementation": implementation}
        words = core.philox(*key, 2, **options)[0, :size]
        assert [f"{word:08x}" for word in words] == draw["words"]
        for kind in ("normal", "truncated_normal"):
            drawn = getattr(core, kind)(*key, size, **options)[0]
            assert [f"{bits:08x}" for bits in drawn.view(np.uint32)] == draw[kind]
        for bound in (10, 1000):
            assert core.integers(*key, bound, size, **options)[0].tolist() == draw[f"integers_below_{bound}"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 31, 32, 64, 65, 130])
def test_every_variant_gives_the_same_bits(kind: str, size: int, implementation: str) -> None:
    indices = np.concatenate([np.arange(37), [2**32 - 1, 2**32, 2**63 - 1]])
    got = KINDS[kind](123, indices, 4, size, implementation=implementation)
    assert got.shape == (40, size)
    expected = KINDS[kind](123, indices, 4, size, implementation="reference")
    np.testing.assert_array_equal(got.view(np.uint32), expected.view(np.uint32))


@pytest.mark.parametrize("kind", ["normal", "truncated_normal"])
def test_numbers_equal_the_reference(noise_reference: ModuleType, kind: str, implementation: str) -> None:
    words = core.philox(9, np.arange(500), 2, 64)
    got = getattr(core, kind)(9, np.arange(500), 2, 256, implementation=implementation)
    expected = getattr(noise_reference, kind)(words)
    np.testing.assert_array_equal(got.view(np.uint32), expected.view(np.uint32))


def test_a_draw_depends_on_its_own_counter_alone() -> None:
    whole = ops.normal(5, np.arange(1000), 3, 33)
    some = np.array([999, 0, 17, 17, 500])
    np.testing.assert_array_equal(ops.normal(5, some, 3, 33), whole[some])
    np.testing.assert_array_equal(ops.normal(5, some, 3, 7), whole[some, :7])
    large = ops.normal(5, np.arange(100_000), 3, 33)  # on several threads
    np.testing.assert_array_equal(large[:1000], whole)
    for other in (ops.normal(6, np.arange(1000), 3, 33), ops.normal(5, np.arange(1000), 4, 33)):
        assert (other != whole).mean() > 0.99


# Words at the ends, in the middle, and on both sides of the seam between the polynomials.
EDGES = np.array([0, 1, 2, 3, 2**29 - 1, 2**29, 2**29 + 1, 2**31 - 2, 2**31 - 1], np.uint32)


def quantiles(words: npt.NDArray[np.uint32], low: float, high: float) -> npt.NDArray[np.float64]:
    inverse = NormalDist().inv_cdf
    return np.array([inverse(low + (int(w) + 0.5) / 2**32 * (high - low)) for w in words])


@pytest.mark.parametrize(("kind", "limit"), [("normal", math.inf), ("truncated_normal", 2.0)])
def test_accuracy(noise_reference: ModuleType, kind: str, limit: float) -> None:
    spread = np.unique(np.concatenate([EDGES, np.linspace(0, 2**31 - 1, 20_001), 2.0 ** np.arange(31)]))
    words = spread.astype(np.uint32)
    z = getattr(noise_reference, kind)(words)
    low = 0.0 if limit == math.inf else NormalDist().cdf(-limit)
    expected = quantiles(words, low, 1 - low)
    assert np.abs(z - expected).max() < 1.2e-6
    assert np.abs(z / expected - 1).max() < 4e-7
    assert (np.diff(z) >= 0).all()
    assert np.isfinite(z).all()
    np.testing.assert_array_equal(getattr(noise_reference, kind)(~words), -z)
    assert np.abs(z).max() <= min(limit, 6.34)


def test_the_curve_rises_across_neighbouring_words(noise_reference: ModuleType) -> None:
    for kind in (noise_reference.normal, noise_reference.truncated_normal):
        for start in (0, 2**20, 2**29 - 5000, 2**30, 2**31 - 5000):
            z = kind((start + np.arange(10_000)).astype(np.uint32))
            assert (np.diff(z) >= 0).all()


def kolmogorov(sample: npt.NDArray[np.float32], cdf: Callable[[float], float]) -> float:
    ordered = np.sort(sample.reshape(-1))
    expected = np.array([cdf(float(x)) for x in ordered])
    steps = np.arange(len(ordered) + 1) / len(ordered)
    return float(max((steps[1:] - expected).max(), (expected - steps[:-1]).max()))


def test_statistics_of_the_normal() -> None:
    z = ops.normal(2026, np.arange(20_000), 0, 32)
    count = z.size
    assert abs(z.mean()) < 5 / math.sqrt(count)
    assert abs(z.var() - 1) < 5 * math.sqrt(2 / count)
    assert abs((z.astype(np.float64) ** 3).mean()) < 5 * math.sqrt(15 / count)
    assert abs((z.astype(np.float64) ** 4).mean() - 3) < 5 * math.sqrt(96 / count)
    assert kolmogorov(z[:1000], NormalDist().cdf) < 1.95 / math.sqrt(32_000)  # p = 0.001
    correlations = np.corrcoef(z.T) - np.eye(32)
    assert np.abs(correlations).max() < 5 / math.sqrt(20_000)
    assert abs(np.corrcoef(z[:-1].reshape(-1), z[1:].reshape(-1))[0, 1]) < 5 / math.sqrt(count)


def test_statistics_of_the_truncated_normal() -> None:
    z = ops.truncated_normal(2026, np.arange(20_000), 0, 32)
    inside = NormalDist().cdf(2) - NormalDist().cdf(-2)
    variance = 1 - 2 * 2 * NormalDist().pdf(2) / inside
    assert np.abs(z).max() <= 2
    assert abs(z.mean()) < 5 * math.sqrt(variance / z.size)
    assert abs(z.var() - variance) < 5 * math.sqrt(2 / z.size)
    low = NormalDist().cdf(-2)
    assert kolmogorov(z[:1000], lambda x: (NormalDist().cdf(x) - low) / inside) < 1.95 / math.sqrt(32_000)


@pytest.mark.parametrize("bound", [1, 2, 3, 10, 1000, 2**31])
def test_statistics_of_the_integers(bound: int) -> None:
    drawn = ops.integers(2026, np.arange(100_000), 1, bound)
    assert drawn.shape == (100_000, 1)
    assert drawn.dtype == np.int32
    assert drawn.min() >= 0
    assert drawn.max() < bound
    if bound <= 1000:
        counts = np.bincount(drawn[:, 0], minlength=bound)
        expected = 100_000 / bound
        chi2 = ((counts - expected) ** 2 / expected).sum()
        assert chi2 < bound - 1 + 5 * math.sqrt(2 * bound)


def test_bounds_of_each_number() -> None:
    words = ops.philox(8, np.arange(50), 6, 1)
    bounds = [10, 1, 500]
    got = ops.integers(8, np.arange(50), 6, bounds, 3)
    expected = (words[:, :3].astype(np.uint64) * np.array(bounds, np.uint64)) >> np.uint64(32)
    np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(ops.integers(8, np.arange(50), 6, np.array(bounds), 3), got)
    np.testing.assert_array_equal(ops.integers(8, np.arange(50), 6, np.int64(10), 3)[:, 0], got[:, 0])


def test_out_and_torch() -> None:
    expected = ops.normal(1, np.arange(6), 0, 5)
    out = np.zeros((6, 5), np.float32)
    assert ops.normal(1, np.arange(6), 0, 5, out=out) is out
    np.testing.assert_array_equal(out, expected)
    tensor = torch.zeros(6, 5)
    assert ops.normal(1, torch.arange(6), 0, 5, out=tensor) is tensor
    np.testing.assert_array_equal(tensor.numpy(), expected)
    picks = torch.zeros(6, 2, dtype=torch.int32)
    ops.integers(1, torch.arange(6), 0, 7, 2, out=picks)
    np.testing.assert_array_equal(picks.numpy(), ops.integers(1, np.arange(6), 0, 7, 2))
    frozen = np.arange(6)
    frozen.flags.writeable = False
    np.testing.assert_array_equal(ops.normal(1, frozen, 0, 5), expected)


def test_no_samples() -> None:
    none = np.zeros(0, np.int64)
    assert ops.normal(0, none, 0, 32).shape == (0, 32)
    assert ops.truncated_normal(0, none, 0, 32).shape == (0, 32)
    assert ops.integers(0, none, 0, 10).shape == (0, 1)
    assert ops.philox(0, none, 0, 2).shape == (0, 8)
    assert ops.integers(0, np.arange(3), 0, [], 0).shape == (3, 0)


SOME = np.arange(3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ops.normal(-1, SOME, 0, 4), ValueError, "normal seed: seed is -1, expected 0..2^64-1."),
        (lambda: ops.normal(2**64, SOME, 0, 4), ValueError, "normal seed: seed is 18446744073709551616, expected"),
        (lambda: ops.normal(0.5, SOME, 0, 4), TypeError, "normal seed: type is float, expected an int."),  # type: ignore[arg-type]
        (lambda: ops.normal(0, SOME, -1, 4), ValueError, "normal slot: slot is -1, expected 0..4294967295."),
        (lambda: ops.normal(0, SOME, 2**32, 4), ValueError, "normal slot: slot is 4294967296, expected"),
        (lambda: ops.normal(0, SOME, 0, -4), ValueError, "normal size: size is -4, expected 0.."),
        (lambda: ops.normal(0, [0, 1], 0, 4), TypeError, "normal indices: type is list, expected a tensor"),
        (lambda: ops.normal(0, SOME.astype(np.int32), 0, 4), ValueError,
         "normal indices: dtype is int32, expected int64."),
        (lambda: ops.normal(0, SOME[None], 0, 4), ValueError, "normal indices: shape is (1, 3), expected (n,)."),
        (lambda: ops.normal(0, np.arange(6)[::2], 0, 4), ValueError, "normal indices: memory layout is strided"),
        (lambda: ops.integers(0, SOME, 0, 0), ValueError, "integers bound: bound is 0, expected 1..2147483648."),
        (lambda: ops.integers(0, SOME, 0, 2**31 + 1), ValueError, "integers bound: bound is 2147483649, expected"),
        (lambda: ops.integers(0, SOME, 0, [3, -1], 2), ValueError, "integers bound: bound is -1, expected"),
        (lambda: ops.integers(0, SOME, 0, [3, 4, 5], 2), ValueError,
         "integers bound: length is 3, expected 2, one for each number."),
        (lambda: ops.integers(0, SOME, 0, 1.5), TypeError, "integers bound: type is float, expected an int."),  # type: ignore[arg-type]
        (lambda: ops.philox(0, SOME, 0, -1), ValueError, "philox blocks: blocks is -1, expected 0.."),
        (lambda: ops.normal(0, SOME, 0, 4, out=np.zeros((3, 5), np.float32)), ValueError,
         "normal out: shape is (3, 5), expected (3, 4)."),
        (lambda: ops.normal(0, SOME, 0, 4, out=np.zeros((3, 4))), ValueError,
         "normal out: dtype is float64, expected float32."),
        (lambda: core.normal(0, SOME, 0, 4, implementation="fast"), ValueError,
         "is 'fast', expected one of 'auto', 'reference'"),
    ],
)  # fmt: skip
def test_bad_arguments_are_named(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        call()


def test_sizes_beyond_memory() -> None:
    with pytest.raises(MemoryError):
        ops.normal(0, np.zeros(1 << 20, np.int64), 0, 2**32 - 1)
