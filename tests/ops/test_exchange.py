"""Tensors in and out: NumPy and torch, without copies; and what is refused, by name."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch

from cgnrt import _core, ops

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
                _core.compose(M, F, B, dtype=dtype, scale=100, bias=100, out=out, streams=streams)
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


class OnCuda:
    """What a tensor on the first GPU says of itself."""

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 0)

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
        "compose masks: dtype is float64, expected float32 or float16.",
    ),
    (
        "integer",
        {"masks": (M > 0).astype(np.uint8)},
        ValueError,
        "compose masks: dtype is uint8, expected float32",
    ),
    ("bool", {"masks": M > 0}, ValueError, "compose masks: dtype is bool, expected float32"),
    (
        "mixed",
        {"foregrounds": F.astype(np.float16)},
        ValueError,
        "compose foregrounds: dtype is float16, expected that of masks, float32.",
    ),
    (
        "byte order",
        {"backgrounds": B.astype(">f4")},
        ValueError,
        "compose backgrounds: dtype is float32 of the other byte order, expected float32 or float16.",
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
        {"masks": OnCuda(), "foregrounds": OnCuda(), "backgrounds": OnCuda()},
        ValueError,
        "compose masks: device is cuda:0, expected cpu. This build has no kernel of compose for that device.",
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
        "compose index: index[0, 1] is 1, expected no row at all, since foregrounds is empty.",
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
        _core.compose(M, F, B, implementation="fast")


def test_sizes_beyond_memory() -> None:
    pixels = np.zeros((1, 1, 1024, 1024), np.float32)
    index = np.zeros((1 << 27, 3), np.int32)
    with pytest.raises(MemoryError):
        ops.compose(pixels, pixels, pixels, index, dtype="float32")
