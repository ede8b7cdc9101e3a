"""Items that a background thread makes ahead. The thread ends when its consumer does."""

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
    """What the thread and its consumer share. The thread has no reference to the `Prefetch`, which can be collected."""

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.changed = threading.Condition()  # reentrant: a finalizer may run in a thread that holds it
        self.ready: deque[T] = deque()
        self.error: BaseException | None = None
        self.ended = False
        self.closed = False
        self.pid = os.getpid()
        self.thread: threading.Thread | None = None

    def work(self, items: Iterable[T]) -> None:
        """The thread's function: make the next item whenever there is room."""
        error: BaseException | None = None
        try:
            for item in items:
                with self.changed:
                    self.ready.append(item)
                    self.changed.notify_all()
                    del item  # the consumer owns it
                    while len(self.ready) >= self.depth and not self.closed:
                        self.changed.wait()
                    if self.closed:
                        break
        except BaseException as raised:  # the consumer raises it, whatever it is
            error = raised
        with self.changed:
            self.error, error = error, None  # its traceback refers to this frame
            self.ended = True
            self.changed.notify_all()
        _running.discard(self)

    def close(self) -> None:
        """Tell the thread to end, and drop the items that it has made."""
        if os.getpid() != self.pid:  # a forked process has no thread, and its copy of the lock may be held
            return
        with self.changed:
            self.closed = True
            self.ready.clear()
            self.changed.notify_all()


# These threads are stopped before the interpreter ends: killing a thread in native code would crash the process.
_running: set[_Channel[object]] = set()


class Prefetch(Generic[T], Iterator[T]):
    """The items of an iterable, which a background thread makes ahead.

    An exception of the thread is raised in the consumer after the items before it, with the thread's traceback, and
    ends the iteration. Leaving the context, or `close`, stops the thread and waits for it. Garbage collection and the
    end of the interpreter stop it, too.

    Args:
      items: iterated only in the background thread.
      depth: the largest number of items that wait or are being made.
    """

    def __init__(self, items: Iterable[T], *, depth: int) -> None:
        channel: _Channel[T] = _Channel(depth)
        self._channel = channel
        channel.thread = threading.Thread(
            target=channel.work, args=(items,), name="cgnrt-prefetch", daemon=True
        )
        _running.add(channel)  # type: ignore[arg-type]
        # This does not wait: the garbage collector may run in code that holds a lock that the thread needs.
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
                del error  # its traceback refers to this frame
        raise StopIteration

    def close(self) -> None:
        """Stop the thread and wait until it has finished its current item."""
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
