"""Pictures of a plan's banks for the composer: in place in the mapped file, or decoded once and kept."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from cgnrt._support.forking import wait_first
from cgnrt._support.machine import available_cores
from cgnrt.errors import PlanError, within
from cgnrt.plan import Bank, Plan

if TYPE_CHECKING:
    from concurrent.futures import Executor

_AT_ONCE = 8  # pictures that a thread decodes before it asks for more


class BankPictures:
    """The pictures of a plan's banks in one process. One caller at a time, except where all banks are raw.

    Args:
      cache_bytes: for decoded pictures of all banks that are stored as streams.
      threads: that decode; None takes the cores that this process may use.

    Attributes:
      decodes: whether some bank is stored as streams.
    """

    def __init__(self, plan: Plan, cache_bytes: int, threads: int | None) -> None:
        self._path = plan.path
        self._banks = plan.banks
        self._threads = threads
        self._executor: tuple[int, Executor] | None = None
        sizes = {
            name: bank.spec.count * math.prod(bank.entry_shape)
            for name, bank in self._banks.items()
            if not bank.is_raw
        }
        # In bytes: whole banks if they fit, else of each the same part.
        self._room = {name: cache_bytes * size // sum(sizes.values()) for name, size in sizes.items()}
        self._kept: dict[str, _Kept] = {}
        self.decodes = bool(sizes)

    def in_place(self, name: str) -> bool:
        """Whether a bank's pictures are composed from the file."""
        return self._banks[name].is_raw

    def find(self, name: str, entries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pictures, uint8 (m, c, h, w), and their rows, int64 (n,), that are these entries, until the next call.

        Raises:
          PlanError: a piece of the file has another hash, or a stream is not a picture of the plan's size.
        """
        bank = self._banks[name]
        if bank.is_raw:
            self._checked(lambda: bank.check(entries, self._threads))
            return bank.pictures, entries
        if name not in self._kept:
            capacity = min(bank.spec.count, self._room[name] // math.prod(bank.entry_shape))
            self._kept[name] = _Kept(bank.spec.count, (capacity, *bank.entry_shape))
        kept, wanted = self._kept[name], np.unique(entries)
        if len(wanted) > kept.capacity:
            return self._decoded(bank, wanted), np.searchsorted(wanted, entries)
        missing = wanted[kept.rows(wanted) < 0]
        if missing.size:
            rows = kept.free(len(missing), wanted)
            self._decode(bank, missing, kept.pictures, rows)
            kept.fill(missing, rows)
        return kept.pictures, kept.rows(entries)

    def read(self, name: str, entries: np.ndarray) -> np.ndarray:
        """Copies of these entries, uint8 (n, c, h, w); errors as for `find`."""
        pictures, rows = self.find(name, entries)
        copied: np.ndarray = pictures[rows]
        return copied

    def close(self) -> None:
        """Free the kept pictures, and end the threads."""
        self._kept.clear()
        executor, self._executor = self._executor, None
        if executor is not None and executor[0] == os.getpid():
            executor[1].shutdown(wait=False)

    def _decoded(self, bank: Bank, entries: np.ndarray) -> np.ndarray:
        pictures = np.empty((len(entries), *bank.entry_shape), np.uint8)
        self._decode(bank, entries, pictures, np.arange(len(entries)))
        return pictures

    def _decode(self, bank: Bank, entries: np.ndarray, pictures: np.ndarray, rows: np.ndarray) -> None:
        """Decode entries into these rows of pictures, with several threads."""

        def work(first: int) -> None:
            part = slice(first, first + _AT_ONCE)
            for entry, row in zip(entries[part].tolist(), rows[part].tolist(), strict=True):
                bank.decode(entry, pictures[row])

        self._checked(lambda: bank.check(entries, self._threads))
        firsts = range(0, len(entries), _AT_ONCE)
        threads = self._threads or available_cores()
        run = map if threads == 1 or len(firsts) == 1 else self._started(threads).map
        self._checked(lambda: list(run(work, firsts)))

    def _started(self, threads: int) -> Executor:
        """The threads; a forked process starts its own."""
        if self._executor is None or self._executor[0] != os.getpid():
            from concurrent.futures import ThreadPoolExecutor  # programs that decode nothing start faster

            wait_first()
            self._executor = os.getpid(), ThreadPoolExecutor(threads, thread_name_prefix="cgnrt-decode")
        return self._executor[1]

    def _checked(self, work: Callable[[], object]) -> None:
        """Name the file in errors."""
        try:
            work()
        except PlanError as error:
            raise within(f"read {self._path!r}", error) from error.__cause__


class _Kept:
    """Decoded pictures of one bank, and which entry is in which row. Memory is taken as rows are filled."""

    def __init__(self, count: int, shape: tuple[int, ...]) -> None:
        self.pictures = np.empty(shape, np.uint8)
        self.capacity = shape[0]
        self._rows = np.zeros(
            count, np.int32
        )  # 1 + the row of each entry: untouched pages of zeros take no memory
        self._entries = np.full(shape[0], -1, np.int64)
        self._next = 0  # the row that was filled the longest ago

    def rows(self, entries: np.ndarray) -> np.ndarray:
        """The row of each entry, int64; -1 if it is not kept."""
        found: np.ndarray = self._rows[entries].astype(np.int64) - 1
        return found

    def free(self, n: int, wanted: np.ndarray) -> np.ndarray:
        """Rows for n more entries: those filled the longest ago that have none of `wanted`, which are unique."""
        ring = (self._next + np.arange(min(self.capacity, n + len(wanted)))) % self.capacity
        rows = ring[~np.isin(self._entries[ring], wanted)][:n]
        before = self._entries[rows]
        self._rows[before[before >= 0]] = 0
        self._entries[rows] = -1
        self._next = (int(rows[-1]) + 1) % self.capacity
        return rows

    def fill(self, entries: np.ndarray, rows: np.ndarray) -> None:
        """Record that the pictures of these entries are in these rows."""
        self._entries[rows] = entries
        self._rows[entries] = rows + 1
