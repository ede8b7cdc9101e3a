"""The place of an object in compose: what it means, and what is refused."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from module_ops import core

from cgnrt import ops

RNG = np.random.default_rng(5)
M = RNG.random((3, 1, 20, 33), dtype=np.float32)
F = RNG.uniform(-1, 1, (3, 3, 20, 33)).astype(np.float32)
B = RNG.uniform(-1, 1, (3, 3, 20, 33)).astype(np.float32)
INDEX = np.array([[0, 1, 2], [2, 0, 0]], np.int32)
PLACE = np.array([[1, 2, 0.5, 1], [0, 0, 1, 0]], np.float32)

PLACE_RULE = (
    "compose place: place[1] is (nan, 0, 1, 0), expected (dy, dx, scale, flip): finite numbers, scale above 0, "
    "flip 0 or 1."
)


def rows(*places: tuple[float, float, float, float]) -> npt.NDArray[np.float32]:
    return np.array(places, np.float32)


def shifted(pictures: npt.NDArray[Any], dy: int, dx: int) -> npt.NDArray[Any]:
    """`numpy.roll` without the wrap."""
    moved = np.roll(pictures, (dy, dx), (1, 2))
    y, x = np.indices(pictures.shape[1:])
    inside = (y >= dy) & (y < y.shape[0] + dy) & (x >= dx) & (x < x.shape[1] + dx)
    return np.where(inside, moved, 0).astype(pictures.dtype)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "uint8"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_whole_pixels_are_a_roll_without_the_wrap(
    implementation: str, dtype: str, layout: str, flip: bool
) -> None:
    shifts = [(0, 0), (3, -5), (-19, 32), (1, 0), (0, -1), (20, 0), (0, -33), (400, 7)]
    place = rows(*((dy, dx, 1, flip) for dy, dx in shifts))
    index = RNG.integers(0, 3, (len(shifts), 3)).astype(np.int32)
    rolls = RNG.integers(0, 20, (len(shifts), 2, 2)).astype(np.int32)
    options: dict[str, Any] = {"dtype": dtype, "layout": layout, "implementation": implementation}
    options |= {"scale": 127.5, "bias": 127.5} if dtype == "uint8" else {}
    m, f, b = M[index[:, 0]], F[index[:, 1]], B[index[:, 2]]
    for i, (texture, background) in enumerate(rolls):
        f[i], b[i] = np.roll(f[i], texture, (1, 2)), np.roll(b[i], background, (1, 2))
    m, f = (x[..., ::-1] if flip else x for x in (m, f))
    m, f = (np.stack([shifted(p, *by) for p, by in zip(x, shifts, strict=True)]) for x in (m, f))
    found = core.compose(M, F, B, index, rolls=rolls, place=place, **options)
    np.testing.assert_array_equal(found, core.compose(m, f, b, **options))


@pytest.mark.parametrize("dtype", ["float16", "uint8"])
def test_where_nothing_moves_every_bit_stays(implementation: str, dtype: str) -> None:
    options: dict[str, Any] = {"implementation": implementation, "dtype": dtype}
    options |= {"scale": 127.5, "bias": 127.5} if dtype == "uint8" else {}
    pools = [(x * 127.5 + 127.5).astype(np.uint8) if dtype == "uint8" else x for x in (M, F, B)]
    still = rows(*[(0, 0, 1, 0)] * 3)
    np.testing.assert_array_equal(
        core.compose(*pools, place=still, **options), core.compose(*pools, **options)
    )


def test_infinite_neighbours_that_have_no_weight_change_nothing(implementation: str) -> None:
    f = np.full((1, 1, 8, 40), np.inf, np.float32)
    f[..., ::2] = RNG.random((1, 1, 8, 20), dtype=np.float32)
    m, b = np.ones_like(f), np.full_like(f, -0.0)
    found = core.compose(m, f, b, place=rows((2, 4, 1, 0)), implementation=implementation)
    np.testing.assert_array_equal(found[..., 2:, 4:], f[..., :-2, :-4])


@pytest.mark.parametrize("scale", [0.25, 0.5, 1.5, 3])
def test_a_disc_gets_the_size_and_the_middle_that_are_asked_for(implementation: str, scale: float) -> None:
    y, x = np.indices((96, 128))
    disc = np.clip(12.5 - np.hypot(y - 47.5, x - 63.5), 0, 1).astype(np.float32)[None, None]
    place = rows((10.5, -20.25, scale, 0))
    moved = core.compose(
        disc, np.ones_like(disc), np.zeros_like(disc), place=place, implementation=implementation
    )[0, 0]
    area = moved.sum()
    assert area == pytest.approx(disc.sum() * scale**2, rel=0.05)
    assert (moved * y).sum() / area == pytest.approx(47.5 + 10.5, abs=0.2)
    assert (moved * x).sum() / area == pytest.approx(63.5 - 20.25, abs=0.2)


def test_the_background_stays_and_an_object_outside_leaves_it_alone(implementation: str) -> None:
    outside = rows((0, 40, 1, 0), (-25, 0, 1, 1), (0, 0, 1e-20, 0))
    found = core.compose(M, F, B, place=outside[:2], index=INDEX, implementation=implementation)
    np.testing.assert_array_equal(found, B[INDEX[:, 2]])
    vanishing = core.compose(M, F, B, place=outside[[2] * 3], implementation=implementation)
    assert (vanishing == B).mean() > 0.99  # at most the pixel in the middle


@pytest.mark.parametrize(
    ("place", "error", "message"),
    [
        (PLACE.astype(np.float64), ValueError, "compose place: dtype is float64, expected float32."),
        (PLACE[:, :3].copy(), ValueError, "compose place: shape is (2, 3), expected (n, 4). Its columns are dy,"),
        (PLACE[:1], ValueError, "compose place: length is 1, expected 2."),
        (np.repeat(PLACE, 2, axis=1)[:, ::2], ValueError, "compose place: memory layout is strided"),
        (rows((0, 0, 1, 0), (np.nan, 0, 1, 0)), ValueError, PLACE_RULE),
        (rows((0, -np.inf, 1, 0), (0, 0, 1, 0)), ValueError, "compose place: place[0] is (0, -inf, 1, 0), expected"),
        (rows((0, 0, 0, 0), (0, 0, 1, 0)), ValueError, "compose place: place[0] is (0, 0, 0, 0), expected"),
        (rows((0, 0, -1, 0), (0, 0, 1, 0)), ValueError, "compose place: place[0] is (0, 0, -1, 0), expected"),
        (rows((0, 0, 1, 0.5), (0, 0, 1, 0)), ValueError, "compose place: place[0] is (0, 0, 1, 0.5), expected"),
        (PLACE.tolist(), TypeError, "compose place: type is list, expected a tensor"),
    ],
)  # fmt: skip
def test_what_is_refused(place: Any, error: type[Exception], message: str) -> None:
    out = np.full((2, 3, 20, 33), 7, np.float32)
    with pytest.raises(error, match=re.escape(message)):
        ops.compose(M, F, B, INDEX, place=place, out=out)
    assert (out == 7).all()


def test_pictures_that_float32_cannot_count_are_refused() -> None:
    m = np.zeros((1, 1, 1, (1 << 22) + 1), np.float16)
    with pytest.raises(
        ValueError, match=r"compose masks: shape is .*, expected at most 2.22 rows and columns"
    ):
        ops.compose(m, m, m, place=rows((0, 0, 1, 0)))


def test_memory_of_the_result_must_be_apart_from_the_places() -> None:
    memory = np.zeros(64, np.float32)
    m = np.zeros((2, 1, 2, 2), np.float32)
    place, out = memory[:8].reshape(2, 4), memory[4:12].reshape(2, 1, 2, 2)
    with pytest.raises(ValueError, match="compose out: memory is shared with place"):
        ops.compose(m, m, m, place=place, out=out)


def test_an_empty_batch() -> None:
    found = ops.compose(M, F, B, INDEX[:0], place=PLACE[:0])
    assert found.shape == (0, 3, 20, 33)
