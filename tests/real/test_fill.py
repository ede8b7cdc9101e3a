"""The background without the object."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cgnrt.real import fill_object
from cgnrt.real.fill import free_rectangle


def largest_by_trying(taken: np.ndarray[Any, Any]) -> int:
    """The area of the largest all-free rectangle, by trying them all."""
    h, w = taken.shape
    sums = np.pad(taken.astype(int), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    best = 0
    for top in range(h):
        for bottom in range(top + 1, h + 1):
            for left in range(w):
                for right in range(left + 1, w + 1):
                    inside = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
                    wide = bottom - top >= h / 16 and right - left >= w / 16
                    if not inside and wide:
                        best = max(best, (bottom - top) * (right - left))
    return best


@pytest.mark.parametrize("seed", range(8))
def test_the_rectangle_is_the_largest(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = np.zeros((19, 23), np.float32)
    for _ in range(4):
        mask[rng.integers(19), rng.integers(23)] = 1
    found = free_rectangle(mask)
    assert found is not None
    top, left, bottom, right = found
    wide = np.zeros(mask.shape, bool)  # the object with its margin of a pixel
    for y, x in np.argwhere(mask):
        wide[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2] = True
    assert not wide[top:bottom, left:right].any()
    assert (bottom - top) * (right - left) == largest_by_trying(wide)


def test_large_photos_are_searched_by_cells() -> None:
    mask = np.zeros((250, 333), np.float32)
    mask[100:150, 50:150] = 1
    found = free_rectangle(mask)
    assert found is not None
    top, left, bottom, right = found
    assert not mask[top:bottom, left:right].any()
    assert (top, bottom, right) == (0, 250, 333)  # to the photo's very edges, which end within a cell
    assert 157 <= left <= 162  # the object's end, its margin of 7, and a cell of 4


def test_the_object_is_gone_and_the_rest_is_kept() -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros((64, 64), np.float32)
    mask[20:40, 10:30] = 1
    pixels = rng.random((3, 64, 64), dtype=np.float32)
    pixels[:, mask > 0] = 9
    filled = fill_object(pixels, mask)
    assert filled.dtype == np.float32
    assert filled.max() <= 1
    far = np.ones((64, 64), bool)
    far[16:44, 6:34] = False  # the object and two margins, each of a pixel, and the fade
    np.testing.assert_array_equal(filled[:, far], pixels[:, far])


def test_tiles_are_mirrored() -> None:
    mask = np.ones((8, 40), np.float32)
    mask[:, :10] = 0
    pixels = np.broadcast_to(np.arange(40, dtype=np.float32), (1, 8, 40))
    free = free_rectangle(mask)
    assert free == (0, 0, 8, 9)  # a margin of a pixel
    row = fill_object(np.ascontiguousarray(pixels), mask)[0, 0]
    np.testing.assert_array_equal(row[12:27], [5, 4, 3, 2, 1, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8])


@pytest.mark.parametrize("size", [(3, 256, 256), (3, 64, 96), (1, 8, 40)])
def test_the_layout_is_that_of_the_ops(size: tuple[int, int, int]) -> None:
    mask = np.zeros(size[1:], np.float32)
    mask[size[1] // 3 : size[1] // 2, size[2] // 3 : size[2] // 2] = 1
    for pixels in (np.zeros(size, np.float32), np.zeros((*size[1:], size[0]), np.float32).transpose(2, 0, 1)):
        assert fill_object(pixels, mask).flags.c_contiguous


def test_no_background_is_an_error() -> None:
    mask = np.ones((64, 64), np.float32)
    mask[:, :4] = 0  # 3 columns beside the margin
    assert free_rectangle(mask) is None
    with pytest.raises(
        ValueError, match=r"fill: the object covers 94% of the photo, expected a rectangle free"
    ):
        fill_object(np.zeros((3, 64, 64), np.float32), mask)
    assert free_rectangle(np.zeros((64, 64), np.float32)) == (0, 0, 64, 64)
