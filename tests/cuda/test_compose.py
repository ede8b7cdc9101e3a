"""compose on a device against the scalar reference, bit by bit: the emulated device, and a GPU where there is one."""

from __future__ import annotations

import gc
import itertools
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from compose_cases import SPECIAL, ComposeCase
from device_arrays import ByDlpack, ByInterface, array_of, assert_equal_but_for_payloads, shifted_array_of
from module_ops import ModuleOps, core

from cgnrt import cuda, ops

DTYPES = ["float32", "float16", "bfloat16", "uint8"]
RNG = np.random.default_rng(0)


def pools(
    c: int, h: int, w: int, counts: tuple[int, int, int] = (3, 4, 5), dtype: str = "float32"
) -> list[npt.NDArray[Any]]:
    m, f, b = counts
    return [
        RNG.random((m, 1, h, w)).astype(dtype),
        RNG.uniform(-1, 1, (f, c, h, w)).astype(dtype),
        RNG.uniform(-1, 1, (b, c, h, w)).astype(dtype),
    ]


def compose(
    module: ModuleType, *arrays: Any, rolls: Any = None, place: Any = None, shift: int = 0, **options: Any
) -> npt.NDArray[Any]:
    """The op of a device on arrays of the host, which lie `shift` items past aligned addresses there."""
    stream = cuda.Stream(0)

    def put(array: Any) -> Any:
        return None if array is None else shifted_array_of(array, shift, stream)

    batch: npt.NDArray[Any] = (
        ModuleOps(module).compose(*map(put, arrays), rolls=put(rolls), place=put(place), **options).numpy()
    )
    return batch


def reference(*arrays: Any, **options: Any) -> npt.NDArray[Any]:
    batch: npt.NDArray[Any] = core.compose(*arrays, implementation="reference", **options)
    return batch


def check(
    module: ModuleType, *arrays: Any, shift: int = 0, dtype: str = "float32", **options: Any
) -> npt.NDArray[Any]:
    got = compose(module, *arrays, shift=shift, dtype=dtype, **options)
    expected = reference(*arrays, dtype=dtype, **options)
    assert got.shape == expected.shape
    assert_equal_but_for_payloads(got, expected, dtype)
    return got


def test_every_case_equals_the_reference(device_module: ModuleType, compose_case: ComposeCase) -> None:
    case = compose_case
    check(device_module, *case.pools, case.index, rolls=case.rolls, place=case.place, **case.options)


@pytest.mark.parametrize("shift", [1, 2, 4])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("rolled", [False, True])
def test_odd_addresses(device_module: ModuleType, shift: int, dtype: str, rolled: bool) -> None:
    arrays = pools(3, 5, 16, dtype=dtype)
    index = RNG.integers(0, 3, (6, 3)).astype(np.int32)
    rolls = RNG.integers(-99, 99, (6, 2, 2)).astype(np.int32) if rolled else None
    for output, layout in itertools.product(DTYPES, ["NCHW", "NHWC"]):
        check(device_module, *arrays, index, rolls=rolls, dtype=output, layout=layout, shift=shift)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_an_out_at_an_odd_address(device_module: ModuleType, dtype: str, layout: str) -> None:
    arrays = pools(3, 4, 8, (3, 3, 3))
    expected = reference(*arrays, dtype=dtype, layout=layout)
    stream = cuda.Stream(0)
    given = [array_of(x, stream) for x in arrays]
    for items in (1, 2, 4, 8):
        start = items * expected.itemsize
        memory = array_of(np.full(expected.nbytes + 2 * start, 0x5A, np.uint8), stream)
        out = memory.view(start, expected.shape, dtype)
        assert ModuleOps(device_module).compose(*given, dtype=dtype, layout=layout, out=out) is out
        np.testing.assert_array_equal(out.numpy(), expected)
        around = memory.numpy()
        assert (np.r_[around[:start], around[start + expected.nbytes :]] == 0x5A).all()


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 16])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_channels(device_module: ModuleType, channels: int, layout: str) -> None:
    scale, bias = RNG.uniform(50, 150, (2, channels)).astype(np.float32)
    for dtype, output in itertools.product(["float32", "float16"], DTYPES):
        arrays = pools(channels, 6, 8, (3, 3, 3), dtype)
        check(device_module, *arrays, dtype=output, layout=layout, scale=scale, bias=bias, clamp=(-0.9, 0.8))


