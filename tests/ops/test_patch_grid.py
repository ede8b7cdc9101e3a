"""patch_grid and resize against torch (to a tolerance) and against their scalar reference (bit by bit)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from module_ops import core
from patch_grid_cases import CASES, PatchGridCase

from cgnrt import ops
from cgnrt.sampling import patch_picks

# To torch in float64: float32 sums of four products twice. Between torch in float32 and float64 the source's places
# differ by 2^-18 at 90 pixels, times slopes of up to two a pixel.
TOLERANCE, TOLERANCE_FLOAT32 = 2e-6, 3e-5


@pytest.fixture(params=CASES, ids=[case["name"] for case in CASES])
def patch_case(request: pytest.FixtureRequest) -> PatchGridCase:
    return PatchGridCase(request.param)


def test_the_reference_equals_torch(patch_case: PatchGridCase) -> None:
    got = patch_case.run(implementation="reference", dtype="float32", layout="NCHW", scale=None, bias=None)
    np.testing.assert_allclose(got, patch_case.torch(torch.float64).numpy(), rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(got, patch_case.torch(torch.float32).numpy(), rtol=0, atol=TOLERANCE_FLOAT32)


def test_every_variant_equals_the_reference(patch_case: PatchGridCase, implementation: str) -> None:
    expected = patch_case.run(implementation="reference")
    got = patch_case.run(implementation=implementation)
    assert got.dtype == expected.dtype
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_change_no_bit(patch_case: PatchGridCase, threads: int) -> None:
    np.testing.assert_array_equal(patch_case.run(threads=threads), patch_case.run(threads=1))


def test_the_form_is_that_of_compose(patch_case: PatchGridCase) -> None:
    """Scale, bias, cast and layout of the plain result by compose: mask 1 and a background of -0 change nothing."""
    plain = patch_case.run(dtype="float32", layout="NCHW", scale=None, bias=None)
    n, c, h, w = plain.shape
    ones, zeros = np.ones((n, 1, h, w), np.float32), np.full((n, c, h, w), -0.0, np.float32)
    form = {key: value for key, value in patch_case.form.items() if key != "clamp"}
    np.testing.assert_array_equal(patch_case.run(), ops.compose(ones, plain, zeros, **form))


def test_a_grid_as_a_foreground_need_not_be_stored() -> None:
    case = PatchGridCase(next(case for case in CASES if case["name"] == "pool-blended"))
    assert case.over is not None
    assert case.index is not None
    sources = np.ascontiguousarray(case.index[:, 1:2])
    stored = ops.patch_grid(case.masks, case.images, case.picks, sources, size=case.size)
    order = np.arange(len(stored))
    index = np.stack([case.index[:, 0], order, case.index[:, 2]], axis=1)
    np.testing.assert_array_equal(case.run(), ops.compose(case.over[0], stored, case.over[1], index))


def test_equal_windows_rank_by_place() -> None:
    """On an even mask rank k is window k, row by row."""
    mask = np.full((1, 1, 6, 7), 0.25, np.float32)
    image = np.arange(42, dtype=np.float32).reshape(1, 1, 6, 7)
    for rank in range(30):  # 5 x 6 windows of 2 x 2
        got = ops.patch_grid(mask, image, [[rank]] * np.ones((1, 1), int), patch=2, grid=1, top=30, size=2)
        y, x = divmod(rank, 6)
        np.testing.assert_array_equal(got[0, 0], image[0, 0, y : y + 2, x : x + 2])


def test_differences_finer_than_the_fixed_point_do_not_count() -> None:
    mask = np.full((1, 1, 1, 2), 0.25, np.float32)
    mask[..., 1] += 2.0**-26
    image = np.array([[[[1, 2]]]], np.float32)
    first = np.zeros((1, 1), np.int32)
    assert ops.patch_grid(mask, image, first, patch=1, grid=1, top=2, size=1).item() == 1
    mask[..., 1] = np.nextafter(np.float32(1), np.float32(0))
    assert ops.patch_grid(mask, image, first, patch=1, grid=1, top=2, size=1).item() == 2


def test_picks_are_a_function_of_seed_and_index() -> None:
    picks = patch_picks(5, np.arange(50))
    assert picks.shape == (50, 36)
    np.testing.assert_array_equal(picks[[7, 3]], patch_picks(5, np.array([7, 3])))
    assert (picks.min(), picks.max()) == (0, 99)
    assert abs(picks.mean() - 49.5) < 3  # of 1,800 draws: 4 standard deviations
    assert (picks != patch_picks(6, np.arange(50))).mean() > 0.9
    np.testing.assert_array_equal(
        patch_picks(5, np.arange(3), top=7, grid=2), picks[:3, :4] * 0 + _scaled(picks, 7)
    )


def _scaled(picks: npt.NDArray[np.int32], bound: int) -> npt.NDArray[np.int32]:
    """The first four draws of three samples below another bound: the same words."""
    words = ops.philox(5, np.arange(3), 13, 1).astype(np.uint64)
    return ((words * np.uint64(bound)) >> np.uint64(32)).astype(np.int32)


def test_nans_of_images_pass_and_those_of_unused_masks_too() -> None:
    case = PatchGridCase(next(case for case in CASES if case["name"] == "paper"))
    case.images[0] = np.nan
    got = case.run()
    assert np.isnan(got[0]).all()
    assert np.isfinite(got[1]).all()
    case.masks[0, 0, 0, 0] = np.nan
    case.index = np.array([[1], [1]])
    assert np.isfinite(case.run()).all()


@pytest.mark.parametrize("size", [(64, 64), (50, 70), (7, 300), (128, 96), (1, 1), 33])
def test_resize_equals_torch(size: Any, implementation: str) -> None:
    images = np.random.default_rng(0).uniform(-1, 1, (3, 2, 64, 48)).astype(np.float32)
    got = core.resize(images, size, implementation=implementation)
    sides = (size, size) if isinstance(size, int) else size
    expected = F.interpolate(torch.from_numpy(images).double(), size=sides, mode="bicubic")
    np.testing.assert_allclose(got, expected.numpy(), rtol=0, atol=TOLERANCE)
    np.testing.assert_array_equal(got, core.resize(images, size, implementation="reference"))


def test_resize_of_one_pixel_and_to_the_same_size() -> None:
    images = np.random.default_rng(0).random((2, 3, 1, 1), dtype=np.float32)
    np.testing.assert_allclose(ops.resize(images, (5, 4)), np.broadcast_to(images, (2, 3, 5, 4)), atol=1e-6)
    images = np.random.default_rng(0).random((2, 3, 17, 5), dtype=np.float32)
    np.testing.assert_array_equal(ops.resize(images, (17, 5)), images)
    as_bytes = ops.resize(images, (17, 5), dtype="uint8", layout="NHWC", scale=255, clamp=(0, 1))
    np.testing.assert_array_equal(
        as_bytes, np.rint(images * np.float32(255)).astype(np.uint8).transpose(0, 2, 3, 1)
    )


def test_empty_batches() -> None:
    none = np.zeros((0, 36), np.int32)
    m, x = np.zeros((0, 1, 32, 32), np.float32), np.zeros((0, 3, 32, 32), np.float32)
    assert ops.patch_grid(m, x, none, size=8).shape == (0, 3, 8, 8)
    assert ops.patch_grid(m, x, none, np.zeros((0, 1), int), size=8, layout="NHWC").shape == (0, 8, 8, 3)
    assert ops.resize(x, 8).shape == (0, 3, 8, 8)


M = np.random.default_rng(0).random((4, 1, 20, 24), dtype=np.float32)
X = np.random.default_rng(1).random((4, 3, 20, 24), dtype=np.float32)
P = np.zeros((4, 36), np.int32)
OVER = (np.ones((4, 1, 16, 16), np.float32), np.ones((4, 3, 16, 16), np.float32))
NAN = M.copy()
NAN[2, 0, 3, 4] = np.nan
ABOVE = M.copy()
ABOVE[1, 0, 0, 1] = 1.5
SHARED = np.zeros(4 * 3 * 16 * 16 + 4 * 3 * 20 * 24, np.float32)
SHARED_X = SHARED[: X.size].reshape(X.shape)

BAD: list[tuple[dict[str, Any], str]] = [
    ({"masks": M.astype(np.float16)}, "patch_grid masks: dtype is float16, expected float32."),
    ({"masks": M[:, :, :, ::2]}, "patch_grid masks: memory layout is strided, expected C-contiguous."),
    ({"masks": M[:, 0]}, "patch_grid masks: shape is (4, 20, 24), expected (S, 1, h, w)."),
    (
        {"masks": np.ones((4, 2, 20, 24), np.float32)},
        "patch_grid masks: shape is (4, 2, 20, 24), expected (S, 1",
    ),
    ({"images": X[:3]}, "patch_grid images: length is 3, expected 4, as many as masks."),
    (
        {"images": np.ones((4, 3, 20, 25), np.float32)},
        "patch_grid images: shape is (4, 3, 20, 25), expected (S, c, 20, 24) like masks.",
    ),
    ({"masks": NAN}, "patch_grid masks: masks[2, 0, 3, 4] is nan, expected 0..1."),
    ({"masks": ABOVE}, "patch_grid masks: masks[1, 0, 0, 1] is 1.5, expected 0..1."),
    ({"picks": P[:, :35].copy()}, "patch_grid picks: shape is (4, 35), expected (n, grid * grid)."),
    ({"picks": P.astype(np.float32)}, "patch_grid picks: dtype is float32, expected int32 or int64."),
    ({"picks": P + 60}, "patch_grid picks: picks[0, 0] is 60, expected 0..49 (below top)."),
    ({"picks": P - 1}, "patch_grid picks: picks[0, 0] is -1, expected 0..49"),
    ({"picks": P[:3]}, "patch_grid images: length is 4, expected 3 as in picks, since index is None."),
    ({"patch": 21}, "patch_grid patch: patch is 21, expected 1..20 (within a mask)."),
    ({"patch": 0}, "patch_grid patch: patch is 0, expected 1..255."),
    ({"grid": 65}, "patch_grid grid: grid is 65, expected 1..64."),
    ({"top": 61}, "patch_grid top: top is 61, expected 1..60 (the windows of a mask)."),
    ({"top": 0}, "patch_grid top: top is 0, expected 1.."),
    ({"size": 0}, "patch_grid size: size is 0, expected 1..65536."),
    ({"size": (3, 4, 5)}, "patch_grid size: length is 3, expected 2, (height, width)."),
    (
        {"index": np.zeros((4, 3), int)},
        "patch_grid index: shape is (4, 3), expected (n, 1), since over is None.",
    ),
    ({"index": np.full((4, 1), 4)}, "patch_grid index: index[0, 0] is 4, expected 0..3."),
    (
        {"index": np.zeros((3, 1), int)},
        "patch_grid index: length is 3, expected 4, one row for each of picks.",
    ),
    ({"over": OVER[:1]}, "patch_grid over: length is 1, expected 2, (masks, backgrounds)."),
    ({"over": 3}, "patch_grid over: length is 0, expected 2, (masks, backgrounds)."),
    (
        {"over": OVER, "size": 17},
        "patch_grid over's masks: shape is (4, 1, 16, 16), expected (M, 1, 17, 17)",
    ),
    (
        {"over": (OVER[0], OVER[1][:, :2].copy())},
        "patch_grid over's backgrounds: shape is (4, 2, 16, 16), ",
    ),
    ({"over": (OVER[0][:3], OVER[1])}, "patch_grid over's masks: length is 3, expected 4 as in picks"),
    (
        {"over": OVER, "index": np.array([[0, 0, 4]] * 4)},
        "patch_grid index: index[0, 2] is 4, expected 0..3.",
    ),
    (
        {"over": OVER, "index": np.array([[-1, 0, 0]] * 4)},
        "patch_grid index: index[0, 0] is -1, expected 0..3.",
    ),
    ({"dtype": "float64"}, "patch_grid dtype: dtype is 'float64', expected one of 'float32'"),
    ({"layout": "CHWN"}, "patch_grid layout: layout is 'CHWN', expected one of"),
    ({"scale": [1, 2]}, "patch_grid scale: length is 2, expected 3, one for each channel."),
    ({"bias": float("nan")}, "patch_grid bias: bias[0] is nan, expected finite."),
    ({"clamp": (1, 0)}, "patch_grid clamp: range is (1, 0), expected (low, high) with low <= high."),
    ({"threads": -1}, "patch_grid threads: threads is -1, expected 0..1024."),
    (
        {"out": np.ones((4, 3, 16, 17), np.float32)},
        "patch_grid out: shape is (4, 3, 16, 17), expected (4, 3, 16, 16).",
    ),
    (
        {"images": SHARED_X, "out": SHARED[100 : 100 + 4 * 3 * 256].reshape(4, 3, 16, 16)},
        "patch_grid out: memory is shared with images, expected memory of its own.",
    ),
]


@pytest.mark.parametrize(("changes", "message"), BAD, ids=[message[:60] for _, message in BAD])
def test_bad_arguments(changes: dict[str, Any], message: str) -> None:
    arguments = {"masks": M, "images": X, "picks": P, "size": 16, "top": 50} | changes
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is compared below
        ops.patch_grid(**arguments)
    assert str(caught.value).startswith(message)


def test_bad_arguments_of_resize() -> None:
    for images, size, message in [
        (X.astype(np.float64), 8, "resize images: dtype is float64, expected float32."),
        (X[0], 8, r"resize images: shape is \(3, 20, 24\), expected \(n, c, h, w\)."),
        (X, (8, 0), "resize size: size is 0, expected 1..65536."),
    ]:
        with pytest.raises(ValueError, match=message):
            ops.resize(images, size)
    with pytest.raises(TypeError, match="resize size: type is float, expected an int"):
        ops.resize(X, 1.5)


def test_an_out_is_written_and_given_back() -> None:
    out = np.full((4, 3, 16, 16), 7, np.float32)
    assert ops.patch_grid(M, X, P, size=16, top=50, out=out) is out
    np.testing.assert_array_equal(out, ops.patch_grid(M, X, P, size=16, top=50))
