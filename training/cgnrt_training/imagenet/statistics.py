"""Which of BigGAN's batch-norm statistics a truncation looks up.

Every batch norm has statistics for the truncations 0, 0.02, ... 1. The published code divides a truncation by 0.02 in
double precision and blends the two neighbouring rows **with the weights reversed**; where the quotient of a multiple
of 0.02 is not whole by rounding, it therefore takes a neighbouring row. Published weights are used through that code,
so we do exactly what it does.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

# In steps. A float32 of a multiple of 0.02, times 50, is off by at most 6e-6; 2e-5 is 4e-7 of truncation.
SNAP = 2e-5


class Rows(NamedTuple):
    """Two rows of statistics for each sample, and the weight of the first."""

    first: Tensor  # (n,) int64
    second: Tensor  # (n,) int64
    weight: Tensor  # (n, 1)

    def head(self, n: int) -> Rows:
        """The rows of the first n samples."""
        return Rows(self.first[:n], self.second[:n], self.weight[:n])

    def blend(self, table: Tensor) -> Tensor:
        """Look up (n, c) in (n_stats, c)."""
        first, second = table.index_select(0, self.first), table.index_select(0, self.second)
        return first * self.weight + second * (1 - self.weight)


def grid_rows(n_stats: int = 51) -> Tensor:
    """The row that the published code takes for each truncation k / (n_stats - 1); (n_stats,) int64.

    It is k, except for 0.14, 0.28, 0.56, 0.58 and 0.94: rows 8, 15, 29, 28 and 46.
    """
    step = 1.0 / (n_stats - 1)
    rows = []
    for k in range(n_stats):
        coefficient, start = math.modf(k / (n_stats - 1) / step)
        # A coefficient is within rounding of 0 or 1 here, and weighs the lower row.
        rows.append(int(start) + (0.0 < coefficient < 0.5))
    return torch.tensor(rows)


def look_up(truncation: Tensor, grid: Tensor) -> Rows:
    """Find the rows of each sample's truncation, with nothing but plain arithmetic, so that it can be traced.

    Args:
      truncation: (n, 1) in (0, 1].
      grid: of `grid_rows`.
    """
    last = len(grid) - 1
    position = truncation[:, 0] * last
    nearest = torch.round(position)
    below = torch.floor(position)
    on_grid = torch.abs(position - nearest) < SNAP
    row = grid.index_select(0, nearest.clamp(0, last).to(torch.int64))
    first = torch.where(on_grid, row, below.clamp(0, last).to(torch.int64))
    second = (first + 1).clamp(max=last)
    weight = torch.where(on_grid, torch.ones_like(position), position - below)
    return Rows(first, second, weight[:, None])
