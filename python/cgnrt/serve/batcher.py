"""One thread that owns the generator: a bounded queue of jobs that take turns and share engine calls."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable

import numpy as np

from cgnrt.batch import Batch
from cgnrt.generator import Generator
from cgnrt.request import Request
from cgnrt.serve.limits import Limits
from cgnrt.serve.metrics import Metrics
from cgnrt.serve.protocol import ServeError

_PARTS = ("mask", "foreground", "background", "pre_mask")

# A queue that was full is kept short until nobody was refused for so long: where requests come too fast, a long one
# only makes all late. Clients that never stop asking fill it again after the second time, and so have all its room.
_STRAIN_S, _MOST_STRAIN_S = 10.0, 300.0

Arrays = dict[str, np.ndarray]


class Job:
    """Samples that one request waits for.

    Attributes:
      form: dtype and layout of the images.
      request: labels and noise of the samples; None where `alone` makes them, all in one turn, which no other shares.
      alone: from a generator, and whether parts are wanted, to the batch.
      names: of the outputs that are wanted.
      pool: what the pool of an `alone` one depends on, and its entries; None is none.
      begun: whether it is more of what was let in before.
      future: of the event loop that waits, gets arrays by name.
    """

    def __init__(
        self,
        form: tuple[str, str],
        names: tuple[str, ...],
        count: int,
        *,
        request: Request | None = None,
        alone: Callable[[Generator, bool], Batch] | None = None,
        pool: tuple[Hashable, int] | None = None,
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
        self.taken = 0
        self._made: list[Arrays] = []

    @property
    def parts(self) -> bool:
        """Whether more than images and labels is wanted."""
        return any(name in _PARTS for name in self.names)

    def turn(self, batch: int) -> int:
        """How many images its next turn makes; what it has left to make counts no more than that in the queue."""
        left = self.count - self.taken
        return max(1, left if self.alone is not None else min(left, batch))

    def take(self, batch: int) -> Request:
        """The samples of its next turn."""
        assert self.request is not None
        low, self.taken = self.taken, min(self.count, self.taken + batch)
        whole = low == 0 and self.taken == self.count
        return self.request if whole else self.request.cut(slice(low, self.taken))

    def keep(self, batch: Batch) -> bool:
        """Keep a turn's arrays; whether it was the last."""
        labels = np.stack([np.asarray(column) for column in batch.labels], axis=1)
        found = {
            name: labels if name == "labels" else np.asarray(getattr(batch, name)) for name in self.names
        }
        self._made.append(found)
        return self.taken >= self.count

    def finish(self) -> None:
        """Give what was made to whoever waits."""
        made, self._made = self._made, []
        if len(made) > 1:
            made = [{name: np.concatenate([part[name] for part in made]) for name in self.names}]
        self._settle(made[0], None)

    def fail(self, error: Exception) -> None:
        """Tell whoever waits."""
        self._made = []
        self._settle(None, error)

    def _settle(self, arrays: Arrays | None, error: Exception | None) -> None:
        def settle() -> None:
            if self.future.done():  # nobody waits any more
                return
            if error is not None:
                self.future.set_exception(error)
            else:
                self.future.set_result(arrays or {})

        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(settle)


