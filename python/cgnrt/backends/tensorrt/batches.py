"""The batch sizes that an engine is built for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cgnrt.backends.base import BUSY_PIXELS

LARGEST = 1 << 16
_FEWEST, _MOST = 128, 4096


@dataclass(frozen=True)
class Batches:
    """An optimisation profile: batches of `minimum` to `maximum` run, `optimum` fastest."""

    minimum: int
    optimum: int
    maximum: int

    @classmethod
    def of(cls, sizes: Sequence[int]) -> Batches:
        """From one size (that one alone), two (the ends, tuned for the larger) or three.

        Raises:
          ValueError: other numbers of sizes, or sizes that are not positive integers in ascending order.
        """
        good = all(isinstance(n, int) and not isinstance(n, bool) and 1 <= n <= LARGEST for n in sizes)
        if not good or not 1 <= len(sizes) <= 3 or list(sizes) != sorted(sizes):
            raise ValueError(
                f"build engines: batch is {list(sizes)}, expected one to three sizes of 1..{LARGEST} in ascending "
                "order: smallest, usual, largest."
            )
        return cls(sizes[0], sizes[len(sizes) // 2], sizes[-1])

    @property
    def sizes(self) -> tuple[int, int, int]:
        return (self.minimum, self.optimum, self.maximum)

    def covers(self, other: Batches) -> bool:
        """Whether every batch that `other` runs runs here too."""
        return self.minimum <= other.minimum and other.maximum <= self.maximum

    def __str__(self) -> str:
        return ",".join(map(str, self.sizes))


def usual_batches(height: int, width: int) -> Batches:
    """For pictures of a size: the smaller, the more of them keep a card busy at once."""
    largest = min(_MOST, max(_FEWEST, BUSY_PIXELS // (height * width)))
    return Batches(1, largest // 4, largest)
