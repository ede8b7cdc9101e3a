"""Tensors in and out: NumPy and torch, without copies."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from module_ops import core

from cgnrt import ops

RNG = np.random.default_rng(0)
M = RNG.random((4, 1, 16, 24), dtype=np.float32)
F = RNG.uniform(-1, 1, (4, 3, 16, 24)).astype(np.float32)
B = RNG.uniform(-1, 1, (4, 3, 16, 24)).astype(np.float32)
INDEX = np.array([[0, 1, 2], [3, 3, 3]], np.int32)
ROLLS = np.zeros((2, 2, 2), np.int32)
EXPECTED = ops.compose(M, F, B)


def test_torch_tensors_in() -> None:
    batch = ops.compose(
        torch.tensor(M), torch.tensor(F), torch.tensor(B), torch.tensor(INDEX), rolls=torch.tensor(ROLLS)
    )
    np.testing.assert_array_equal(batch, ops.compose(M, F, B, INDEX))
    halves = [torch.tensor(x).half() for x in (M, F, B)]
    np.testing.assert_array_equal(ops.compose(*halves), ops.compose(*(x.numpy() for x in halves)))


def test_torch_slices_are_read_from_their_offset() -> None:
    m, f, b = torch.tensor(M)[1:3], torch.tensor(F)[1:3], torch.tensor(B)[1:3]
    np.testing.assert_array_equal(ops.compose(m, f, b), EXPECTED[1:3])


def test_read_only_inputs() -> None:
    arrays = [x.copy() for x in (M, F, B, INDEX)]
    for array in arrays:
        array.flags.writeable = False
    np.testing.assert_array_equal(ops.compose(*arrays), ops.compose(M, F, B, INDEX))


def test_memoryviews_and_bytes_in() -> None:
    views = [memoryview(x.tobytes()).cast("f", x.shape) for x in (M, F, B)]
    np.testing.assert_array_equal(ops.compose(*views), EXPECTED)


class DlpackOnly:
    """An array that speaks DLPack alone, of the protocol before versions or of today's."""

    def __init__(self, array: np.ndarray[Any, Any], versioned: bool) -> None:
        self.array = array
        self.versioned = versioned

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()

    def __dlpack__(self, **options: Any) -> Any:
        if not self.versioned and options:
            raise TypeError("no such argument")
        return self.array.__dlpack__(**options)


@pytest.mark.parametrize("versioned", [False, True])
def test_dlpack_of_both_generations(versioned: bool) -> None:
    inputs = [DlpackOnly(x, versioned) for x in (M, F, B)]
    out = np.zeros_like(EXPECTED)
    given = DlpackOnly(out, versioned)
    assert ops.compose(*inputs, out=given) is given
    np.testing.assert_array_equal(out, EXPECTED)


def test_read_only_dlpack() -> None:
    frozen = [x.copy() for x in (M, F, B)]
    for array in frozen:
        array.flags.writeable = False
    np.testing.assert_array_equal(ops.compose(*(DlpackOnly(x, True) for x in frozen)), EXPECTED)
    out = np.zeros_like(EXPECTED)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="compose out: memory is read-only"):
        ops.compose(M, F, B, out=DlpackOnly(out, True))


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_numpy_out(dtype: str) -> None:
    out = np.zeros(EXPECTED.shape, dtype)
    assert ops.compose(M, F, B, dtype=dtype, scale=100, bias=100, out=out) is out
    np.testing.assert_array_equal(out, ops.compose(M, F, B, dtype=dtype, scale=100, bias=100))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "uint8"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_torch_out_is_written_in_place(dtype: str, layout: str) -> None:
    shape = EXPECTED.shape if layout == "NCHW" else (4, 16, 24, 3)
    out = torch.zeros(shape, dtype=getattr(torch, dtype))
    address = out.data_ptr()
    assert ops.compose(M, F, B, dtype=dtype, layout=layout, scale=100, bias=100, out=out) is out
    assert out.data_ptr() == address
    expected = ops.compose(M, F, B, dtype=dtype, layout=layout, scale=100, bias=100)
    if dtype == "bfloat16":
        np.testing.assert_array_equal(out.view(torch.int16).numpy().view(np.uint16), expected)
    else:
        np.testing.assert_array_equal(out.numpy(), expected)


def test_out_at_any_item_address() -> None:
    for dtype in ("float32", "uint8"):
        for offset in range(0, 40, 3):
            memory = np.zeros(EXPECTED.size + 64, dtype)
            out = memory[offset : offset + EXPECTED.size].reshape(EXPECTED.shape)
            for streams in (False, True):
                memory[:] = 7
                core.compose(M, F, B, dtype=dtype, scale=100, bias=100, out=out, streams=streams)
                np.testing.assert_array_equal(out, ops.compose(M, F, B, dtype=dtype, scale=100, bias=100))
                assert (memory[:offset] == 7).all()
                assert (memory[offset + EXPECTED.size :] == 7).all()


def test_bfloat16_out_as_bits() -> None:
    out = np.zeros(EXPECTED.shape, np.uint16)
    assert ops.compose(M, F, B, dtype="bfloat16", out=out) is out
    np.testing.assert_array_equal(out, ops.compose(M, F, B, dtype="bfloat16"))


class BFloat16:
    """A wrapper as a consumer would write it around `ops.bfloat16_dlpack`."""

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self.array = array

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)

    def __dlpack__(self, *, max_version: tuple[int, int] | None = None, **_: Any) -> Any:
        return ops.bfloat16_dlpack(self.array, max_version=max_version)


@pytest.mark.parametrize("direct", [False, True])
def test_bfloat16_dlpack_shares_memory_and_keeps_it(direct: bool) -> None:
    array = ops.compose(M, F, B, dtype="bfloat16")
    expected = torch.tensor(EXPECTED).bfloat16()
    tensor = (
        torch.utils.dlpack.from_dlpack(ops.bfloat16_dlpack(array))
        if direct
        else torch.from_dlpack(BFloat16(array))
    )
    assert tensor.dtype == torch.bfloat16
    assert tensor.data_ptr() == array.ctypes.data
    del array
    assert torch.equal(tensor, expected)


def test_bfloat16_dlpack_capsule_may_go_unused() -> None:
    for version in (None, (0, 8), (1, 0), (1, 3)):
        capsule = ops.bfloat16_dlpack(np.zeros((2, 3), np.uint16), max_version=version)
        assert ("versioned" in repr(capsule)) == (version is not None and version[0] >= 1)
        del capsule


@pytest.mark.parametrize(
    ("bits", "error", "message"),
    [
        (np.zeros(4, np.float32), ValueError, "bfloat16_dlpack bits: dtype is float32, expected uint16."),
        (np.zeros((4, 4), np.uint16).T[1:], ValueError, "bfloat16_dlpack bits: memory layout is strided"),
        ([1, 2], TypeError, "bfloat16_dlpack bits: type is list, expected a tensor"),
    ],
)
def test_bfloat16_dlpack_refuses(bits: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        ops.bfloat16_dlpack(bits)


def test_bfloat16_dlpack_of_read_only_bits() -> None:
    bits = np.zeros(4, np.uint16)
    bits.flags.writeable = False
    with pytest.raises(ValueError, match="memory is read-only, expected writable"):
        ops.bfloat16_dlpack(bits)
    ops.bfloat16_dlpack(bits, max_version=(1, 0))
