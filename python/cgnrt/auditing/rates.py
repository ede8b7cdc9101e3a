"""Rates of an audit, with confidence intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Rate:
    """How often something happened, with its Wilson score interval.

    Attributes:
      count: the number of images in which it happened.
      n: the number of images.
      low, high: ends of the interval, in [0, 1]; 0 and 1 for n = 0.
    """

    count: int
    n: int
    low: float
    high: float

    @classmethod
    def of(cls, count: int, n: int, confidence: float) -> Rate:
        """The rate of `count` in `n` independent trials."""
        return cls(count, n, *wilson(count, n, confidence))

    @property
    def value(self) -> float:
        """count / n; NaN for n = 0."""
        return self.count / self.n if self.n else math.nan

    def __str__(self) -> str:
        if not self.n:
            return "none"
        return f"{100 * self.value:.1f} % ({100 * self.low:.1f}..{100 * self.high:.1f})"


class ByMechanism(NamedTuple):
    """One rate for each mechanism."""

    shape: Rate
    texture: Rate
    background: Rate


def wilson(count: int, n: int, confidence: float) -> tuple[float, float]:
    """Wilson's score interval of a proportion (E. B. Wilson, 1927), which is also good near 0 and 1 and for small n.

    Returns:
      (low, high), which contain count / n; (0, 1) for n = 0.
    """
    if n == 0:
        return 0.0, 1.0
    from statistics import NormalDist  # slow to import

    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, weight = count / n, z * z / n
    middle = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(share * (1 - share) / n + weight / (4 * n))
    # For count = 0 and count = n one end is exactly `share`; rounding must not move it past that.
    return min(max(0.0, middle - half), share), max(min(1.0, middle + half), share)
