"""patch_grid and resize on a device against the scalar reference, bit by bit: the emulated device, and a GPU."""

from __future__ import annotations

import gc
import itertools
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from device_arrays import ByDlpack, ByInterface, array_of, assert_equal_but_for_payloads, shifted_array_of
from module_ops import ModuleOps, core
from patch_grid_cases import CASES, PatchGridCase

from cgnrt import cuda, ops

DTYPES = ["float32", "float16", "bfloat16", "uint8"]
RNG = np.random.default_rng(0)
Array = npt.NDArray[Any]


def on_device(module: ModuleType, operation: str, *arrays: Any, shift: int = 0, **options: Any) -> Array:
    """The op of a device on arrays of the host, which lie `shift` items past aligned addresses there."""
    stream = cuda.Stream(0)

    def put(array: Any) -> Any:
        return shifted_array_of(array, shift, stream) if isinstance(array, np.ndarray) else array

    if options.get("over") is not None:
        options["over"] = tuple(map(put, options["over"]))
    result: Array = getattr(ModuleOps(module), operation)(*map(put, arrays), **options).numpy()
    return result


def check(module: ModuleType, operation: str, *arrays: Any, shift: int = 0, **options: Any) -> Array:
    got = on_device(module, operation, *arrays, shift=shift, **options)
    expected = getattr(core, operation)(*arrays, implementation="reference", **options)
    assert got.shape == expected.shape
    assert_equal_but_for_payloads(got, expected, options.get("dtype", "float32"))
    return got


def sources(count: int, c: int, h: int, w: int) -> tuple[Array, Array]:
    return RNG.random((count, 1, h, w), dtype=np.float32), uniform(count, c, h, w)


def uniform(*shape: int) -> Array:
    return RNG.uniform(-1, 1, shape).astype(np.float32)


def over(masks: int, backgrounds: int, c: int, h: int, w: int) -> tuple[Array, Array]:
    return RNG.random((masks, 1, h, w), dtype=np.float32), uniform(backgrounds, c, h, w)


