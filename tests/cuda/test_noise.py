"""The noise on a device, bit by bit that of the scalar reference, and the steps on rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from device_arrays import ByDlpack, ByInterface, array_of, shifted_array_of
from module_ops import ModuleOps, core

from cgnrt import cuda, ops

GOLDEN: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "ops" / "noise_golden.json").read_text()
)
KINDS = ["normal", "truncated_normal", "integers"]
INDICES = np.concatenate([np.arange(37), [2**32 - 1, 2**32, 2**63 - 1, -1, -(2**63)]])


def arguments(kind: str, indices: Any, size: int) -> tuple[Any, ...]:
    if kind == "integers":
        return (123, indices, 4, [3 + 7 * e for e in range(size)] or 1, size)
    return (123, indices, 4, size)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 31, 32, 64])
def test_the_bits_are_the_references(device_module: ModuleType, kind: str, size: int) -> None:
    expected = getattr(core, kind)(*arguments(kind, INDICES, size), implementation="reference")
    for shift in (0, 1):
        indices = shifted_array_of(INDICES, shift, cuda.Stream(0))
        got = getattr(ModuleOps(device_module), kind)(*arguments(kind, indices, size)).numpy()
        assert got.shape == expected.shape
        np.testing.assert_array_equal(got.view(np.uint32), expected.view(np.uint32))


@pytest.mark.parametrize("kind", ["normal", "truncated_normal"])
def test_many_numbers(device_module: ModuleType, kind: str) -> None:
    """More blocks of four than the emulated device takes at once, and words from everywhere."""
    indices = np.arange(1100)
    expected = getattr(core, kind)(9, indices, 2, 1024)
    got = getattr(ModuleOps(device_module), kind)(9, array_of(indices, cuda.Stream(0)), 2, 1024).numpy()
    np.testing.assert_array_equal(got.view(np.uint32), expected.view(np.uint32))


def test_golden_draws(device_module: ModuleType) -> None:
    stream = cuda.Stream(0)
    for draw in GOLDEN:
        indices = array_of(np.array([draw["index"]]), stream)
        key, size = (draw["seed"], indices, draw["slot"]), len(draw["words"])
        words = ModuleOps(device_module).philox(*key, 2).numpy()[0, :size]
        assert [f"{word:08x}" for word in words] == draw["words"]
        for kind in ("normal", "truncated_normal"):
            drawn = getattr(ModuleOps(device_module), kind)(*key, size).numpy()[0]
            assert [f"{bits:08x}" for bits in drawn.view(np.uint32)] == draw[kind]
        for bound in (10, 1000):
            drawn = ModuleOps(device_module).integers(*key, bound, size).numpy()[0]
            assert drawn.tolist() == draw[f"integers_below_{bound}"]


def test_out_and_streams(device_module: ModuleType) -> None:
    producer, consumer = cuda.Stream(0), cuda.Stream(0)
    expected = core.normal(5, INDICES, 3, 6)
    for form in (lambda array: array, ByDlpack, ByInterface):
        indices = form(array_of(INDICES, producer))
        for shift in (0, 1):
            array = shifted_array_of(np.zeros_like(expected), shift, producer)
            out = form(array)
            assert ops.normal(5, indices, 3, 6, out=out, stream=consumer) is out
            producer.wait_for(consumer)  # the array interface has no way to say it
            np.testing.assert_array_equal(array.numpy(), expected)
    drawn = ops.truncated_normal(5, array_of(INDICES, producer), 3, 6, stream=consumer)
    assert drawn.stream.ptr == consumer.ptr
    np.testing.assert_array_equal(drawn.numpy(), core.truncated_normal(5, INDICES, 3, 6))


def test_no_samples(device_module: ModuleType) -> None:
    none = array_of(np.zeros(0, np.int64), cuda.Stream(0))
    assert ModuleOps(device_module).normal(0, none, 0, 32).shape == (0, 32)
    assert ModuleOps(device_module).truncated_normal(0, none, 0, 32).shape == (0, 32)
    assert ModuleOps(device_module).integers(0, none, 0, 10).shape == (0, 1)
    assert ModuleOps(device_module).philox(0, none, 0, 2).shape == (0, 8)
    some = array_of(np.arange(3), cuda.Stream(0))
    assert ModuleOps(device_module).integers(0, some, 0, [], 0).shape == (3, 0)


@pytest.mark.parametrize("columns", [1, 3, 4, 128])
@pytest.mark.parametrize("shift", [0, 1])
def test_rows_of_a_table(device_module: ModuleType, columns: int, shift: int) -> None:
    stream = cuda.Stream(0)
    rng = np.random.default_rng(0)
    table = rng.random((7, columns), dtype=np.float32)
    index = rng.integers(0, 7, 20)
    expected = table[index]
    for row, wrong in {2: -1, 5: 7, 6: -(2**63), 9: 2**32}.items():
        index[row] = wrong
        expected[row] = np.nan
    given = shifted_array_of(table, shift, stream), array_of(index, stream)
    np.testing.assert_array_equal(device_module.gather_rows(*given).numpy(), expected)
    out = shifted_array_of(np.zeros_like(expected), shift, stream)
    assert device_module.gather_rows(*given, out=out) is out
    np.testing.assert_array_equal(out.numpy(), expected)
    assert device_module.gather_rows(given[0], given[1][:0]).shape == (0, columns)


@pytest.mark.parametrize("columns", [1, 3, 4, 128])
@pytest.mark.parametrize("shift", [0, 1])
def test_rows_times_factors(device_module: ModuleType, columns: int, shift: int) -> None:
    stream = cuda.Stream(0)
    rng = np.random.default_rng(0)
    values, factors = rng.standard_normal((9, columns), np.float32), rng.random(9, np.float32)
    given = shifted_array_of(values, shift, stream), array_of(factors, stream)
    expected = values * factors[:, None]
    np.testing.assert_array_equal(device_module.scale_rows(*given).numpy(), expected)
    assert device_module.scale_rows(*given, out=given[0]) is given[0]
    np.testing.assert_array_equal(given[0].numpy(), expected)
    assert device_module.scale_rows(given[0][:0], given[1][:0]).shape == (0, columns)


def test_what_is_refused(emulated: ModuleType) -> None:
    stream, other = cuda.Stream(0), cuda.Stream(1)
    some = array_of(np.arange(3), stream)
    away = array_of(np.arange(3), other)
    floats = array_of(np.ones((3, 4), np.float32), stream)
    factors = array_of(np.ones(3, np.float32), stream)
    host = ByInterface(some, data=(INDICES.ctypes.data, False))
    noise = ModuleOps(emulated)
    cases: list[tuple[Callable[[], Any], type[Exception], str]] = [
        (lambda: noise.normal(-1, some, 0, 4), ValueError, "normal seed: seed is -1, expected 0..2"),
        (lambda: noise.normal(0, np.arange(3), 0, 4), ValueError, "normal indices: device is cpu, expected a CUDA"),
        (lambda: noise.normal(0, host, 0, 4), ValueError, "normal indices: address is that of host memory"),
        (lambda: noise.normal(0, factors, 0, 4), ValueError, "normal indices: dtype is float32, expected int64"),
        (lambda: noise.normal(0, some, 0, 4, stream=other), ValueError, "normal stream: device is cuda:1, expected"),
        (lambda: noise.normal(0, away, 0, 4, out=floats), ValueError, "normal out: device is cuda:0, expected"),
        (lambda: noise.normal(0, some, 0, 5, out=floats), ValueError, r"normal out: shape is \(3, 4\), expected"),
        (lambda: noise.normal(0, some, 0, 4, out=some), ValueError, "normal out: dtype is int64, expected float32"),
        (lambda: noise.integers(0, some, 0, 0), ValueError, "integers bound: bound is 0, expected 1..2147483648"),
        (lambda: noise.integers(0, some, 0, [5] * 65, 65), ValueError,
         "integers bound: length is 65, expected at most 64 on a GPU. Draw on the CPU."),
        (lambda: noise.integers(0, some, 0, [5, 6], 3), ValueError, "integers bound: length is 2, expected 3"),
        (lambda: noise.philox(0, some, 0, -1), ValueError, "philox blocks: blocks is -1, expected 0.."),
        (lambda: emulated.gather_rows(some, some), ValueError, "gather_rows table: dtype is int64, expected float32"),
        (lambda: emulated.gather_rows(factors, some), ValueError,
         r"gather_rows table: shape is \(3,\), expected \(rows, columns\)"),
        (lambda: emulated.gather_rows(floats, away), ValueError, "gather_rows index: device is cuda:1, expected"),
        (lambda: emulated.gather_rows(floats, some, out=floats), ValueError, "gather_rows out: memory is shared"),
        (lambda: emulated.scale_rows(floats, factors[1:]), ValueError,
         "scale_rows factors: length is 2, expected 3, one for each row"),
        (lambda: emulated.scale_rows(floats[1:], factors[1:], out=floats[:2]), ValueError,
         "scale_rows out: memory is shared with values"),
    ]  # fmt: skip
    for call, error, message in cases:
        with pytest.raises(error, match=message):
            call()
    assert (floats.numpy() == 1).all()


def test_numbers_beyond_the_memory(emulated: ModuleType) -> None:
    with pytest.raises(MemoryError, match="51539607540 bytes are wanted"):
        ModuleOps(emulated).normal(0, array_of(np.arange(3), cuda.Stream(0)), 0, 2**32 - 1)
