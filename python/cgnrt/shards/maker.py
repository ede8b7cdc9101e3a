"""Makes shards: each appears whole, on the disk and under its name, or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from cgnrt._support.files import written_beside
from cgnrt._support.reading import open_file
from cgnrt.shards.formats import FORMATS, StoredBatch
from cgnrt.shards.job import Job, Shard
from cgnrt.shards.manifest import ShardRecord


class ShardMaker:
    """A job's generator, opened once, and the shards that it makes."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._generator = job.open()

    def make(self, folder: Path, number: int, progress: Callable[[int], object]) -> ShardRecord:
        """Make shard `number`, over an existing one.

        Args:
          progress: called with the number of samples of each finished batch.
        Raises:
          CgnrtError: it cannot be written.
        """
        job, shard = self._job, self._job.shard(number)
        with written_beside(folder / shard.name, force=True) as beside:
            batches = self._batches(shard, progress)
            FORMATS[job.storage.format].write(beside, job.content(shard), batches)
            # The file is read again for this: a format may write it in any order.
            size, digest = checksum(beside)
        return ShardRecord(shard.name, shard.first, shard.count, size, digest)

    def _batches(self, shard: Shard, progress: Callable[[int], object]) -> Iterator[StoredBatch]:
        """A shard's samples. Batch boundaries come from the job only: the last bits of an engine may depend on them."""
        job = self._job
        if job.options.refresh is not None:
            self._generator.drop_pool()  # entries kept since another shard were made in other batches
        batches = self._generator.batches(shard.count, job.batch_size, start=shard.first, **job.options)
        for batch in (batch.numpy() for batch in batches):
            masks = None
            if job.storage.masks:
                masks = np.rint(batch.mask[:, 0] * np.float32(255)).astype(np.uint8)
            labels = np.stack(batch.labels, axis=1)
            yield StoredBatch(np.asarray(batch.images), masks, labels, batch.indices, batch.place)
            progress(len(batch))


def checksum(path: Path) -> tuple[int, str]:
    """Size and SHA-256 of a file."""
    with open_file(path) as file:
        digest = hashlib.file_digest(file, "sha256")
        return file.tell(), digest.hexdigest()