def check_ranks(module: ModuleType, masks: Array, patch: int, top: int) -> None:
    """Every rank's window, by the first pixels of the windows, which are their numbers."""
    _, _, h, w = masks.shape
    images = np.resize(np.arange(h * w, dtype=np.float32), masks.shape)
    grid = min(64, int(np.ceil(top**0.5)))
    picks = np.resize(np.arange(top), (-(-top // grid**2), grid**2))
    for source in range(len(masks)):
        index = np.full((len(picks), 1), source)
        check(
            module,
            "patch_grid",
            masks,
            images,
            picks,
            index,
            patch=patch,
            grid=grid,
            top=top,
            size=patch * grid,
        )


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_every_case_equals_the_reference(device_module: ModuleType, case: dict[str, Any]) -> None:
    made = PatchGridCase(case)
    options = {"size": made.size, "patch": made.patch, "grid": made.grid, "top": made.top, "over": made.over}
    check(
        device_module, "patch_grid", made.masks, made.images, made.picks, made.index, **options, **made.form
    )


@pytest.mark.parametrize("patch", [1, 7, 15, 16])
@pytest.mark.parametrize("kind", ["random", "steps", "even", "black"])
def test_all_windows_in_order(device_module: ModuleType, patch: int, kind: str) -> None:
    shape = (1, 1, patch + 9, patch + 12)
    masks = {
        "random": RNG.random(shape),
        "steps": RNG.integers(0, 2, shape) * 0.5,  # many windows are equal
        "even": np.ones(shape),
        "black": np.zeros(shape),
    }[kind].astype(np.float32)
    for top in (1, 64, 130):
        check_ranks(device_module, masks, patch, top)


def test_more_ranks_than_shared_memory_holds(device_module: ModuleType) -> None:
    masks = RNG.integers(0, 3, (1, 1, 70, 71)).astype(np.float32) / 2
    check_ranks(device_module, masks, 1, 70 * 71)
    check_ranks(device_module, masks, 16, 55 * 56)


def test_masks_larger_than_what_a_block_sums(device_module: ModuleType) -> None:
    check_ranks(device_module, RNG.random((1, 1, 3, 1100), dtype=np.float32), 2, 50)
    check_ranks(device_module, RNG.random((1, 1, 100, 5), dtype=np.float32), 3, 50)
    check_ranks(device_module, RNG.random((1, 1, 320, 60), dtype=np.float32), 40, 50)


def test_masks_are_clamped(device_module: ModuleType) -> None:
    masks, images = sources(2, 1, 20, 20)
    wrong = masks.copy()
    wrong[0, 0, 3], wrong[0, 0, 4], wrong[0, 0, 5], wrong[0, 0, 6, 7:] = 7.5, -3, np.nan, np.inf
    masks[0, 0, 3], masks[0, 0, 4], masks[0, 0, 5], masks[0, 0, 6, 7:] = 1, 0, 0, 1
    picks = RNG.integers(0, 30, (2, 16))
    options = {"patch": 5, "grid": 4, "top": 30, "size": 24}
    got = on_device(device_module, "patch_grid", wrong, images, picks, **options)
    np.testing.assert_array_equal(got, core.patch_grid(masks, images, picks, **options))


@pytest.mark.parametrize("blends", [False, True])
@pytest.mark.parametrize("n", [2, 4, 9])  # fewer than there are sources, as many, and more
def test_wide_and_narrow_picks_and_indices(device_module: ModuleType, blends: bool, n: int) -> None:
    masks, images = sources(4, 3, 20, 24)
    pair = over(3, 5, 3, 16, 20) if blends else None
    picks = RNG.integers(0, 50, (n, 36))
    index = RNG.integers(0, [3, 4, 5] if blends else [4], (n, 3 if blends else 1))
    for kind, other in ((np.int32, np.int64), (np.int64, np.int32)):
        arrays = masks, images, picks.astype(kind), index.astype(other)
        check(device_module, "patch_grid", *arrays, size=(16, 20), top=50, over=pair)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("layout", "width"), [("NCHW", 12), ("NHWC", 12), ("NHWC", 11)])
def test_what_is_not_there(device_module: ModuleType, dtype: str, layout: str, width: int) -> None:
    masks, images = sources(3, 3, 20, 24)
    pair = over(4, 5, 3, 16, width)
    picks = RNG.integers(0, 50, (14, 36))
    index = RNG.integers(0, 3, (14, 3))
    options: dict[str, Any] = {"size": (16, width), "top": 50, "dtype": dtype, "layout": layout, "over": pair}
    expected = core.patch_grid(masks, images, picks, index, **options)
    wrong = [(1, 0, -1), (2, 0, 4), (4, 1, 3), (5, 1, -(2**63)), (7, 2, 5), (8, 2, 2**32), (9, 1, 2**32)]
    for row, column, value in wrong:
        index[row, column] = value
    for row, pick, value in [(11, 0, -1), (12, 35, 50), (13, 17, 2**32)]:
        picks[row, pick] = value
    bad = [row for row, *_ in wrong] + [11, 12, 13]
    expected[bad] = 0 if dtype == "uint8" else 0x7FC0 if dtype == "bfloat16" else np.nan
    got = on_device(device_module, "patch_grid", masks, images, picks, index, **options)
    assert_equal_but_for_payloads(got, expected, dtype)
    few = np.array([0, 5])  # a list of windows for each sample
    got = on_device(device_module, "patch_grid", masks, images, picks[few], index[few], **options)
    assert_equal_but_for_payloads(got, expected[few], dtype)


@pytest.mark.parametrize("shift", [1, 2, 3])
def test_odd_addresses(device_module: ModuleType, shift: int) -> None:
    masks, images = sources(2, 3, 20, 24)
    picks, pair = RNG.integers(0, 50, (2, 36)), over(2, 2, 3, 16, 20)
    for dtype, layout in itertools.product(DTYPES, ["NCHW", "NHWC"]):
        options = {"size": (16, 20), "top": 50, "over": pair, "dtype": dtype, "layout": layout}
        check(device_module, "patch_grid", masks, images, picks, shift=shift, **options)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_an_out_at_an_odd_address(device_module: ModuleType, dtype: str, layout: str) -> None:
    images = uniform(2, 3, 6, 7)
    expected = core.resize(images, (9, 12), dtype=dtype, layout=layout)
    stream = cuda.Stream(0)
    for items in (1, 2, 4, 8):
        start = items * expected.itemsize
        memory = array_of(np.full(expected.nbytes + 2 * start, 0x5A, np.uint8), stream)
        out = memory.view(start, expected.shape, dtype)
        given = array_of(images, stream)
        assert ModuleOps(device_module).resize(given, (9, 12), dtype=dtype, layout=layout, out=out) is out
        np.testing.assert_array_equal(out.numpy(), expected)
        around = memory.numpy()
        assert (np.r_[around[:start], around[start + expected.nbytes :]] == 0x5A).all()


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 16])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_channels(device_module: ModuleType, channels: int, layout: str) -> None:
    masks, images = sources(2, channels, 20, 24)
    picks = RNG.integers(0, 50, (2, 36))
    scale, bias = RNG.uniform(50, 150, (2, channels)).astype(np.float32)
    form = {"scale": scale, "bias": bias, "clamp": (-0.9, 0.8), "layout": layout, "top": 50}
    for dtype, size in itertools.product(DTYPES, [(36, 12), (9, 5)]):
        pair = over(2, 2, channels, *size)
        check(device_module, "patch_grid", masks, images, picks, size=size, over=pair, dtype=dtype, **form)