@pytest.mark.parametrize("width", [1, 4, 8, 12, 16, 24, 40, 264])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_rolls_by_every_column(device_module: ModuleType, width: int, dtype: str) -> None:
    columns = np.arange(width) if width < 100 else np.r_[0:18, 255:264]
    rolls = np.zeros((len(columns), 2, 2), np.int32)
    rolls[:, 0, 1], rolls[:, 1, 1] = columns, columns[::-1] - width
    rolls[:, 0, 0], rolls[:, 1, 0] = columns % 3, -(columns % 4)
    arrays = pools(3, 3, width, dtype=dtype)
    index = RNG.integers(0, 3, (len(columns), 3)).astype(np.int32)
    for output in ("float32", "float16"):
        check(device_module, *arrays, index, rolls=rolls, dtype=output)


@pytest.mark.parametrize("size", [(9, 8), (8, 8), (1, 4), (2, 17)])
def test_wide_index_and_rolls(device_module: ModuleType, size: tuple[int, int]) -> None:
    arrays = pools(3, *size)
    index = RNG.integers(0, 3, (20, 3))
    rolls = RNG.integers(-(2**63), 2**63, (20, 2, 2))
    rolls[0, 0], rolls[1, 1] = [2**63 - 1, -(2**63)], [-(2**63), 2**63 - 1]
    check(device_module, *arrays, index, rolls=rolls)
    check(device_module, *arrays, index.astype(np.int32), rolls=rolls)
    check(device_module, *arrays, index, rolls=(rolls >> 32).astype(np.int32))


def as_mask_one(module: ModuleType | None, values: npt.NDArray[Any], **options: Any) -> npt.NDArray[Any]:
    """`values` through the cast, by the reference if no module is given."""
    pixels = values.reshape(1, 1, 1, -1)
    arrays = np.ones_like(pixels), pixels, np.full_like(pixels, -0.0)
    batch = reference(*arrays, **options) if module is None else compose(module, *arrays, **options)
    return batch.reshape(-1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [116, 145])  # in vectors, and one by one
def test_special_values(device_module: ModuleType, dtype: str, count: int) -> None:
    values = np.resize(SPECIAL, count)
    got, expected = (as_mask_one(module, values, dtype=dtype) for module in (device_module, None))
    assert_equal_but_for_payloads(got, expected, dtype)


@pytest.mark.parametrize("clamp", [(0.0, 0.0), (-0.0, 1.0), (-np.inf, np.inf), (-1e-45, 1e-45)])
def test_special_values_through_every_step(device_module: ModuleType, clamp: tuple[float, float]) -> None:
    options: dict[str, Any] = {"clamp": clamp, "scale": -3.0, "bias": -0.0}
    values = np.resize(SPECIAL, 116)
    for chosen in ("clamp", "scale", "bias"):
        form = {chosen: options[chosen]}
        got, expected = (as_mask_one(module, values, **form) for module in (device_module, None))
        assert_equal_but_for_payloads(got, expected, "float32")


def test_every_half_is_read_and_written_exactly(device_module: ModuleType) -> None:
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    for dtype in ("float32", "float16"):
        got, expected = (as_mask_one(module, halves, dtype=dtype) for module in (device_module, None))
        assert_equal_but_for_payloads(got, expected, dtype)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "uint8"])
