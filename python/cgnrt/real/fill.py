"""A photo's background without its object.

As for Mixed-Rand of Xiao et al. (Noise or Signal, 2020), tiles of a large rectangle without the object fill the
object's place. Here every second tile is mirrored, so that there are no seams, and the fill fades into the photo around
the object.
"""

from __future__ import annotations

import numpy as np

_CELLS = 96  # along a photo's longer side, in the search for the rectangle
_OBJECT = 0.05  # a pixel with a higher mask value may show the object
_MARGIN = 0.02  # of the longer side: objects reach a little beyond their masks
_SMALLEST = 1 / 16  # of a photo's sides; a narrower rectangle makes stripes

Rectangle = tuple[int, int, int, int]  # top, left, bottom, right, in pixels, the last two exclusive


def fill_object(pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The photo without its object.

    Args:
      pixels: (c, h, w) float32.  mask: (h, w) float32 in [0, 1], high where the object is.
    Returns:
      (c, h, w) float32; pixels outside the object and a margin around it are unchanged.
    Raises:
      ValueError: the object leaves no free rectangle of at least 1/16 of the photo's height and width.
    """
    rectangle = free_rectangle(mask)
    if rectangle is None:
        raise ValueError(
            f"fill: the object covers {np.mean(mask > _OBJECT):.0%} of the photo, expected a rectangle free of it "
            "of at least 1/16 of height and width. Leave the photo out."
        )
    return fill_from(pixels, mask, rectangle)


def fill_from(pixels: np.ndarray, mask: np.ndarray, rectangle: Rectangle) -> np.ndarray:
    """`fill_object`, with the rectangle that `free_rectangle` found."""
    top, left, bottom, right = rectangle
    height, width = mask.shape
    rows = _mirrored(np.arange(height), top, bottom)
    columns = _mirrored(np.arange(width), left, right)
    tiles = pixels[:, rows[:, None], columns[None, :]]
    weight = _hole(mask)
    filled: np.ndarray = weight * tiles + (1 - weight) * pixels
    return np.ascontiguousarray(filled, np.float32)


def free_rectangle(mask: np.ndarray) -> Rectangle | None:
    """The largest rectangle of (h, w) without the object and its margin; None if every one is too small.

    Of rectangles of one area it is the one with the highest lower edge, then the one with the leftmost right edge.
    """
    height, width = mask.shape
    cell = -(-max(height, width) // _CELLS)
    taken = _widened(mask > _OBJECT, _margin(mask.shape))
    padded = np.pad(taken, ((0, -height % cell), (0, -width % cell)))
    blocks = padded.reshape(padded.shape[0] // cell, cell, padded.shape[1] // cell, cell)
    cells = blocks.max(axis=(1, 3))
    best, found = 0, None
    depth = np.zeros(cells.shape[1], np.int64)  # number of free cells from this one upward
    # Where a row takes nothing that is free in the one above it, every rectangle of that one goes on.
    ends = np.append(np.any(cells[1:] & ~cells[:-1], axis=1), True)
    for y, row in enumerate(cells):
        depth = np.where(row, 0, depth + 1)
        if not ends[y]:
            continue
        for x0, deep, x1 in _maximal(depth.tolist()):
            top, left = (y + 1 - deep) * cell, x0 * cell
            bottom, right = min((y + 1) * cell, height), min(x1 * cell, width)
            area = (bottom - top) * (right - left)
            wide = bottom - top >= height * _SMALLEST and right - left >= width * _SMALLEST
            if wide and area > best:
                best, found = area, (top, left, bottom, right)
    return found


def _maximal(depth: list[int]) -> list[tuple[int, int, int]]:
    """The rectangles on one row that cannot be widened: (left, height, right)."""
    found = []
    open_since: list[tuple[int, int]] = []  # (left, height), heights rising
    for x, here in enumerate([*depth, 0]):
        left = x
        while open_since and open_since[-1][1] >= here:
            left, deep = open_since.pop()
            found.append((left, deep, x))
        if here:
            open_since.append((left, here))
    return found


def _mirrored(places: np.ndarray, begin: int, end: int) -> np.ndarray:
    """For each place the source of its pixel: tiles of begin..end-1, every second one mirrored."""
    length = end - begin
    phase = (places - begin) % (2 * length)
    return begin + np.where(phase < length, phase, 2 * length - 1 - phase)


def _hole(mask: np.ndarray) -> np.ndarray:
    """The fill's weight: 1 on the object and its margin, fading to 0 within another margin."""
    margin = _margin(mask.shape)
    inner = _widened(mask > _OBJECT, margin)
    outer = _widened(inner, margin).astype(np.float32)
    return np.where(inner, np.float32(1), _blurred(outer, margin))


def _margin(shape: tuple[int, ...]) -> int:
    return max(1, round(_MARGIN * max(shape)))


def _widened(taken: np.ndarray, margin: int) -> np.ndarray:
    """True within `margin` pixels of a True pixel, along both axes."""
    for axis in (0, 1):
        padding = [(0, 0), (0, 0)]
        padding[axis] = (margin, margin)
        counts = np.pad(taken, padding).cumsum(axis)
        counts = np.insert(counts, 0, 0, axis)
        length = taken.shape[axis]
        ends = np.arange(length) + 2 * margin + 1
        taken = counts.take(ends, axis) > counts.take(np.arange(length), axis)
    return taken


def _blurred(weight: np.ndarray, margin: int) -> np.ndarray:
    """Means over squares of 2 * margin + 1 pixels; the photo's edges are repeated."""
    for axis in (0, 1):
        padding = [(0, 0), (0, 0)]
        padding[axis] = (margin, margin)
        sums = np.insert(np.pad(weight, padding, "edge").cumsum(axis, dtype=np.float64), 0, 0, axis)
        length = weight.shape[axis]
        ends = np.arange(length) + 2 * margin + 1
        means = (sums.take(ends, axis) - sums.take(np.arange(length), axis)) / (2 * margin + 1)
        weight = means.astype(np.float32)
    return weight