SCALES = [
    ((1, 1), (5, 4)),
    ((7, 5), (200, 70)),
    ((64, 48), (64, 64)),
    ((64, 48), (50, 70)),
    ((64, 48), (7, 300)),
    ((300, 200), (33, 9)),  # rows of the taps lie apart
    ((500, 3), (1, 1)),
    ((130, 9), (129, 130)),
]


@pytest.mark.parametrize(("source", "size"), SCALES)
def test_resize(device_module: ModuleType, source: tuple[int, int], size: tuple[int, int]) -> None:
    for channels in (1, 3):
        check(device_module, "resize", uniform(2, channels, *source), size)
    check(device_module, "resize", uniform(1, 16, *source), size, layout="NHWC", dtype="float16")


def test_resize_to_the_same_size_changes_nothing(device_module: ModuleType) -> None:
    images = uniform(2, 3, 17, 5)
    np.testing.assert_array_equal(on_device(device_module, "resize", images, (17, 5)), images)


def test_special_values_pass(device_module: ModuleType) -> None:
    images = uniform(2, 3, 20, 24)
    for at, value in enumerate([np.nan, np.inf, -np.inf, 1e-45, -1e-45, 3e38]):
        images[at % 2, at % 3, 5, 3 * at] = value
    for dtype in DTYPES:
        check(device_module, "resize", images, (24, 40), dtype=dtype)
        check(device_module, "resize", images, (24, 40), dtype=dtype, clamp=(-1, 1), scale=2.0, bias=-0.0)
    masks, pair = RNG.random((2, 1, 20, 24), dtype=np.float32), over(2, 2, 3, 12, 16)
    pair[1][0, 0, 3, 3] = pair[0][1, 0, 4, 4] = np.nan
    picks = RNG.integers(0, 50, (2, 36))
    check(device_module, "patch_grid", masks, images, picks, size=(12, 16), top=50, over=pair)


def test_empty_batches(device_module: ModuleType) -> None:
    none = np.zeros((0, 36), np.int32)
    masks, images = sources(0, 3, 20, 24)

    def run(*arrays: Any, **options: Any) -> Array:
        return on_device(device_module, "patch_grid", *arrays, size=8, top=50, **options)

    assert run(masks, images, none).shape == (0, 3, 8, 8)
    assert run(masks, images, none, np.zeros((0, 1), int), layout="NHWC").shape == (0, 8, 8, 3)
    assert run(*sources(2, 3, 20, 24), none, np.zeros((0, 1), int)).shape == (0, 3, 8, 8)
    assert np.isnan(run(masks, images, np.zeros((2, 36), int), np.zeros((2, 1), int))).all()
    assert on_device(device_module, "resize", images, 8).shape == (0, 3, 8, 8)


