"""What a server accepts at most, and a count of what is under way."""

from __future__ import annotations

import contextlib
import resource
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from cgnrt.render.device import largest_chunk
from cgnrt.serve.protocol import ServeError

# Pixels of a request that is answered in one piece: 4,096 images of 32 x 32, 64 of 256 x 256.
_REQUEST_PIXELS = 1 << 22


@dataclass(frozen=True)
class Limits:
    """Limits of one server; options of `cgnrt serve` set some.

    Attributes:
      images: images of one request, and entries of each of its pools.
      stream_images: images of one request that is answered as a stream.
      piece: images in one response of such a stream.
      batch: images that one engine call makes, for one request or several.
      queue: images that wait. A request counts with at most a batch of its images, because long ones take turns.
      turns: engine calls at the same time, on all cores of a CPU; else there is one. Images of others than the largest
        call count as waiting.
      streams: requests that are answered as streams at the same time.
      requests: requests at the same time, from the head of one to the last byte of its answer.
      answer_bytes: memory of all answers that are being made or not sent yet. One answer alone may be larger.
      body_bytes: size of one HTTP request or gRPC message.
      received_bytes: memory of all bodies that are being received or worked on. One alone may be larger.
      connections: HTTP connections. When there are more, the one that is longest without progress is closed.
      grpc_connections: gRPC connections; more are refused.
      regions: of shared memory. Like connections, each takes a file descriptor.
      timeout_s: time for a head and for a body to arrive, from a request to its answer, and for reading the answer.
    """

    images: int
    stream_images: int
    piece: int
    batch: int
    queue: int
    turns: int = 3
    streams: int = 8
    requests: int = 256
    answer_bytes: int = 1 << 27
    body_bytes: int = 1 << 20
    received_bytes: int = 1 << 26
    connections: int = 512
    grpc_connections: int = 128
    regions: int = 128
    timeout_s: float = 60.0

    @staticmethod
    def values(images: int) -> int:
        """Values of an input of a request for so many images: a place has four for each."""
        return 4 * max(images, 1)

    @property
    def strained_queue(self) -> int:
        """Images that wait after a refusal: with too many requests a longer queue makes all answers late."""
        return min(self.queue, 2 * self.batch)

    @classmethod
    def usual(
        cls,
        resolution: tuple[int, int],
        *,
        images: int | None = None,
        queue: int | None = None,
        body_bytes: int | None = None,
        timeout_s: float | None = None,
    ) -> Limits:
        """The limits for images of this size; arguments override some."""
        batch = max(2, largest_chunk(resolution) // 2)  # larger batches are not faster, but take longer
        most = images or max(1, _REQUEST_PIXELS // (resolution[0] * resolution[1]))
        least, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        # The defaults fit into 1,024 descriptors, and leave a quarter of them for everything else.
        part = 1.0 if least == resource.RLIM_INFINITY else min(1.0, least / 1024)
        return cls(
            images=most,
            stream_images=1_000_000,
            piece=min(most, 4 * batch),
            batch=batch,
            queue=queue or 8 * batch,
            body_bytes=body_bytes or cls.body_bytes,
            connections=int(part * cls.connections),
            grpc_connections=int(part * cls.grpc_connections),
            regions=int(part * cls.regions),
            requests=min(cls.requests, int(part * cls.connections) // 2),
            timeout_s=timeout_s or cls.timeout_s,
        )


class UnderWay:
    """Counts what is under way, for one event loop. Each method is a block that counts until it ends.

    Raises:
      ServeError: by each method: the limit is reached.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._counts: Counter[str] = Counter()

    @contextlib.contextmanager
    def request(self) -> Iterator[None]:
        """One request, from its head to the last byte of its answer."""
        with self._share("requests", self._limits.requests) as share:
            share.add(1)
            yield

    @contextlib.contextmanager
    def stream(self) -> Iterator[None]:
        """One request that is answered as a stream."""
        with self._share("streams", self._limits.streams) as share:
            share.add(1)
            yield

    def body(self) -> contextlib.AbstractContextManager[Share]:
        """Memory of a body, to which what arrives is added."""
        return self._share("bytes of bodies", self._limits.received_bytes)

    @contextlib.contextmanager
    def answer(self, size_bytes: int) -> Iterator[None]:
        """Memory of an answer, from before it is made until it is sent."""
        with self._share("bytes of answers", self._limits.answer_bytes) as share:
            share.add(size_bytes)
            yield

    def count(self, what: str) -> int:
        """How much is under way of "requests", "streams", "bytes of bodies" or "bytes of answers"."""
        return self._counts[what]

    @contextlib.contextmanager
    def _share(self, what: str, most: int) -> Iterator[Share]:
        share = Share(self._counts, what, most)
        try:
            yield share
        finally:
            self._counts[what] -= share.amount


class Share:
    """One request's part of something that is limited for all of them. A part alone may be larger than the limit."""

    def __init__(self, counts: Counter[str], what: str, most: int) -> None:
        self._counts = counts
        self._what = what
        self._most = most
        self.amount = 0

    def add(self, amount: int) -> None:
        """Make the part larger.

        Raises:
          ServeError: all parts would be more than the limit.
        """
        now = self._counts[self._what]
        if now > self.amount and now + amount > self._most:
            raise ServeError(
                "unavailable",
                f"infer: {self._what} under way are {now}, expected at most {self._most} with {amount} more. "
                "Try again later.",
            )
        self._counts[self._what] += amount
        self.amount += amount
