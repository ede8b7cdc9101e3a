"""The samples of a shard, in the cuts that they are made in, ready to be written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from cgnrt.generator import Generator
from cgnrt.sampling import MECHANISMS
from cgnrt.shards.job import Job, Shard


@dataclass(frozen=True)
class Cut:
    """Consecutive samples.

    Attributes:
      images: (n, h, w, 3) uint8.
      masks: (n, h, w) uint8, 255 is the object; None where the data set has none.
      labels: (n, 3) int64, columns as in `MECHANISMS`.
      indices: (n,) int64.
    """

    images: np.ndarray
    masks: np.ndarray | None
    labels: np.ndarray
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)


def cuts(generator: Generator, job: Job, shard: Shard, progress: Callable[[int], object]) -> Iterator[Cut]:
    """A shard's samples. Batch boundaries come from the job only: an engine's last bits may depend on them."""
    if job.samples.refresh is not None:
        generator.drop_pool()  # entries kept since another shard were made in other batches
    batches = generator.batches(shard.count, job.storage.cut, start=shard.first, **job.options())
    for batch in (batch.numpy() for batch in batches):
        masks = None
        if job.storage.masks:
            masks = np.rint(batch.mask[:, 0] * np.float32(255)).astype(np.uint8)
        yield Cut(np.asarray(batch.images), masks, np.stack(batch.labels, axis=1), batch.indices)
        progress(len(batch))


def rows(cut: Cut, job: Job) -> Iterator[dict[str, Any]]:
    """What is known of each sample beside its picture: index, seed, and three labels with their names."""
    for index, labels in zip(cut.indices.tolist(), cut.labels.tolist(), strict=True):
        row: dict[str, Any] = {"index": index, "seed": job.samples.seed}
        for mechanism, label in zip(MECHANISMS, labels, strict=True):
            row[mechanism] = label
            row[f"{mechanism}_name"] = job.names[mechanism][label]
        yield row