def test_by_the_public_functions_and_on_their_stream(device_module: ModuleType) -> None:
    arrays = (*sources(2, 3, 20, 24), RNG.integers(0, 50, (2, 36)))
    expected = core.patch_grid(*arrays, size=8, top=50), core.resize(arrays[1], 8)
    producer, consumer = cuda.Stream(0), cuda.Stream(0)
    given = [array_of(x, producer) for x in arrays]
    for stream, where in ((None, producer), (consumer, consumer), (consumer.ptr, consumer)):
        results = (
            ops.patch_grid(*given, size=8, top=50, stream=stream),
            ops.resize(given[1], 8, stream=stream),
        )
        for result, wanted in zip(results, expected, strict=True):
            assert isinstance(result, cuda.DeviceArray)
            assert result.stream.ptr == where.ptr
            np.testing.assert_array_equal(result.numpy(), wanted)


def test_inputs_may_go_at_once(device_module: ModuleType) -> None:
    arrays = (*sources(2, 3, 20, 24), RNG.integers(0, 50, (2, 36)))
    producer, consumer = cuda.Stream(0), cuda.Stream(0)
    given = (ByDlpack(array_of(x, producer)) for x in arrays)
    result = ModuleOps(device_module).patch_grid(*given, size=8, top=50, stream=consumer)
    gc.collect()
    producer.synchronize()
    np.testing.assert_array_equal(result.numpy(), core.patch_grid(*arrays, size=8, top=50))


@pytest.mark.parametrize("form", [ByDlpack, ByInterface])
def test_inputs_and_out_of_others(device_module: ModuleType, form: Any) -> None:
    arrays = (
        *sources(2, 3, 20, 24),
        RNG.integers(0, 50, (3, 36)),
        np.array([[0, 1, 2], [2, 0, 1], [1, 1, 0]]),
    )
    pair = over(3, 3, 3, 8, 8)
    expected = core.patch_grid(*arrays, size=8, top=50, over=pair)
    producer, consumer = cuda.Stream(0), cuda.Stream(0)
    given, others = ([form(array_of(x, producer)) for x in group] for group in (arrays, pair))
    array = cuda.DeviceArray.empty(expected.shape, "float32", consumer)
    out = form(array)
    kept = ModuleOps(device_module).patch_grid(
        *given, size=8, top=50, over=tuple(others), out=out, stream=consumer
    )
    assert kept is out
    np.testing.assert_array_equal(array.numpy(), expected)


def test_nothing_waits_and_scratch_goes_back(emulated: ModuleType) -> None:
    stream = cuda.Stream(0)
    masks, images, picks = (*sources(2, 3, 20, 24), RNG.integers(0, 50, (2, 36)))
    given = [array_of(x, stream) for x in (masks, images, picks)]
    out = cuda.DeviceArray.empty((2, 3, 8, 8), "float32", stream)
    before = emulated.emulator_counters()[:3]
    ModuleOps(emulated).patch_grid(*given, size=8, top=50, out=out)
    ModuleOps(emulated).resize(given[1], 8, out=out)
    assert emulated.emulator_counters()[:3] == before


def test_on_a_second_device(emulated: ModuleType) -> None:
    arrays = (*sources(2, 3, 20, 24), RNG.integers(0, 50, (2, 36)))
    stream = cuda.Stream(1)
    result = ModuleOps(emulated).patch_grid(*(array_of(x, stream) for x in arrays), size=8, top=50)
    assert result.device == 1
    np.testing.assert_array_equal(result.numpy(), core.patch_grid(*arrays, size=8, top=50))


