"""The threads that own the generator: a bounded queue whose entries take turns and share engine calls."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable

import numpy as np

from cgnrt.batch import PICTURE_NAMES, Batch
from cgnrt.generator import Generator
from cgnrt.request.options import SampleOptions
from cgnrt.request.place import unmoved
from cgnrt.request.resolver import Request
from cgnrt.serve.limits import Limits
from cgnrt.serve.monitoring import Metrics
from cgnrt.serve.protocol import ServeError

# After a refusal the queue is kept short until none was refused for the first time: when requests come too fast, a
# long queue makes all answers late. After the second time it may be full again, for clients that never stop.
_STRAIN_S, _MOST_STRAIN_S = 10.0, 300.0
_RECOVERY_S = 0.01  # after a failure that may come again at once

Arrays = dict[str, np.ndarray]


class QueueEntry:
    """Samples that one request waits for.

    Attributes:
      form: dtype and layout of the images.
      names: the outputs that are wanted.
      request: labels and noise of the samples, which may share an engine call. None if `alone` makes them all in one
        turn: called with a generator and whether parts are wanted, it gives the batch.
      pool: the options of the pool that `alone` draws from; None without a pool.
      begun: whether this is a further piece of a stream that was accepted.
      future: belongs to the event loop that waits; gets arrays by name.
    """

    def __init__(
        self,
        form: tuple[str, str],
        names: tuple[str, ...],
        count: int,
        *,
        request: Request | None = None,
        alone: Callable[[Generator, bool], Batch] | None = None,
        pool: SampleOptions | None = None,
    ) -> None:
        self.form = form
        self.names = names
        self.count = count
        self.request = request
        self.alone = alone
        self.pool = pool
        self.begun = False
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Arrays] = self.loop.create_future()
        self.cancelled = False
        self.over = False  # the arrays or an error were handed over
        self.taken = 0
        self._made: list[Arrays] = []

    @property
    def parts(self) -> bool:
        """Whether pictures other than the images are wanted."""
        return any(name in PICTURE_NAMES for name in self.names)

    def turn(self, batch: int) -> int:
        """How many images its next turn makes. This is also its size in the queue."""
        left = self.count - self.taken
        return max(1, left if self.alone is not None else min(left, batch))

    def take(self, batch: int) -> Request:
        """The request for its next turn."""
        assert self.request is not None
        low, self.taken = self.taken, min(self.count, self.taken + batch)
        whole = low == 0 and self.taken == self.count
        return self.request if whole else self.request.cut(slice(low, self.taken))

    def keep(self, batch: Batch) -> bool:
        """Keep the arrays of a turn. Returns whether it was the last turn."""
        columns = {
            "labels": np.stack([np.asarray(column) for column in batch.labels], axis=1),
            "place": unmoved(len(batch)) if batch.place is None else np.asarray(batch.place),
        }
        found = {
            name: columns[name] if name in columns else np.asarray(getattr(batch, name))
            for name in self.names
        }
        self._made.append(found)
        return self.taken >= self.count

    def finish(self) -> None:
        """Give the arrays to the caller that waits.

        Raises:
          MemoryError: there is too little for the arrays of several turns in one piece.
        """
        made, self._made = self._made, []
        if len(made) > 1:
            made = [{name: np.concatenate([part[name] for part in made]) for name in self.names}]
        self._settle(made[0], None)

    def fail(self, error: Exception) -> None:
        """Raise the error in the caller that waits."""
        self._made = []
        self._settle(None, error)

    def _settle(self, arrays: Arrays | None, error: Exception | None) -> None:
        self.over = True

        def settle() -> None:
            if self.future.done():  # the caller stopped waiting
                return
            if error is not None:
                self.future.set_exception(error)
            else:
                self.future.set_result(arrays or {})

        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(settle)


class _Worker:
    """A thread that makes turns, and its present turn: the entries, and how many images they get."""

    def __init__(self) -> None:
        self.thread: threading.Thread | None = None
        self.entries: list[QueueEntry] = []
        self.images = 0

    def works(self) -> bool:
        return self.thread is not None and self.thread.is_alive()


class Batcher:
    """Makes the images of queue entries, the longest waiting first. Requests that wait together share an engine call.

    An entry of more images than a batch makes one batch in each turn, so that others wait no longer than for that.

    On all cores of a CPU, two more threads make a turn each beside the first one's if a whole batch waits: when turns
    end, or lack a core that a client has for the moment, another keeps the cores busy.
    """

    def __init__(self, generator: Generator, limits: Limits, metrics: Metrics) -> None:
        self._generators = {("uint8", "NHWC"): generator}
        self._pools: dict[tuple[str, str], SampleOptions] = {}  # the last one, which the generator keeps
        self._limits = limits
        self._metrics = metrics
        self._queue: deque[QueueEntry] = deque()
        self._ready = threading.Condition()
        self._closing = False
        # A GPU makes one turn after another anyway; and several turns take more cores than a number of threads allows.
        several = generator.device == "cpu" and generator.threads is None
        self._workers = [_Worker() for _ in range(limits.turns if several else 1)]
        self._pid = os.getpid()
        self._strained_since = self._strained_until = 0.0
        for worker in self._workers:
            self._start(worker)
        metrics.gauge("cgnrt_queue_requests", "Requests that wait.", lambda: len(self._queue))
        metrics.gauge("cgnrt_queue_images", "Images that wait for their turn.", self.waiting)
        metrics.gauge(
            "cgnrt_running_requests",
            "Requests in the present engine calls.",
            lambda: sum(len(worker.entries) for worker in self._workers),
        )

    def waiting(self) -> int:
        """Images that wait for their turn."""
        with self._ready:
            return sum(map(self._cost, self._queue))

    def submit(self, entry: QueueEntry) -> None:
        """Put an entry in the queue. A begun one is always accepted, and does not count against others.

        Raises:
          ServeError: the queue is full, or the server stops.
        """
        limits = self._limits
        if os.getpid() != self._pid:  # a forked process has no thread that would answer
            raise ServeError(
                "unavailable",
                f"infer: this server runs in process {self._pid}, expected this one, {os.getpid()}. "
                "Start a server in each process.",
            )
        if not self._closing and not self.works():
            raise ServeError("unavailable", "infer: the system has no thread for it. Try again later.")
        with self._ready:
            if self._closing:
                raise ServeError("unavailable", "infer: the server is stopping. Try another server.")
            waiting = sum(self._cost(other) for other in self._queue if not other.begun) + self._beside()
            now = time.monotonic()
            strained = now < self._strained_until
            most = limits.strained_queue if strained else limits.queue
            if waiting and not entry.begun and waiting + self._cost(entry) > most:
                if not strained:
                    self._strained_since = now
                self._strained_until = min(now + _STRAIN_S, self._strained_since + _MOST_STRAIN_S)
                raise ServeError(
                    "unavailable",
                    f"infer: images that wait are {waiting}, expected at most {most} with this request's. "
                    "Try again later.",
                )
            self._queue.append(entry)
            if self._due():
                self._ready.notify()

    def works(self) -> bool:
        """Whether there is a thread that answers. One that has ended is started again."""
        with self._ready:
            for worker in self._workers:
                if not worker.works() and not self._closing and os.getpid() == self._pid:
                    self._give_up(worker, RuntimeError("the thread that made it has ended"))
                    with contextlib.suppress(RuntimeError, MemoryError):  # the system has none
                        self._start(worker)
            return any(worker.works() for worker in self._workers)

    def cancel(self, entry: QueueEntry) -> None:
        """Drop an entry that its caller stopped waiting for."""
        with self._ready:
            entry.cancelled = True
            if entry in self._queue:
                self._queue.remove(entry)

    def close(self) -> None:
        """Finish the queue, and end the threads."""
        with self._ready:
            self._closing = True
            self._ready.notify_all()
        for worker in self._workers:
            if worker.thread is not None:
                worker.thread.join()

    def _cost(self, entry: QueueEntry) -> int:
        """The work of the next turn in images. Each of three networks that fill a new pool counts a third."""
        if entry.pool is None or self._pools.get(entry.form) == entry.pool:
            return entry.turn(self._limits.batch)
        return entry.turn(self._limits.batch) + -(-sum(entry.pool.pool_sizes) // 3)

    def _beside(self) -> int:
        """Images of turns beside the largest one. They count as waiting: those turns share its cores."""
        images = [
            0 if all(entry.begun for entry in worker.entries) else worker.images for worker in self._workers
        ]
        return sum(images) - max(images)

    def _due(self) -> bool:
        """Whether a thread that does nothing should make a turn."""
        if not self._queue:
            return False
        if not any(worker.entries for worker in self._workers):
            return True
        first, images = self._queue[0], 0
        if first.request is None:  # it runs beside no other that existed before: there is one pool
            return False
        for entry in self._queue:
            if entry.request is not None and entry.form == first.form:
                images += entry.turn(self._limits.batch)
            if images >= self._limits.batch:
                return True
        return False

    def _start(self, worker: _Worker) -> None:
        thread = threading.Thread(target=self._run, args=(worker,), name="cgnrt-batcher", daemon=True)
        thread.start()
        worker.thread = thread

    def _run(self, worker: _Worker) -> None:
        """Answer entries until the end. Whatever fails is told to those that wait for it, and the thread goes on."""
        while True:
            try:
                if not self._turn(worker):
                    return
            except BaseException as error:  # also of the queue itself, for example without memory
                self._give_up(worker, error)
                time.sleep(_RECOVERY_S)

    def _give_up(self, worker: _Worker, error: BaseException) -> None:
        """End a turn that cannot go on: other threads wait for its end, and callers for its entries."""
        with self._ready:
            lost, worker.entries = worker.entries, []
        for entry in lost:
            with contextlib.suppress(Exception):
                entry.fail(_failure(error))

    def _turn(self, worker: _Worker) -> bool:
        """Make one turn of the entries that are due. Returns False at the end."""
        with self._ready:
            while not self._due():
                if self._closing:  # what may be left is taken by a thread that is busy now
                    return False
                self._ready.wait()
            worker.images = 0
            # Known before it leaves the queue, in case that there is no memory.
            worker.entries = [self._queue[0]]
            self._queue.popleft()
            self._join_others(worker)
            if self._due():  # what was behind this turn's entries may be a turn for a thread that waits
                self._ready.notify()
        self._make(worker.entries)
        with self._ready:
            again = [entry for entry in worker.entries if not entry.over and not entry.cancelled]
            self._queue.extend(again)  # they wait behind those that came meanwhile
            worker.entries = []
        return True

    def _join_others(self, worker: _Worker) -> None:
        """Take those that wait and fit into the first one's engine call."""
        (first,) = worker.entries
        worker.images = first.turn(self._limits.batch)
        if first.request is None:
            return
        for entry in list(self._queue):
            room = self._limits.batch - worker.images
            left = entry.count - entry.taken
            if room > 0 and entry.request is not None and entry.form == first.form and left <= room:
                worker.entries.append(entry)
                self._queue.remove(entry)
                worker.images += left

    def _make(self, entries: list[QueueEntry]) -> None:
        """Run one turn of each entry. If that fails, run each alone, so that only the faulty one fails."""
        taken = [entry.taken for entry in entries]
        try:
            batches = self._render(entries)
        except Exception as error:
            if len(entries) == 1:
                entries[0].fail(_failure(error))
                return
            for entry, before in zip(entries, taken, strict=True):
                entry.taken = before
                self._make([entry])
            return
        self._metrics.batch.observe(sum(len(batch) for batch in batches))
        self._metrics.merged.observe(len(entries))
        for entry, batch in zip(entries, batches, strict=True):
            try:
                if entry.keep(batch):
                    entry.finish()
            except Exception as error:
                entry.fail(_failure(error))

    def _render(self, entries: list[QueueEntry]) -> list[Batch]:
        first = entries[0]
        with self._ready:
            generator = self._generators.get(first.form)
            if generator is None:
                base = self._generators[("uint8", "NHWC")]
                generator = self._generators[first.form] = base.with_pixels(*first.form)
        if first.alone is not None:
            first.taken = first.count
            if first.pool is not None:
                self._pools.pop(first.form, None)
            batches = [first.alone(generator, first.parts).numpy()]
            if first.pool is not None and first.count:  # without images the pool was not made
                self._pools[first.form] = first.pool
            return batches
        turns = [entry.take(self._limits.batch) for entry in entries]
        parts = any(entry.parts for entry in entries)
        return [batch.numpy() for batch in generator.render(turns, parts=parts)]


def _failure(error: BaseException) -> Exception:
    if isinstance(error, ServeError):
        return error
    if isinstance(error, MemoryError):
        return ServeError("unavailable", f"infer: {error or 'out of memory'}. Ask for fewer images.")
    if isinstance(error, ValueError | TypeError):  # found only while rendering
        return ServeError("invalid", str(error))
    return error if isinstance(error, Exception) else RuntimeError(f"{type(error).__name__}: {error}")