def test_casts_of_random_bits(device_module: ModuleType, dtype: str) -> None:
    values = np.random.default_rng(1).integers(0, 1 << 32, 1 << 16).astype(np.uint32).view(np.float32)
    got, expected = (as_mask_one(module, values, dtype=dtype) for module in (device_module, None))
    assert_equal_but_for_payloads(got, expected, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize(("layout", "width"), [("NCHW", 8), ("NHWC", 8), ("NCHW", 7)])
def test_rows_that_are_not_there(
    device_module: ModuleType, dtype: str, wide: bool, layout: str, width: int
) -> None:
    arrays = pools(3, 4, width)
    index = np.zeros((9, 3), np.int64 if wide else np.int32)
    wrong = [(1, 0, -1), (3, 1, 4), (5, 2, 5), (7, 0, -(2**63) if wide else -(2**31))]
    if wide:
        wrong += [(8, 1, 2**32), (2, 2, 2**63 - 1)]  # which 32 bits would take for others
    expected = reference(*arrays, index, dtype=dtype, layout=layout)
    for row, column, value in wrong:
        index[row, column] = value
        if dtype == "uint8":
            expected[row] = 0
        else:
            expected[row] = 0x7FC0 if dtype == "bfloat16" else np.nan
    got = compose(
        device_module, *arrays, index, dtype=dtype, layout=layout, rolls=np.zeros((9, 2, 2), np.int32)
    )
    assert_equal_but_for_payloads(got, expected, dtype)
    got = compose(
        device_module, *arrays, index, dtype=dtype, layout=layout, scale=2.0, bias=1.0, clamp=(-1, 1)
    )
    assert_equal_but_for_payloads(
        got[sorted({row for row, *_ in wrong})], expected[sorted({row for row, *_ in wrong})], dtype
    )


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_what_is_no_place_is_nan(device_module: ModuleType, dtype: str) -> None:
    arrays = pools(3, 6, 8, (9, 9, 9))
    place = np.zeros((9, 4), np.float32)
    place[:, 2] = 1
    wrong = {1: (np.nan, 0), 3: (np.inf, 1), 4: (0, 2), 6: (-1, 2), 7: (0.5, 3), 8: (np.inf, 2)}
    expected = reference(*arrays, place=place, dtype=dtype)
    for row, (value, column) in wrong.items():
        place[row, column] = value
        expected[row] = 0 if dtype == "uint8" else np.nan
    assert_equal_but_for_payloads(compose(device_module, *arrays, place=place, dtype=dtype), expected, dtype)


def test_empty_pools_and_batches(device_module: ModuleType) -> None:
    m, f, b = pools(3, 4, 8)
    none = np.zeros((0, 3), np.int32)
    assert compose(device_module, m, f, b, none).shape == (0, 3, 4, 8)
    assert compose(device_module, m[:0], f[:0], b[:0], layout="NHWC").shape == (0, 4, 8, 3)
    assert np.isnan(compose(device_module, m[:0], f, b, np.zeros((2, 3), np.int32))).all()


def test_more_samples_than_a_grid_takes_at_once(device_module: ModuleType) -> None:
    arrays = pools(1, 1, 1)
    index = RNG.integers(0, 3, (5000, 3)).astype(np.int32)  # the emulated device takes 4096
    check(device_module, *arrays, index)


@pytest.mark.parametrize("size", [(32, 32), (40, 12), (21, 17), (5, 140), (300, 1)])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_rounds_of_a_warp(device_module: ModuleType, size: tuple[int, int], layout: str) -> None:
    """So many samples that a warp takes its pixels in several rounds, from row to row."""
    arrays = pools(3, *size)
    index = RNG.integers(0, 3, (300, 3)).astype(np.int32)
    rolls = RNG.integers(-99, 99, (300, 2, 2)).astype(np.int32)
    check(device_module, *arrays, index, rolls=rolls, layout=layout)
    check(device_module, *arrays, index, layout=layout)


def test_by_the_public_function_and_on_its_stream(device_module: ModuleType) -> None:
    arrays = pools(3, 8, 8)
    index = RNG.integers(0, 3, (5, 3)).astype(np.int32)
    expected = reference(*arrays, index)
    producer, consumer = cuda.Stream(0), cuda.Stream(0)
    given = [array_of(x, producer) for x in (*arrays, index)]
    for stream, where in ((None, producer), (consumer, consumer), (consumer.ptr, consumer)):
        batch = ops.compose(*given, stream=stream)
        assert isinstance(batch, cuda.DeviceArray)
        assert batch.stream.ptr == where.ptr
        np.testing.assert_array_equal(batch.numpy(), expected)


def test_inputs_may_go_at_once(device_module: ModuleType) -> None:
    arrays = pools(3, 8, 8, (2, 2, 2))
    producer, consumer = cuda.Stream(0), cuda.Stream(0)
    batch = ModuleOps(device_module).compose(
        *(ByDlpack(array_of(x, producer)) for x in arrays), stream=consumer
    )
    gc.collect()
    producer.synchronize()
    np.testing.assert_array_equal(batch.numpy(), reference(*arrays))


def test_nothing_waits(emulated: ModuleType) -> None:
    stream = cuda.Stream(0)
    given = [array_of(x, stream) for x in pools(3, 8, 8, (2, 2, 2))]
    before = emulated.emulator_counters()[0]
    rolls, place = (
        array_of(np.ones((2, 2, 2), np.int32), stream),
        array_of(np.ones((2, 4), np.float32), stream),
    )
    ModuleOps(emulated).compose(*given, rolls=rolls, dtype="uint8")
    ModuleOps(emulated).compose(*given, rolls=rolls, place=place)
    assert emulated.emulator_counters()[0] == before


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8", "bfloat16"])
def test_out_in_all_its_forms(device_module: ModuleType, dtype: str) -> None:
    arrays = pools(3, 8, 8, (2, 2, 2))
    expected = reference(*arrays, dtype=dtype, scale=100.0)
    stream = cuda.Stream(0)
    given = [array_of(x, stream) for x in arrays]
    forms = [lambda array: array, ByDlpack] + ([ByInterface] if dtype != "bfloat16" else [])
    for form in forms:
        array = cuda.DeviceArray.empty(expected.shape, dtype, stream)
        out = form(array)
        assert (
            ModuleOps(device_module).compose(*given, dtype=dtype, scale=100.0, out=out, stream=stream) is out
        )
        np.testing.assert_array_equal(array.numpy(), expected)


def test_inputs_in_all_their_forms(device_module: ModuleType) -> None:
    arrays = pools(3, 8, 8)
    index, rolls = np.array([[0, 1, 2], [2, 1, 0]]), np.array([[[1, 2], [3, 4]]] * 2, np.int32)
    expected = reference(*arrays, index, rolls=rolls)
    producer, consumer = cuda.Stream(0), cuda.Stream(0)
    for form in (ByDlpack, ByInterface):
        given = [form(array_of(x, producer)) for x in (*arrays, index)]
        batch = ModuleOps(device_module).compose(
            *given, rolls=form(array_of(rolls, producer)), stream=consumer
        )
        np.testing.assert_array_equal(batch.numpy(), expected)


def test_on_a_second_device(emulated: ModuleType) -> None:
    arrays = pools(3, 8, 8, (2, 2, 2))
    stream = cuda.Stream(1)
    batch = ModuleOps(emulated).compose(*(array_of(x, stream) for x in arrays))
    assert batch.device == 1
    np.testing.assert_array_equal(batch.numpy(), reference(*arrays))


def test_what_is_refused(emulated: ModuleType) -> None:
    stream, other = cuda.Stream(0), cuda.Stream(1)
    host = pools(3, 8, 8, (2, 2, 2))
    m, f, b = (array_of(x, stream) for x in host)
    many = [array_of(x, stream) for x in pools(17, 8, 8, (2, 2, 2))]
    index = array_of(np.zeros((2, 3), np.int32), stream)
    rolls = array_of(np.zeros((2, 2, 2), np.int32), stream)
    out = array_of(np.full(f.shape, 7, np.float32), stream)
    cases: list[tuple[tuple[Any, ...], dict[str, Any], type[Exception], str]] = [
        ((host[0], f, b), {}, ValueError, "compose masks: device is cpu, expected a CUDA device"),
        ((m, host[1], b), {}, ValueError, "compose foregrounds: device is cpu, expected that of masks, cuda:0"),
        ((m, f, array_of(host[2], other)), {}, ValueError, "backgrounds: device is cuda:1, expected that"),
        ((m, f, b, np.zeros((2, 3), np.int32)), {}, ValueError, "compose index: device is cpu, expected that of"),
        ((m, f, b), {"rolls": np.zeros((2, 2, 2), np.int32)}, ValueError, "compose rolls: device is cpu"),
        ((m, f, b), {"place": np.zeros((2, 4), np.float32)}, ValueError, "compose place: device is cpu"),
        ((m, f, b), {"place": array_of(np.zeros((2, 3), np.float32), stream)}, ValueError, "compose place: shape is"),
        ((m, f, b), {"out": np.zeros(f.shape, np.float32)}, ValueError, "compose out: device is cpu, expected that of"),
        ((m, f, b), {"out": cuda.DeviceArray.empty(f.shape, "float32", other)}, ValueError, "out: device is cuda:1"),
        ((m, f, b), {"stream": other}, ValueError, "compose stream: device is cuda:1, expected cuda:0"),
        ((m, f, b), {"stream": -1}, ValueError, "compose stream: stream is -1, expected 0.."),
        ((m, f, b), {"stream": "mine"}, TypeError, "compose stream: type is str, expected an int"),
        ((ByInterface(m, data=(host[0].ctypes.data, False)), f, b), {}, ValueError, "masks: address is that of host"),
        ((m, ByInterface(f, data=(host[1].ctypes.data, False)), b), {}, ValueError, "foregrounds: address is that"),
        ((m, ByInterface(f, strides=(4, 4, 4, 4)), b), {}, ValueError, "compose foregrounds: memory layout is strided"),
        ((m, f, b), {"out": ByInterface(out, data=(out.data_ptr, True))}, ValueError, "out: memory is read-only"),
        ((m, f, b), {"out": ByInterface(out, data=(host[1].ctypes.data, False))}, ValueError, "out: address is that"),
        ((m, f, b), {"out": f}, ValueError, "compose out: memory is shared with foregrounds"),
        ((m, f, b), {"out": out, "dtype": "float16"}, ValueError, "compose out: dtype is float32, expected float16"),
        ((m, f, b), {"out": out, "layout": "NHWC"}, ValueError, r"out: shape is \(2, 3, 8, 8\), expected"),
        (tuple(many), {"out": out}, ValueError, "foregrounds: channels is 17, expected at most 16 on a GPU"),
        ((f, f, b), {"out": out}, ValueError, r"compose masks: shape is \(2, 3, 8, 8\), expected \(M, 1, h, w\)"),
        ((index, f, b), {"out": out}, ValueError, "compose masks: dtype is int32, expected float32, float16 or uint8"),
        ((m, f, b, rolls), {"out": out}, ValueError, r"compose index: shape is \(2, 2, 2\), expected \(n, 3\)"),
        ((m, f, b[:1]), {"out": out}, ValueError, "compose backgrounds: length is 1, expected 2 as in masks"),
        ((m, f, b, index), {"rolls": rolls[:1], "out": out}, ValueError, "compose rolls: length is 1, expected 2"),
        ((m, f, b), {"dtype": "int8"}, ValueError, "compose dtype: dtype is 'int8', expected one of"),
        ((m, f, b), {"scale": [1, 2]}, ValueError, "compose scale: length is 2, expected 3, one for each channel"),
        ((m, f, b), {"bias": float("inf")}, ValueError, r"compose bias: bias\[0\] is inf, expected finite"),
        ((m, f, b), {"clamp": (1, 0)}, ValueError, r"compose clamp: range is \(1, 0\)"),
        ((m, f, b.numpy().tolist()), {}, TypeError, "compose backgrounds: type is list, expected a tensor"),
    ]  # fmt: skip
    for given, options, error, message in cases:
        with pytest.raises(error, match=message):
            ModuleOps(emulated).compose(*given, **options)
    assert (out.numpy() == 7).all()  # nothing was enqueued
    np.testing.assert_array_equal(ModuleOps(emulated).compose(m, f, b, out=out).numpy(), reference(*host))


def test_a_batch_beyond_the_memory(emulated: ModuleType) -> None:
    emulated.emulator_configure(memory_bytes=1 << 20)
    stream = cuda.Stream(0)
    given = [array_of(x, stream) for x in pools(3, 8, 8)]
    index = array_of(np.zeros((2000, 3), np.int32), stream)
    with pytest.raises(MemoryError, match=r"1536000 bytes are wanted, \d+ of 1048576 are free on cuda:0"):
        ModuleOps(emulated).compose(*given, index)
    assert ModuleOps(emulated).compose(*given, index[:2]).shape == (2, 3, 8, 8)


def test_the_cpu_knows_no_stream() -> None:
    with pytest.raises(ValueError, match="compose stream: stream is 1, expected None for tensors on the CPU"):
        ops.compose(*pools(3, 4, 4, (2, 2, 2)), stream=1)
