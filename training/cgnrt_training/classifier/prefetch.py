"""Work done one step ahead, in a thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")


class Prefetch(Generic[T], Iterator[T]):
    """`make(start), ..., make(stop - 1)`, each made by a background thread before it is asked for.

    An exception of `make` arrives in the consumer at its step, and ends the iteration. Leaving the context, or `close`,
    stops the thread, whatever it has made.

    Args:
      make: called in the background thread alone, in order.
      depth: how many finished results wait at most.
    """

    def __init__(self, make: Callable[[int], T], start: int, stop: int, *, depth: int = 16) -> None:
        self._ready: queue.Queue[tuple[bool, T | BaseException | None]] = queue.Queue(depth)
        self._closed = threading.Event()
        self._ended = False
        self._thread = threading.Thread(
            target=self._work, args=(make, start, stop), name="prefetch", daemon=True
        )
        self._thread.start()

    def _work(self, make: Callable[[int], T], start: int, stop: int) -> None:
        try:
            for step in range(start, stop):
                if not self._put((True, make(step))):
                    return
            self._put((False, None))
        except BaseException as error:  # whatever it is belongs to the consumer
            self._put((False, error))

    def _put(self, item: tuple[bool, T | BaseException | None]) -> bool:
        while not self._closed.is_set():
            try:
                self._ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def __next__(self) -> T:
        if self._ended or self._closed.is_set():
            raise StopIteration
        good, item = self._ready.get()
        if good:
            return item  # type: ignore[return-value]
        self._ended = True
        if isinstance(item, BaseException):
            raise item
        raise StopIteration

    def close(self) -> None:
        """Stop the thread and wait for it; at most one call of `make` is still finished."""
        self._closed.set()
        self._thread.join()

    def __enter__(self) -> Prefetch[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
