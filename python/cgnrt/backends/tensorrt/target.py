"""What an engine is built for: it runs on nothing else."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cgnrt import cuda
from cgnrt.backends.tensorrt.library import Library

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