def test_what_is_refused(emulated: ModuleType) -> None:
    stream, other = cuda.Stream(0), cuda.Stream(1)
    host = (*sources(2, 3, 20, 24), RNG.integers(0, 50, (2, 36)))
    pair, index = over(2, 2, 3, 8, 8), np.zeros((2, 1), np.int32)
    m, x, p = (array_of(array, stream) for array in host)
    o, g = (array_of(array, stream) for array in pair)
    out = array_of(np.full((2, 3, 8, 8), 7, np.float32), stream)
    many = array_of(uniform(2, 17, 20, 24), stream)
    cases: list[tuple[tuple[Any, ...], dict[str, Any], type[Exception], str]] = [
        ((host[0], x, p), {}, ValueError, "patch_grid masks: device is cpu, expected a CUDA device"),
        ((m, host[1], p), {}, ValueError, "patch_grid images: device is cpu, expected"),
        ((m, x, host[2]), {}, ValueError, "patch_grid picks: device is cpu, expected"),
        ((m, x, p, index), {}, ValueError, "patch_grid index: device is cpu, expected"),
        ((m, array_of(host[1], other), p), {}, ValueError, "patch_grid images: device is cuda:1, expected"),
        ((m, x, p), {"over": (pair[0], g)}, ValueError, "patch_grid over's masks: device is cpu, expected"),
        ((m, x, p), {"over": (o, pair[1])}, ValueError, "patch_grid over's backgrounds: device is cpu, expected"),
        ((m, x, p), {"over": o}, ValueError, "patch_grid over's masks: shape is"),
        ((m, x, p), {"over": (o,)}, ValueError, r"patch_grid over: length is 1, expected 2, \(masks, backgrounds\)"),
        ((m, x, p), {"stream": other}, ValueError, "patch_grid stream: device is cuda:1, expected cuda:0"),
        ((m, ByInterface(x, data=(host[1].ctypes.data, False)), p), {}, ValueError, "images: address is that of host"),
        ((m, ByInterface(x, strides=(4, 4, 4, 4)), p), {}, ValueError, "patch_grid images: memory layout is strided"),
        ((m, x, p), {"out": np.zeros((2, 3, 8, 8), np.float32)}, ValueError, "patch_grid out: device is cpu"),
        ((m, x, p), {"out": ByInterface(out, data=(out.data_ptr, True))}, ValueError, "out: memory is read-only"),
        ((m, x, p), {"out": out, "dtype": "float16"}, ValueError, "patch_grid out: dtype is float32, expected float16"),
        ((m, x, p), {"out": out, "layout": "NHWC"}, ValueError, r"patch_grid out: shape is \(2, 3, 8, 8\), expected"),
        ((m, x, p), {"out": out, "over": (o, out)}, ValueError, "out: memory is shared with over's backgrounds"),
        ((m, many, p), {"out": out}, ValueError, "patch_grid images: channels is 17, expected at most 16 on a GPU"),
        ((m, x[:1], p), {"out": out}, ValueError, "patch_grid images: length is 1, expected 2, as many as masks"),
        ((m, x, p), {"out": out, "top": 61}, ValueError, r"patch_grid top: top is 61, expected 1\.\.60"),
        ((m, x, p), {"out": out, "patch": 21}, ValueError, r"patch_grid patch: patch is 21, expected 1\.\.20"),
        ((m, x, p), {"out": out, "grid": 5}, ValueError, r"picks: shape is \(2, 36\), expected \(n, grid \* grid\)"),
        ((m, x, x), {"out": out}, ValueError, "patch_grid picks: dtype is float32, expected int32 or int64"),
        ((m, x, p), {"size": 0}, ValueError, r"patch_grid size: size is 0, expected 1\.\.65536"),
        ((m, x, p), {"scale": [1, 2]}, ValueError, "patch_grid scale: length is 2, expected 3"),
        ((m, x, p), {"clamp": (1, 0)}, ValueError, r"patch_grid clamp: range is \(1, 0\)"),
        ((m, x, host[2].tolist()), {}, TypeError, "patch_grid picks: type is list, expected a tensor"),
    ]  # fmt: skip
    for given, options, error, message in cases:
        with pytest.raises(error, match=message):
            ModuleOps(emulated).patch_grid(*given, **{"size": 8, "top": 50} | options)
    resizes: list[tuple[Any, dict[str, Any], str]] = [
        (host[1], {}, "resize images: device is cpu, expected a CUDA device"),
        (many, {}, "resize images: channels is 17, expected at most 16 on a GPU"),
        (x, {"out": g[1:]}, r"resize out: shape is \(1, 3, 8, 8\), expected \(2, 3, 8, 8\)"),
        (
            ByInterface(x, shape=(1, 1, 1 << 15, 1 + (1 << 15))),
            {},
            r"resize images: shape is .* at most 2\^30 pixels",
        ),
        (x, {"stream": other}, "resize stream: device is cuda:1, expected cuda:0"),
    ]
    for images, options, message in resizes:
        with pytest.raises(ValueError, match=message):
            ModuleOps(emulated).resize(images, 8, **options)
    assert (out.numpy() == 7).all()  # nothing was enqueued
    expected = core.patch_grid(*host, size=8, top=50)
    np.testing.assert_array_equal(
        ModuleOps(emulated).patch_grid(m, x, p, size=8, top=50, out=out).numpy(), expected
    )


