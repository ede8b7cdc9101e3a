"""compose against plain NumPy and against its scalar reference, bit by bit."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from compose_cases import SPECIAL, ComposeCase, floats_of
from hypothesis import given
from hypothesis import strategies as st
from module_ops import core

from cgnrt import _core, ops


def bits(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return array.view(f"u{array.itemsize}")


@pytest.mark.parametrize("streams", [False, True])
def test_every_variant_equals_numpy(compose_case: ComposeCase, implementation: str, streams: bool) -> None:
    expected = compose_case.expected()
    batch = compose_case.run(implementation=implementation, streams=streams)
    assert batch.dtype == expected.dtype
    np.testing.assert_array_equal(batch, expected)


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_threads_change_no_bit(compose_case: ComposeCase, threads: int) -> None:
    np.testing.assert_array_equal(
        compose_case.run(threads=threads), compose_case.run(implementation="reference")
    )


def test_a_batch_beyond_the_cache(implementation: str) -> None:
    rng = np.random.default_rng(0)
    m, f, b = (rng.random((64, c, 32, 32), dtype=np.float32) for c in (1, 3, 3))
    index = rng.integers(0, 64, (4000, 3)).astype(np.int32)
    batch = core.compose(m, f, b, index, implementation=implementation)
    for start in range(0, 4000, 500):
        part = slice(start, start + 500)
        expected = m[index[part, 0]] * f[index[part, 1]]
        expected += (np.float32(1) - m[index[part, 0]]) * b[index[part, 2]]
        np.testing.assert_array_equal(batch[part], expected)


def as_mask_one(values: npt.NDArray[np.float32], **options: Any) -> npt.NDArray[Any]:
    """`values` through the op's cast: mask 1 and a background of -0 leave every value as it is."""
    pixels = values.reshape(1, 1, 1, -1)
    result: npt.NDArray[Any] = core.compose(
        np.ones_like(pixels), pixels, np.full_like(pixels, -0.0), **options
    )
    return result.reshape(-1)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "uint8"])
def test_special_values(implementation: str, dtype: str) -> None:
    values = np.tile(SPECIAL, 5)  # so that vectors and the odd rest both meet them
    got = as_mask_one(values, dtype=dtype, implementation=implementation)
    np.testing.assert_array_equal(
        bits(got), bits(as_mask_one(values, dtype=dtype, implementation="reference"))
    )
    if dtype == "uint8":
        expected = torch.tensor(np.nan_to_num(values, nan=0.0)).round().clamp(0, 255).to(torch.uint8).numpy()
        np.testing.assert_array_equal(got, expected)
    else:
        tensor = torch.tensor(values).to(getattr(torch, dtype))
        mine = torch.tensor(got.view(np.int16) if dtype == "bfloat16" else got)
        mine = mine.view(torch.bfloat16) if dtype == "bfloat16" else mine
        assert torch.equal(mine.isnan(), tensor.isnan())
        # The product 1 * inf + 0 * -0 is inf, so infinities pass as well.
        assert torch.equal(mine[~mine.isnan()], tensor[~tensor.isnan()])


def test_every_half_is_read_exactly(implementation: str) -> None:
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16).reshape(16, 1, 64, 64)
    ones, zeros = np.ones_like(halves), np.full_like(halves, -0.0)
    got = core.compose(ones, halves, zeros, implementation=implementation)
    with np.errstate(invalid="ignore"):  # what ARM says of a signalling NaN
        expected = halves.astype(np.float32)
    np.testing.assert_array_equal(got, expected)
    back = core.compose(ones, halves, zeros, dtype="float16", implementation=implementation)
    finite = ~np.isnan(halves)
    np.testing.assert_array_equal(back.view(np.uint16)[finite], halves.view(np.uint16)[finite])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "uint8"])
def test_casts_of_random_bits_equal_the_reference(implementation: str, dtype: str) -> None:
    values = np.random.default_rng(1).integers(0, 1 << 32, 1 << 16).astype(np.uint32).view(np.float32)
    got = as_mask_one(values, dtype=dtype, implementation=implementation)
    np.testing.assert_array_equal(
        bits(got), bits(as_mask_one(values, dtype=dtype, implementation="reference"))
    )
    if dtype != "uint8":
        tensor = torch.tensor(values).to(getattr(torch, dtype))
        known = ~np.isnan(values)
        np.testing.assert_array_equal(
            bits(got)[known], tensor.view(torch.int16).numpy().view(np.uint16)[known]
        )


def every_blend_of_bytes() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """256 masks, foregrounds and backgrounds of 256 x 256 pixels: every byte of each with every one of the others."""
    levels = np.arange(256, dtype=np.uint8)
    masks = np.broadcast_to(levels[:, None, None, None], (256, 1, 256, 256))
    foregrounds = np.broadcast_to(levels[:, None], masks.shape)
    backgrounds = np.broadcast_to(levels, masks.shape)
    return np.ascontiguousarray(masks), np.ascontiguousarray(foregrounds), np.ascontiguousarray(backgrounds)


