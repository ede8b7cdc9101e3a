"""What a format of shard files is, and what its writer is given."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cgnrt._support.extras import missing_dependency
from cgnrt.sampling import MECHANISMS


@dataclass(frozen=True)
class Storage:
    """How samples are stored in files.

    Attributes:
      format, image: names from `FORMATS` and `IMAGES`.
      quality: of a lossy image; None is lossless.
      masks: whether the masks are stored too.
      shard_size: samples in a file.
    """

    format: str
    image: str
    quality: int | None
    masks: bool
    shard_size: int


@dataclass(frozen=True)
class ShardContent:
    """What is known of a shard before its samples are made: how many there are, and what they have in common."""

    storage: Storage
    count: int
    seed: int
    resolution: tuple[int, int]
    names: Mapping[str, tuple[str, ...]]
    plan_digest: str
    placed: bool = False  # whether objects are put elsewhere


@dataclass(frozen=True)
class StoredBatch:
    """Consecutive samples, ready to be written.

    Attributes:
      images: (n, h, w, 3) uint8.
      masks: (n, h, w) uint8, 255 is the object; None where the data set has no masks.
      labels: (n, 3) int64, columns as in `MECHANISMS`.
      indices: (n,) int64.
      place: (n, 4) float32 rows of (dy, dx, scale, flip), dy and dx whole pixels; None in a data set without places.
    """

    images: np.ndarray
    masks: np.ndarray | None
    labels: np.ndarray
    indices: np.ndarray
    place: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def rows(self, content: ShardContent) -> Iterator[dict[str, Any]]:
        """What each sample has beside its image: index, seed, three labels with their names, and the place if any."""
        places = [None] * len(self) if self.place is None else self.place.tolist()
        for index, labels, place in zip(self.indices.tolist(), self.labels.tolist(), places, strict=True):
            row: dict[str, Any] = {"index": index, "seed": content.seed}
            for mechanism, label in zip(MECHANISMS, labels, strict=True):
                row[mechanism] = label
                row[f"{mechanism}_name"] = content.names[mechanism][label]
            yield row if place is None else row | place_row(place)


def place_row(place: Sequence[float]) -> dict[str, Any]:
    """A place as the row of a sample has it: whole pixels as ints, flip as a bool. Other numbers stay as they are."""
    dy, dx, scale, flip = place
    shifts = {name: int(shift) if shift.is_integer() else shift for name, shift in (("dy", dy), ("dx", dx))}
    return shifts | {"scale": scale, "flip": bool(flip) if flip in (0, 1) else flip}


class Format(ABC):
    """One kind of shard file.

    Attributes:
      name: as options and manifests have it.
      suffix: of the files, lower-case letters and digits after the dot.
      images: the image storages that it takes, the default first.
      description: for the help of the command.
      manifest: the name of the data set's manifest. Programs that read whole folders skip it by its name.
      package: an optional dependency, whose version is recorded in data sets.
    """

    name: str
    suffix: str
    images: tuple[str, ...]
    description: str
    manifest: str = "manifest.json"
    package: str | None = None

    def check(self) -> None:
        """Check that the package is installed.

        Raises:
          MissingDependencyError: it is not.
        """
        if self.package is None:
            return
        try:
            importlib.import_module(self.package)
        except ModuleNotFoundError as error:
            raise missing_dependency(f"generate, --format {self.name}", error) from error

    @abstractmethod
    def write(self, path: Path, content: ShardContent, batches: Iterable[StoredBatch]) -> None:
        """Write a shard. The same samples always give the same bytes."""

    @abstractmethod
    def read(self, path: Path, storage: Storage) -> Iterator[dict[str, Any]]:
        """The samples of a shard: for each what `StoredBatch.rows` gives, `picture`, and `mask` if masks are stored.

        Pictures and masks are the bytes of `encode`, or arrays where the file has arrays.

        Raises:
          ValueError: the file is not such a shard.
        """
