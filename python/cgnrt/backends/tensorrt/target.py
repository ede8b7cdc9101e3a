"""What an engine is built for: a card and a library version, batch sizes, and a graph. It runs on nothing else."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from cgnrt import cuda
from cgnrt._support.values import is_int
from cgnrt.backends.base import BUSY_PIXELS
from cgnrt.backends.tensorrt.library import Library
from cgnrt.plan import Network

LARGEST = 1 << 16
_FEWEST, _MOST = 128, 4096
_SLUG_CHARS = 40  # so that the names of members stay within the plan's limit


@dataclass(frozen=True)
class Target:
    """A library version and a card.

    Attributes:
      library, version: as `Library` has them.
      architecture: "sm_90".
      device: the card's name, as the driver has it.
    """

    library: str
    version: str
    architecture: str
    device: str

    @classmethod
    def of(cls, library: Library, index: int) -> Target:
        """The target of a CUDA device of this machine."""
        found = cuda.module().device(index)
        major, minor = found["compute_capability"]
        return cls(library.name, library.version, f"sm_{major}{minor}", str(found["name"]))

    @property
    def slug(self) -> str:
        """The card's name in the characters that file names may have."""
        return slug(self.device)

    @property
    def folder(self) -> str:
        """Where a plan keeps engines for it."""
        return f"engines/{self.library}-{self.version}/{self.architecture}-{self.slug}"

    def __str__(self) -> str:
        return f"{self.library} {self.version} on {self.device} ({self.architecture})"


def slug(name: str) -> str:
    """Lower case, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:_SLUG_CHARS].strip("-") or "unnamed"


@dataclass(frozen=True)
class Batches:
    """An optimisation profile: batches of `minimum` to `maximum` run, `optimum` fastest."""

    minimum: int
    optimum: int
    maximum: int

    @classmethod
    def of(cls, sizes: Sequence[int]) -> Batches:
        """From one size (only that one), two (the ends, tuned for the larger) or three.

        Raises:
          ValueError: other numbers of sizes, or sizes that are not positive integers in ascending order.
        """
        good = all(is_int(n) and 1 <= n <= LARGEST for n in sizes)
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


def graph_digest(network: Network) -> str:
    """SHA-256 (hex) of the graph and its weights: the same in every plan that has them."""
    digest = hashlib.sha256(hashlib.sha256(network.graph).digest())
    weights = network.weights
    digest.update(hashlib.sha256(weights if weights is not None else b"").digest())
    return digest.hexdigest()
