"""Which batches of a stream each of several processes takes: computed from their numbers, without communication."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from cgnrt.request.options import SampleOptions

# Refresh windows of a renewing pool in a run of batches. A process makes the window at the start of its run for
# itself, so 1 in 16 of all entries is made twice.
_RUN_WINDOWS = 16


@dataclass(frozen=True)
class LoaderProcess:
    """Worker `worker` of the `workers` of a loader, on rank `rank` of `ranks`."""

    rank: int = 0
    ranks: int = 1
    worker: int = 0
    workers: int = 1

    @property
    def numbers(self) -> tuple[int, int, int, int]:
        return self.rank, self.ranks, self.worker, self.workers


def batch_numbers(count: int | None, run: int | None, process: LoaderProcess) -> Iterable[int]:
    """The numbers of the batches that a process takes. Together the processes take each batch once.

    Args:
      count: the number of batches; None is without end.
      run: how many consecutive batches a process should take, None where it does not matter. With None a loader,
        which asks its workers in turn, gives the batches of its rank in order, for any number of workers.
    """
    turn, processes = process.worker * process.ranks + process.rank, process.workers * process.ranks
    if run is None:
        return itertools.count(turn, processes) if count is None else range(turn, count, processes)
    if count is None:
        runs = itertools.count(turn, processes)
        return itertools.chain.from_iterable(range(k * run, (k + 1) * run) for k in runs)
    of_rank = _part(range(count), process.rank, process.ranks)
    return _part(of_rank, process.worker, process.workers)


def run_length(options: SampleOptions, batch_size: int) -> int | None:
    """How many consecutive batches a process should take: many with a renewing pool, whose entries it keeps."""
    if options.refresh is None:
        return None
    return -(-_RUN_WINDOWS * max(options.pool_sizes) * options.refresh // batch_size)


def _part(numbers: range, k: int, parts: int) -> range:
    return numbers[len(numbers) * k // parts : len(numbers) * (k + 1) // parts]