class Batcher:
    """Makes what jobs ask for, the longest waiting first. Requests that wait together share an engine call.

    A job of more images than a batch makes one batch in each of its turns, so that it holds up nobody for longer.
    """

    def __init__(self, generator: Generator, limits: Limits, metrics: Metrics) -> None:
        self._generators = {("uint8", "NHWC"): generator}
        self._pools: dict[tuple[str, str], Hashable] = {}  # of these generators, which keep their last one
        self._limits = limits
        self._metrics = metrics
        self._queue: deque[Job] = deque()
        self._ready = threading.Condition()
        self._closing = False
        self._running = 0
        self._strained_since = self._strained_until = 0.0
        self._thread = threading.Thread(target=self._run, name="cgnrt-batcher", daemon=True)
        self._thread.start()
        metrics.gauge("cgnrt_queue_requests", "Requests that wait.", lambda: len(self._queue))
        metrics.gauge("cgnrt_queue_images", "Images that wait for their turn.", self.waiting)
        metrics.gauge("cgnrt_running_requests", "Requests in the engine call of now.", lambda: self._running)

    def waiting(self) -> int:
        """Images that wait for their turn."""
        with self._ready:
            return sum(map(self._cost, self._queue))

    def submit(self, job: Job) -> None:
        """Put a job in the queue. What has begun is always let in, and keeps nobody else out.

        Raises:
          ServeError: the queue is full, or the server stops.
        """
        limits = self._limits
        with self._ready:
            if self._closing:
                raise ServeError(
                    "unavailable", "infer: the server stops, expected one that runs. Ask another."
                )
            waiting = sum(self._cost(other) for other in self._queue if not other.begun)
            now = time.monotonic()
            strained = now < self._strained_until
            most = limits.strained_queue if strained else limits.queue
            if waiting and not job.begun and waiting + self._cost(job) > most:
                if not strained:
                    self._strained_since = now
                self._strained_until = min(now + _STRAIN_S, self._strained_since + _MOST_STRAIN_S)
                raise ServeError(
                    "unavailable",
                    f"infer: images that wait are {waiting}, expected at most {most} with this request's. "
                    "Try again later.",
                )
            self._queue.append(job)
            self._ready.notify()

    def cancel(self, job: Job) -> None:
        """Nobody waits for this job any more."""
        with self._ready:
            job.cancelled = True
            if job in self._queue:
                self._queue.remove(job)

    def close(self) -> None:
        """Make what is in the queue, and end."""
        with self._ready:
            self._closing = True
            self._ready.notify()
        self._thread.join()

    def _cost(self, job: Job) -> int:
        """The work of a job's next turn, in images: a pool's entry is one network of three, unless it is there."""
        if job.pool is None or self._pools.get(job.form) == job.pool[0]:
            return job.turn(self._limits.batch)
        return job.turn(self._limits.batch) + -(-job.pool[1] // 3)

    def _run(self) -> None:
        while True:
            with self._ready:
                while not self._queue and not self._closing:
                    self._running = 0
                    self._ready.wait()
                if not self._queue:
                    return
                jobs = self._take()
                self._running = len(jobs)
            self._make(jobs)
            with self._ready:
                again = [job for job in jobs if not job.future.done() and not job.cancelled]
                # Unfinished ones wait behind all that came meanwhile.
                self._queue.extend(job for job in again if job.taken < job.count and job.request is not None)

    def _take(self) -> list[Job]:
        """The first job, and all behind it that fit into one engine call with it."""
        first = self._queue.popleft()
        jobs = [first]
        if first.request is None:
            return jobs
        room = self._limits.batch - first.turn(self._limits.batch)
        for job in list(self._queue):
            left = job.count - job.taken
            if room > 0 and job.request is not None and job.form == first.form and left <= room:
                self._queue.remove(job)
                jobs.append(job)
                room -= left
        return jobs

    def _make(self, jobs: list[Job]) -> None:
        """Run one turn of each job; where that fails together, each alone, so that one hurts no other."""
        taken = [job.taken for job in jobs]
        try:
            batches = self._render(jobs)
        except Exception as error:
            if len(jobs) == 1:
                jobs[0].count = jobs[0].taken  # it has no further turn
                jobs[0].fail(_failure(error))
                return
            for job, before in zip(jobs, taken, strict=True):
                job.taken = before
                self._make([job])
            return
        self._metrics.batch.add(sum(len(batch) for batch in batches))
        self._metrics.merged.add(len(jobs))
        for job, batch in zip(jobs, batches, strict=True):
            if job.keep(batch):
                job.finish()

    def _render(self, jobs: list[Job]) -> list[Batch]:
        first = jobs[0]
        generator = self._generators.get(first.form)
        if generator is None:
            base = self._generators[("uint8", "NHWC")]
            generator = self._generators[first.form] = base.with_pixels(*first.form)
        if first.alone is not None:
            first.taken = first.count
            if first.pool is not None:
                self._pools.pop(first.form, None)
            batches = [first.alone(generator, first.parts).numpy()]
            if first.pool is not None and first.count:  # no image needs no pool
                self._pools[first.form] = first.pool[0]
            return batches
        turns = [job.take(self._limits.batch) for job in jobs]
        parts = any(job.parts for job in jobs)
        return [batch.numpy() for batch in generator.render(turns, parts=parts)]


def _failure(error: Exception) -> Exception:
    if isinstance(error, ServeError):
        return error
    if isinstance(error, MemoryError):
        return ServeError("unavailable", f"infer: {error or 'out of memory'}. Ask for fewer images.")
    if isinstance(error, ValueError | TypeError):  # what only the renderer could check
        return ServeError("invalid", str(error))
    return error
