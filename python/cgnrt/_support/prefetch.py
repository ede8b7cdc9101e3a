"""Work done ahead, in a background thread that goes away with whoever asked for it."""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")


class _Channel(Generic[T]):
    """What the thread and its consumer share; the thread knows nothing of the `Prefetch`, so that it can go."""

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.changed = threading.Condition()  # reentrant: a finalizer may run while its thread is in here
        self.ready: deque[T] = deque()
        self.error: BaseException | None = None
        self.ended = False
        self.closed = False
        self.pid = os.getpid()
        self.thread: threading.Thread | None = None

    def work(self, items: Iterable[T]) -> None:
        """The thread: makes one item more whenever there is room."""
        error: BaseException | None = None
        try:
            for item in items:
                with self.changed:
                    self.ready.append(item)
                    self.changed.notify_all()
                    del item  # it is the consumer's
                    while len(self.ready) >= self.depth and not self.closed:
                        self.changed.wait()
                    if self.closed:
                        break
        except BaseException as raised:  # whatever it is belongs to the consumer
            error = raised
        with self.changed:
            self.error, error = error, None  # its traceback has this frame
            self.ended = True
            self.changed.notify_all()
        _running.discard(self)

    def close(self) -> None:
        """Tell the thread to end; what it has made is dropped."""
        if os.getpid() != self.pid:  # a forked process has no such thread, but may have its lock, taken
            return
        with self.changed:
            self.closed = True
            self.ready.clear()
            self.changed.notify_all()


# Threads that are stopped before the interpreter goes: one that is killed in native code would take all down with it.
_running: set[_Channel[object]] = set()


class Prefetch(Generic[T], Iterator[T]):
    """The items of an iterable, each made by a background thread before it is asked for.

    An exception arrives in the consumer in its place, with the traceback of the thread, and ends the iteration.
    Leaving the context, or `close`, stops the thread and waits for it; garbage collection stops it, too, and so does
    the end of the interpreter.

    Args:
      items: iterated in the background thread alone.
      depth: how many items wait or are being made at most.
    """

    def __init__(self, items: Iterable[T], *, depth: int) -> None:
        channel: _Channel[T] = _Channel(depth)
        self._channel = channel
        channel.thread = threading.Thread(
            target=channel.work, args=(items,), name="cgnrt-prefetch", daemon=True
        )
        _running.add(channel)  # type: ignore[arg-type]
        # Without waiting: the collector runs anywhere, also where the lock is held that the thread waits for.
        weakref.finalize(self, channel.close).atexit = False
        channel.thread.start()

    def __next__(self) -> T:
        channel = self._channel
        if os.getpid() != channel.pid:
            raise RuntimeError(
                f"stream: its thread is in process {channel.pid}, expected this one, {os.getpid()}. "
                "Make a stream in each process."
            )
        with channel.changed:
            while not (channel.ready or channel.ended or channel.closed):
                channel.changed.wait()
            if channel.ready:
                item = channel.ready.popleft()
                channel.changed.notify_all()
                return item
            error, channel.error = channel.error, None
        if error is not None and not channel.closed:
            try:
                raise error
            finally:
                del error  # its traceback has this frame
        raise StopIteration

    def close(self) -> None:
        """Stop the thread and wait for it; the item that it is making is still finished."""
        channel = self._channel
        channel.close()
        if channel.thread is not None and channel.pid == os.getpid():
            channel.thread.join()

    def __enter__(self) -> Prefetch[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _stop_all() -> None:
    channels = list(_running)
    for channel in channels:
        channel.close()
    for channel in channels:
        if channel.thread is not None:
            channel.thread.join()


atexit.register(_stop_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_running.clear)
