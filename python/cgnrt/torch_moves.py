"""Pictures moved by whole pixels on a torus, or put elsewhere and scaled, as torch operations.

Values are rounded step by step as in csrc/ops/place.h.
"""

from __future__ import annotations

import torch
from torch import Tensor


def roll(pictures: Tensor, shifts: Tensor) -> Tensor:
    """Shift picture i of (n, c, h, w) cyclically by `shifts[i]` = (dy, dx)."""
    n, channels, height, width = pictures.shape
    there, shifts = pictures.device, shifts.long()
    rows = (torch.arange(height, device=there) - shifts[:, :1]) % height
    columns = (torch.arange(width, device=there) - shifts[:, 1:]) % width
    places = (rows[:, :, None] * width + columns[:, None, :]).reshape(n, 1, height * width)
    flat = pictures.reshape(n, channels, height * width)
    return flat.gather(2, places.expand(-1, channels, -1)).reshape(pictures.shape)


def is_place(place: Tensor) -> Tensor:
    """Which rows of (n, 4) are places: bool (n,)."""
    return place.isfinite().all(1) & (place[:, 2] > 0) & ((place[:, 3] == 0) | (place[:, 3] == 1))


def put(pictures: Tensor, place: Tensor) -> Tensor:
    """Flip, scale and move picture i of (n, c, h, w), float32, by `place[i]`; 0 where it does not reach."""
    height, width = pictures.shape[2:]
    flip = place[:, 3:] != 0
    rows = _taps(height, place[:, :1], place[:, 2:3], torch.zeros_like(flip))
    columns = _taps(width, place[:, 1:2], place[:, 2:3], flip)
    for axis, (first, second, weight, _) in ((2, rows), (3, columns)):
        pictures = _between(pictures, axis, first, second, weight)
    inside = rows[3][:, None, :, None] & columns[3][:, None, None, :]
    return torch.where(inside, pictures, pictures.new_zeros(()))


def _taps(extent: int, shift: Tensor, scale: Tensor, flip: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For each row or column of the result the two that it lies between, the second's weight, and whether it is inside.

    (n, extent) each, of (n, 1) each.
    """
    last = float(extent - 1)
    middle = last / 2
    source = (torch.arange(extent, dtype=torch.float32, device=shift.device) - middle - shift) / scale
    source = torch.where(flip, -source, source) + middle
    inside = (source >= -0.5) & (source <= last + 0.5)
    source = torch.where(inside, source, source.new_zeros(())).clamp(0, last)
    first = source.floor()
    return first.long(), (first.long() + 1).clamp(max=extent - 1), source - first, inside


def _between(pictures: Tensor, axis: int, first: Tensor, second: Tensor, weight: Tensor) -> Tensor:
    """Rows (axis 2) or columns (axis 3) between two others."""
    n, extent = first.shape
    shape = (n, 1, extent, 1) if axis == 2 else (n, 1, 1, extent)

    def taken(at: Tensor) -> Tensor:
        sizes = list(pictures.shape)
        sizes[axis] = extent
        return pictures.gather(axis, at.reshape(shape).expand(sizes))

    low, share = taken(first), weight.reshape(shape)
    mixed = (taken(second) - low).mul_(share).add_(low)
    return torch.where(share == 0, low, mixed)
