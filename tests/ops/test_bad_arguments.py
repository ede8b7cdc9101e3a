"""What compose refuses, by name."""

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


class OnCuda:
    """What a tensor on the first GPU says of itself."""

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 0)

    def __dlpack__(self, **_: Any) -> Any:
        raise BufferError("not to be asked")


class OnRocm:
    """What a tensor on a GPU that no build knows says of itself."""

    def __dlpack_device__(self) -> tuple[int, int]:
        return (10, 0)

    def __dlpack__(self, **_: Any) -> Any:
        raise BufferError("not to be asked")


def misaligned(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    memory = np.zeros(array.nbytes + 1, np.uint8)
    view: np.ndarray[Any, Any] = np.ndarray(array.shape, array.dtype, memory.data, offset=1)
    return view


BAD: list[tuple[str, dict[str, Any], type[Exception], str]] = [
    (
        "dtype",
        {"masks": M.astype(np.float64)},
        ValueError,
        "compose masks: dtype is float64, expected float32, float16 or uint8.",
    ),
    (
        "integer",
        {"masks": (M > 0).astype(np.int8)},
        ValueError,
        "compose masks: dtype is int8, expected float32, float16 or uint8.",
    ),
    ("bool", {"masks": M > 0}, ValueError, "compose masks: dtype is bool, expected float32"),
    (
        "wide integer",
        {"foregrounds": F.astype(np.uint16)},
        ValueError,
        "compose foregrounds: dtype is uint16, expected float32, float16 or uint8.",
    ),
    (
        "byte order",
        {"backgrounds": B.astype(">f4")},
        ValueError,
        "compose backgrounds: dtype is float32 of the other byte order, expected float32, float16 or uint8.",
    ),
    ("bfloat16 in", {"masks": torch.tensor(M).bfloat16()}, ValueError, "compose masks: dtype is bfloat16"),
    (
        "complex",
        {"masks": torch.tensor(M).to(torch.complex64)},
        ValueError,
        "compose masks: dtype is of DLPack type",
    ),
    (
        "list",
        {"masks": M.tolist()},
        TypeError,
        "compose masks: type is list, expected a tensor (buffer protocol or",
    ),
    ("None", {"backgrounds": None}, TypeError, "compose backgrounds: type is NoneType, expected a tensor"),
    ("rank", {"masks": M[0]}, ValueError, "compose masks: shape is (1, 16, 24), expected (M, 1, h, w)."),
    (
        "mask channels",
        {"masks": F},
        ValueError,
        "compose masks: shape is (4, 3, 16, 24), expected (M, 1, h, w).",
    ),
    ("no pixels", {"masks": M[:, :, :0]}, ValueError, "compose masks: shape is (4, 1, 0, 24), expected"),
    (
        "height",
        {"foregrounds": F[:, :, :8].copy()},
        ValueError,
        "compose foregrounds: shape is (4, 3, 8, 24), expected (F, c, 16, 24) like masks.",
    ),
    (
        "no channels",
        {"foregrounds": F[:, :0]},
        ValueError,
        "compose foregrounds: shape is (4, 0, 16, 24), expected",
    ),
    (
        "channels",
        {"backgrounds": B[:, :2].copy()},
        ValueError,
        "compose backgrounds: shape is (4, 2, 16, 24), expected (B, 3, 16, 24) like masks and foregrounds.",
    ),
    (
        "strided",
        {"masks": M[:, :, :, ::2], "foregrounds": F[:, :, :, :12].copy()},
        ValueError,
        "compose masks: memory layout is strided, expected C-contiguous. Pass numpy.ascontiguousarray",
    ),
    (
        "transposed",
        {"foregrounds": np.asfortranarray(F)},
        ValueError,
        "compose foregrounds: memory layout is strided",
    ),
    (
        "torch strided",
        {"backgrounds": torch.tensor(B).to(memory_format=torch.channels_last)},
        ValueError,
        "compose backgrounds: memory layout is strided",
    ),
    (
        "broadcast",
        {"masks": np.broadcast_to(M[:1], M.shape)},
        ValueError,
        "compose masks: memory layout is strided",
    ),
    (
        "misaligned",
        {"masks": misaligned(M)},
        ValueError,
        "compose masks: address is not a multiple of its item size",
    ),
    (
        "gradient",
        {"masks": torch.tensor(M, requires_grad=True)},
        ValueError,
        "compose masks: Tensor is not exportable, expected a plain tensor.",
    ),
    (
        "device",
        {"masks": OnRocm(), "foregrounds": OnRocm(), "backgrounds": OnRocm()},
        ValueError,
        "compose masks: device is of DLPack type 10, expected cpu.",
    ),
    (
        "two devices",
        {"foregrounds": OnCuda()},
        ValueError,
        "compose foregrounds: device is cuda:0, expected that of masks, cpu.",
    ),
    (
        "out device",
        {"out": OnCuda()},
        ValueError,
        "compose out: device is cuda:0, expected that of masks, cpu.",
    ),
    (
        "pairs",
        {"foregrounds": F[:3]},
        ValueError,
        "compose foregrounds: length is 3, expected 4 as in masks, since index is None.",
    ),
    (
        "pairs of backgrounds",
        {"backgrounds": B[:3]},
        ValueError,
        "compose backgrounds: length is 3, expected 4",
    ),
    (
        "index shape",
        {"index": INDEX[:, :2].copy()},
        ValueError,
        "compose index: shape is (2, 2), expected (n, 3).",
    ),
    ("index rank", {"index": INDEX[0]}, ValueError, "compose index: shape is (3,), expected (n, 3)."),
    (
        "index dtype",
        {"index": INDEX.astype(np.float32)},
        ValueError,
        "compose index: dtype is float32, expected int32 or int64.",
    ),
    ("index list", {"index": INDEX.tolist()}, TypeError, "compose index: type is list"),
    ("index strided", {"index": INDEX[:, ::-1]}, ValueError, "compose index: memory layout is strided"),
    (
        "index too large",
        {"index": np.array([[0, 0, 0], [0, 4, 0]], np.int32)},
        ValueError,
        "compose index: index[1, 1] is 4, expected 0..3.",
    ),
    (
        "index negative",
        {"index": np.array([[0, 0, -1]], np.int64)},
        ValueError,
        "compose index: index[0, 2] is -1, expected 0..3.",
    ),
    (
        "index beyond int32",
        {"index": np.array([[2**32, 0, 0]], np.int64)},
        ValueError,
        "compose index: index[0, 0] is 4294967296, expected 0..3.",
    ),
    (
        "empty pool",
        {"foregrounds": F[:0], "index": INDEX},
        ValueError,
        "compose index: index[0, 1] is 1, expected no row, since foregrounds is empty.",
    ),
    (
        "rolls shape",
        {"rolls": np.zeros((4, 2), np.int32)},
        ValueError,
        "compose rolls: shape is (4, 2), expected (n, 2, 2).",
    ),
    ("rolls length", {"rolls": ROLLS}, ValueError, "compose rolls: length is 2, expected 4."),
    (
        "rolls dtype",
        {"rolls": np.zeros((4, 2, 2))},
        ValueError,
        "compose rolls: dtype is float64, expected int32 or",
    ),
    (
        "dtype name",
        {"dtype": "float64"},
        ValueError,
        "compose dtype: dtype is 'float64', expected one of 'float32', 'float16', 'bfloat16', 'uint8'.",
    ),
    (
        "dtype type",
        {"dtype": np.float32},
        TypeError,
        "compose dtype: type is type, expected one of 'float32'",
    ),
    (
        "layout",
        {"layout": "CHWN"},
        ValueError,
        "compose layout: layout is 'CHWN', expected one of 'NCHW', 'NHWC'.",
    ),
    (
        "scale length",
        {"scale": [1, 2]},
        ValueError,
        "compose scale: length is 2, expected 3, one for each channel.",
    ),
    ("scale empty", {"scale": []}, ValueError, "compose scale: length is 0"),
    (
        "scale nan",
        {"scale": [1, float("nan"), 1]},
        ValueError,
        "compose scale: scale[1] is nan, expected finite.",
    ),
    ("scale type", {"scale": "big"}, TypeError, "compose scale: type is str, expected a number"),
    ("bias length", {"bias": np.zeros(4)}, ValueError, "compose bias: length is 4, expected 3"),
    ("bias infinite", {"bias": float("inf")}, ValueError, "compose bias: bias[0] is inf, expected finite."),
    ("clamp length", {"clamp": (1,)}, ValueError, "compose clamp: length is 1, expected 2, (low, high)."),
    (
        "clamp order",
        {"clamp": (1, 0)},
        ValueError,
        "compose clamp: range is (1, 0), expected (low, high) with",
    ),
    ("clamp nan", {"clamp": (float("nan"), 0)}, ValueError, "compose clamp: range is (nan, 0), expected"),
    ("threads", {"threads": -1}, ValueError, "compose threads: threads is -1, expected 0..1024."),
    ("threads type", {"threads": 1.5}, TypeError, "compose threads: type is float, expected an int."),
    (
        "out shape",
        {"out": np.zeros((4, 16, 24, 3), np.float32)},
        ValueError,
        "compose out: shape is (4, 16, 24, 3), expected (4, 3, 16, 24).",
    ),
    (
        "out dtype",
        {"out": np.zeros(F.shape, np.float16)},
        ValueError,
        "compose out: dtype is float16, expected float32.",
    ),
    (
        "out strided",
        {"out": np.zeros((4, 3, 16, 48), np.float32)[..., ::2]},
        ValueError,
        "compose out: memory layout is strided",
    ),
    (
        "out read-only",
        {"out": np.frombuffer(F.tobytes(), np.float32).reshape(F.shape)},
        ValueError,
        "compose out: memory is read-only, expected writable.",
    ),
    ("out list", {"out": []}, TypeError, "compose out: type is list, expected a tensor"),
    ("out misaligned", {"out": misaligned(F)}, ValueError, "compose out: address is not a multiple"),
]


@pytest.mark.parametrize(("given", "error", "message"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_bad_arguments_are_named(given: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {"masks": M, "foregrounds": F, "backgrounds": B} | given
    with pytest.raises(error, match=re.escape(message)):
        ops.compose(**arguments)


def test_out_must_not_overlap() -> None:
    memory = np.zeros(2 * F.size, np.float32)
    shared = memory[: F.size].reshape(F.shape)
    shared[:] = F
    shifted = memory[F.size // 2 : F.size // 2 + F.size].reshape(F.shape)
    for name, inputs in {"foregrounds": (M, shared, B), "backgrounds": (M, F, shared)}.items():
        for out in (shared, shifted):
            with pytest.raises(
                ValueError, match=f"compose out: memory is shared with {name}, expected memory of its own"
            ):
                ops.compose(*inputs, out=out)
    apart = memory[F.size :].reshape(F.shape)
    np.testing.assert_array_equal(ops.compose(M, shared, B, out=apart), EXPECTED)


def test_a_refused_call_writes_nothing() -> None:
    out = np.full((2, 3, 16, 24), 7, np.float32)
    with pytest.raises(ValueError, match=re.escape("index[1, 2] is 9")):
        ops.compose(M, F, B, np.array([[0, 0, 0], [0, 0, 9]], np.int32), out=out)
    assert (out == 7).all()


def test_an_unknown_implementation() -> None:
    with pytest.raises(ValueError, match="is 'fast', expected one of 'auto', 'reference'"):
        core.compose(M, F, B, implementation="fast")


def test_sizes_beyond_memory() -> None:
    pixels = np.zeros((1, 1, 1024, 1024), np.float32)
    index = np.zeros((1 << 27, 3), np.int32)
    with pytest.raises(MemoryError):
        ops.compose(pixels, pixels, pixels, index, dtype="float32")
