"""Which batches of a stream each of several processes takes: a function of who they are, with nothing to agree on."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from cgnrt.request.options import SampleOptions

# Windows of a renewing pool in a run of batches. A process makes the window at the start of its run for itself, so
# this share of all entries is made twice: 1 in 16.
_RUN_WINDOWS = 16


@dataclass(frozen=True)
class Place:
    """One of the loader's workers of one of a job's ranks."""

    rank: int = 0
    ranks: int = 1
    worker: int = 0
    workers: int = 1


def batch_numbers(count: int | None, run: int | None, place: Place) -> Iterable[int]:
    """The batches that `place` takes; over all places each batch is taken once.

    Args:
      count: how many there are; None is without end.
      run: how many that follow each other one place should take, None where it does not matter. Then the workers'
        batches in turn, as a loader hands them out, are those of their rank in order, whatever their number.
    """
    turn, places = place.worker * place.ranks + place.rank, place.workers * place.ranks
    if run is None:
        return itertools.count(turn, places) if count is None else range(turn, count, places)
    if count is None:
        runs = itertools.count(turn, places)
        return itertools.chain.from_iterable(range(k * run, (k + 1) * run) for k in runs)
    of_rank = _part(range(count), place.rank, place.ranks)
    return _part(of_rank, place.worker, place.workers)


def run_of(options: SampleOptions, batch_size: int) -> int | None:
    """How many batches one process should take in a row: with a renewing pool, for the entries' sake."""
    if options.refresh is None:
        return None
    return -(-_RUN_WINDOWS * max(options.pool_sizes) * options.refresh // batch_size)


def _part(numbers: range, k: int, parts: int) -> range:
    return numbers[len(numbers) * k // parts : len(numbers) * (k + 1) // parts]
