"""The epoch of a data set, in memory that it shares with its workers, and positions within an epoch."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils.data import get_worker_info

from cgnrt.torch.sharding import LoaderProcess

_MOST_WORKERS = 1024  # that are told apart
# How long other workers of a loader may take to start. If one has died, the loader stops the others earlier.
_PATIENCE_S = 600
_KEYS = {"seed", "epoch", "done", "ended", "place"}


@dataclass
class Position:
    """Where an iteration is.

    Attributes:
      place: whose part of the epoch it is.
      done: what was yielded: batches, or samples without a batch size.
      ended: whether the part was asked for more than it has.
    """

    epoch: int
    place: LoaderProcess
    done: int = 0
    ended: bool = False

    def to_dict(self, seed: int) -> dict[str, Any]:
        return {
            "seed": seed,
            "epoch": self.epoch,
            "done": self.done,
            "ended": self.ended,
            "place": list(self.place.numbers),
        }

    @classmethod
    def from_dict(cls, state: Any, seed: int) -> Position:
        """What `to_dict` wrote.

        Raises:
          ValueError: the state has another seed, or is not from `to_dict`.
        """
        if not isinstance(state, Mapping) or set(state) != _KEYS:
            raise ValueError(f"dataset: state is {state!r}, expected what state_dict() gave.")
        if state["seed"] != seed:
            raise ValueError(f"dataset: state is of seed {state['seed']}, expected {seed}.")
        place = LoaderProcess(*map(int, state["place"]))
        return cls(int(state["epoch"]), place, int(state["done"]), bool(state["ended"]))


class Epochs:
    """Which epoch comes next, and which of `set_epoch` and a loaded state has set it last.

    A `StatefulDataLoader` hands a state on only when it is iterated, in each of its workers. A data set therefore
    has to know whether an iteration has followed the last `set_epoch`: if none has, the call came after the loading,
    or another epoch would have been meant.
    """

    def __init__(self) -> None:
        # Row 0, of the main process: the next epoch, the number of calls of set_epoch, how many of them an iteration
        # has followed. Row 1 + w, of worker w: how many an iteration has followed; and for `take_turns` the
        # number of the call, a place in the loader's order and how much was yielded there.
        self._cells = torch.zeros((1 + _MOST_WORKERS, 4), dtype=torch.int64)
        self._cells.share_memory_()  # type: ignore[no-untyped-call]

    @property
    def next(self) -> int:
        """The epoch of the next iteration."""
        return int(self._cells[0, 0])

    def say(self, epoch: int) -> None:
        """The user has called `set_epoch`."""
        self._cells[0, 0] = epoch
        self._cells[0, 1] += 1

    def resume(self, epoch: int) -> None:
        """A state was loaded. It holds instead of an earlier `set_epoch`."""
        self._cells[0, 0] = epoch
        self.heed()

    def heed(self) -> None:
        """An iteration begins in this process."""
        self._cells[self._row()] = self._cells[0, 1]

    def said(self) -> int | None:
        """The epoch of the last `set_epoch`, if no iteration has followed it. Workers of one loader agree on it."""
        row = self._row()
        own = self._cells[1:, 0].max() if row == (0, 2) else self._cells[row]
        heeded = max(int(own), int(self._cells[0, 2]))
        return self.next if int(self._cells[0, 1]) > heeded else None

    def take_turns(self, left: Position) -> LoaderProcess:
        """This worker's part of a new epoch, when its loader resumes after a stop in another epoch.

        Such a loader does not ask worker 0 first, but the worker whose turn it was, which takes the first batch.

        Args:
          left: where this worker was stopped.
        """
        workers, place = left.place.workers, left.place.worker
        calls = self._cells[0, 1].clone()
        row = self._cells[self._row()[0]]
        row[2], row[3] = place, left.done
        row[1] = calls  # last: it says that the others are there
        rows = self._cells[1 : 1 + workers]
        deadline = time.monotonic() + _PATIENCE_S
        while not bool((rows[:, 1] == calls).all()):
            if time.monotonic() > deadline:
                raise RuntimeError("dataset: another worker of the loader did not start. Try again.")
            time.sleep(0.005)
        done = [count for _, count in sorted(rows[:, 2:].tolist())]
        first = next((k for k, count in enumerate(done) if count < done[0]), 0)
        return replace(left.place, worker=(place - first) % workers)

    def _row(self) -> tuple[int, int]:
        """The cell of this process that counts calls."""
        worker = get_worker_info()
        return (0, 2) if worker is None else (1 + worker.id, 0)