def test_bytes_to_bytes_are_the_exact_blend_rounded(implementation: str) -> None:
    m, f, b = every_blend_of_bytes()
    got = core.compose(m, f, b, dtype="uint8", scale=127.5, bias=127.5, implementation=implementation)
    level = m.astype(np.uint32)
    total = level * f + (255 - level) * b
    np.testing.assert_array_equal(got, (2 * total + 255) // 510)


def test_bytes_are_the_floats_that_they_stand_for(implementation: str) -> None:
    m, f, b = (part[::15].copy() for part in every_blend_of_bytes())
    assert [float(part.min()) for part in floats_of(m, f, b)] == [0, -1, -1]
    assert [float(part.max()) for part in floats_of(m, f, b)] == [1, 1, 1]
    for options in ({}, {"dtype": "uint8", "scale": 127.5, "bias": 127.5}, {"dtype": "float16", "bias": 1.0}):
        np.testing.assert_array_equal(
            core.compose(m, f, b, implementation=implementation, **options),
            core.compose(*floats_of(m, f, b), implementation=implementation, **options),
        )


@given(
    st.lists(st.sampled_from(["uint8", "float16", "float32"]), min_size=3, max_size=3),
    st.tuples(st.integers(1, 4), st.integers(1, 40), st.integers(1, 80)),
    st.sampled_from(["float32", "float16", "bfloat16", "uint8"]),
    st.sampled_from(["NCHW", "NHWC"]),
    st.booleans(),
)
def test_pools_of_any_dtypes_equal_numpy(
    implementation: str,
    dtypes: list[str],
    size: tuple[int, int, int],
    dtype: str,
    layout: str,
    rolls: bool,
) -> None:
    case = {
        "name": f"{dtypes} {size}",
        "pools": [2, 3, 4],
        "n": 5,
        "size": size,
        "input": dtypes,
        "output": dtype,
    }
    case |= {"layout": layout, "rolls": rolls}
    if dtype == "uint8":
        case |= {"scale": 127.5, "bias": 127.5}
    made = ComposeCase(case)
    np.testing.assert_array_equal(made.run(implementation=implementation), made.expected())


def test_flushing_of_denormals_elsewhere_changes_nothing() -> None:
    tiny = np.full((4, 1, 64, 64), 1e-41, np.float32)
    ones = np.ones_like(tiny)
    if not torch.set_flush_denormal(True):
        pytest.fail("this test knows only machines whose denormals can be flushed")
    try:
        batches = [core.compose(ones, tiny, tiny, threads=threads) for threads in (1, 2)]
    finally:
        torch.set_flush_denormal(False)
    for batch in batches:
        np.testing.assert_array_equal(batch.view(np.uint32), tiny.view(np.uint32))


def test_the_index_may_be_int64_and_rolls_too() -> None:
    rng = np.random.default_rng(2)
    m, f, b = (rng.random((4, c, 16, 16), dtype=np.float32) for c in (1, 3, 3))
    index, rolls = rng.integers(0, 4, (6, 3)), rng.integers(-(2**62), 2**62, (6, 2, 2))
    wide = ops.compose(m, f, b, index, rolls=rolls)
    narrow = ops.compose(m, f, b, index.astype(np.int32), rolls=(rolls % 16).astype(np.int32))
    np.testing.assert_array_equal(wide, narrow)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "uint8"])
@pytest.mark.parametrize(("layout", "shape"), [("NCHW", (0, 3, 8, 9)), ("NHWC", (0, 8, 9, 3))])
def test_empty_batches(dtype: str, layout: str, shape: tuple[int, ...]) -> None:
    m, f, b = (np.zeros((2, c, 8, 9), np.float32) for c in (1, 3, 3))
    none = np.zeros((0, 3), np.int32)
    assert ops.compose(m, f, b, none, dtype=dtype, layout=layout).shape == shape
    # Empty pools, with and without an index.
    assert ops.compose(m[:0], f[:0], b[:0], dtype=dtype, layout=layout).shape == shape
    rolls = np.zeros((0, 2, 2), np.int32)
    assert ops.compose(m[:0], f[:0], b[:0], none, rolls=rolls, dtype=dtype, layout=layout).shape == shape


def test_new_memory_is_aligned_and_owned() -> None:
    m, f, b = (np.ones((2, c, 32, 32), np.float32) for c in (1, 3, 3))
    batch = ops.compose(m, f, b)
    assert batch.ctypes.data % 64 == 0
    assert batch.flags.writeable
    assert batch.flags.c_contiguous
    del m, f, b
    batch += 1
    assert (batch == 2).all()


def test_calls_from_many_threads_at_once() -> None:
    rng = np.random.default_rng(3)
    m, f, b = (rng.random((64, c, 32, 32), dtype=np.float32) for c in (1, 3, 3))
    expected = ops.compose(m, f, b, threads=1)
    failures = []

    def work() -> None:
        for _ in range(30):
            if not np.array_equal(ops.compose(m, f, b, threads=3), expected):
                failures.append(threading.get_ident())

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures


def test_the_gil_is_released() -> None:
    m, f, b = (np.ones((300, c, 128, 128), np.float32) for c in (1, 3, 3))
    started, finished = threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        core.compose(m, f, b, implementation="reference")
        finished.set()

    worker = threading.Thread(target=work)
    worker.start()
    started.wait()
    turns = 0
    while not finished.is_set():
        turns += 1
    worker.join()
    assert turns > 100  # with the GIL held throughout, the loop would find the work done


def test_copy_is_a_copy() -> None:
    source = np.random.default_rng(4).random(100_003, dtype=np.float32)
    for streams in (False, True):
        for threads in (0, 1, 3):
            out = np.zeros_like(source)
            _core.copy(source, out, threads=threads, streams=streams)
            np.testing.assert_array_equal(out, source)
