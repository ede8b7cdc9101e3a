"""What a format of shard files is, and what its writer is given."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
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


@dataclass(frozen=True)
class StoredBatch:
    """Consecutive samples, ready to be written.

    Attributes:
      images: (n, h, w, 3) uint8.
      masks: (n, h, w) uint8, 255 is the object; None where the data set has no masks.
      labels: (n, 3) int64, columns as in `MECHANISMS`.
      indices: (n,) int64.
    """

    images: np.ndarray
    masks: np.ndarray | None
    labels: np.ndarray
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    def rows(self, content: ShardContent) -> Iterator[dict[str, Any]]:
        """What each sample has beside its image: index, seed, and three labels with their names."""
        for index, labels in zip(self.indices.tolist(), self.labels.tolist(), strict=True):
            row: dict[str, Any] = {"index": index, "seed": content.seed}
            for mechanism, label in zip(MECHANISMS, labels, strict=True):
                row[mechanism] = label
                row[f"{mechanism}_name"] = content.names[mechanism][label]
            yield row


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