def test_a_result_beyond_the_memory(emulated: ModuleType) -> None:
    emulated.emulator_configure(memory_bytes=1 << 20)
    images = array_of(uniform(1, 1, 4, 4), cuda.Stream(0))
    with pytest.raises(MemoryError, match=r"1048576 bytes are wanted, \d+ of 1048576 are free on cuda:0"):
        ModuleOps(emulated).resize(images, 512)
    assert ModuleOps(emulated).resize(images, 8).shape == (1, 1, 8, 8)


@pytest.mark.gpu
def test_more_samples_than_one_dimension_of_a_grid_takes() -> None:
    masks, images = sources(3, 1, 4, 4)
    picks = RNG.integers(0, 9, (70_000, 4)).astype(np.int32)
    index = RNG.integers(0, 3, (70_000, 1)).astype(np.int32)
    options = {"patch": 2, "grid": 2, "top": 9, "size": 4}
    check(cuda.module(), "patch_grid", masks, images, picks, index, **options)
    masks, images = sources(70_000, 1, 4, 4)
    check(cuda.module(), "patch_grid", masks, images, picks, **options)


@pytest.mark.gpu
def test_lists_beyond_the_scratch_are_ranked_after_each_other() -> None:
    masks, images = sources(6000, 1, 128, 128)  # 312 MB of sums
    picks = RNG.integers(0, 100, (6000, 36))
    got = on_device(cuda.module(), "patch_grid", masks, images, picks, size=8)
    np.testing.assert_array_equal(got, core.patch_grid(masks, images, picks, size=8))


def test_in_a_graph(device_module: ModuleType) -> None:
    module, stream = device_module, cuda.Stream(0)
    host = (*sources(2, 3, 64, 64), RNG.integers(0, 100, (2, 36)))
    given = [array_of(x, stream) for x in host]
    out = cuda.DeviceArray.empty((2, 3, 96, 96), "float32", stream)
    stream.begin_capture()
    ModuleOps(module).patch_grid(*given, size=96, out=out)
    graph = stream.end_capture()
    for _ in range(2):
        host[0][...] = RNG.random(host[0].shape)
        given[0].upload(host[0])
        graph.launch(stream)
        np.testing.assert_array_equal(out.numpy(), core.patch_grid(*host, size=96))


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["paper", "paper-blended", "pool-blended", "shrunk"])
def test_against_torch(name: str) -> None:
    """torch's tensors in and out, on its stream; in float32 on the CPU its sums differ as in tests/ops."""
    import torch

    case = PatchGridCase(next(case for case in CASES if case["name"] == name))
    given = [
        None if x is None else torch.from_numpy(x).cuda()
        for x in (case.masks, case.images, case.picks, case.index)
    ]
    pair = None if case.over is None else tuple(torch.from_numpy(x).cuda() for x in case.over)
    expected = case.torch(torch.float64).numpy()
    out = torch.full(expected.shape, torch.nan, device="cuda")
    stream = torch.cuda.current_stream().cuda_stream or 1  # 1: the legacy default stream
    result = ops.patch_grid(*given, size=case.size, top=case.top, over=pair, out=out, stream=stream)
    assert result is out
    np.testing.assert_allclose(out.cpu().numpy(), expected, rtol=0, atol=2e-6)
