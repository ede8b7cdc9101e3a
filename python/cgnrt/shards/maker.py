"""Makes a shard: whole, on the disk, and under its name, or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from cgnrt._support.files import written_beside
from cgnrt.shards import npz, parquet, webdataset
from cgnrt.shards.cuts import cuts
from cgnrt.shards.job import Job
from cgnrt.shards.manifest import ShardRecord


class ShardMaker:
    """A job's generator, opened once, and the shards that it makes."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._generator = job.open()

    def make(self, folder: Path, number: int, progress: Callable[[int], object]) -> ShardRecord:
        """Make shard `number`, over one of its name; `progress` is called with the samples of each cut.

        Raises:
          CgnrtError: it cannot be written.
        """
        job, shard = self._job, self._job.shard(number)
        made = cuts(self._generator, job, shard, progress)
        with written_beside(folder / shard.name, force=True) as beside:
            if job.storage.format == "webdataset":
                webdataset.write(beside, job, made)
            elif job.storage.format == "parquet":
                parquet.write(beside, job, made)
            else:
                npz.write(beside, job, made, shard.count)
            # Read back rather than summed while it is written, which a format need not do in order.
            size, digest = checksum(beside)
        return ShardRecord(shard.name, shard.first, shard.count, size, digest)


def checksum(path: Path) -> tuple[int, str]:
    """Size and SHA-256 of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return file.tell(), digest.hexdigest()
