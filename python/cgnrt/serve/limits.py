"""What a server accepts at most, and a count of what is under way."""

from __future__ import annotations

import contextlib
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
      streams: requests that are answered as streams at the same time.
      requests: requests at the same time, from the head of one to the last byte of its answer.
      answer_bytes: memory of all answers that are being made or not sent yet. One answer alone may be larger.
      body_bytes: size of one HTTP request or gRPC message.
      timeout_s: time from a request to its answer.
    """

    images: int
    stream_images: int
    piece: int
    batch: int
    queue: int
    streams: int = 8
    requests: int = 256
    answer_bytes: int = 1 << 29
    body_bytes: int = 1 << 20
    timeout_s: float = 60.0

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
        return cls(
            images=most,
            stream_images=1_000_000,
            piece=min(most, 4 * batch),
            batch=batch,
            queue=queue or 8 * batch,
            body_bytes=body_bytes or cls.body_bytes,
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

    def request(self) -> contextlib.AbstractContextManager[None]:
        """One request, from its head to the last byte of its answer."""
        return self._count("requests", 1, self._limits.requests)

    def stream(self) -> contextlib.AbstractContextManager[None]:
        """One request that is answered as a stream."""
        return self._count("streams", 1, self._limits.streams)

    def answer(self, size_bytes: int) -> contextlib.AbstractContextManager[None]:
        """Memory of an answer, from before it is made until it is sent. One answer alone may have any size."""
        return self._count("bytes of answers", size_bytes, self._limits.answer_bytes)

    def count(self, what: str) -> int:
        """How much is under way of "requests", "streams" or "bytes of answers"."""
        return self._counts[what]

    @contextlib.contextmanager
    def _count(self, what: str, amount: int, most: int) -> Iterator[None]:
        now = self._counts[what]
        if now and now + amount > most:
            raise ServeError(
                "unavailable",
                f"infer: {what} under way are {now}, expected at most {most} with {amount} more. Try again later.",
            )
        self._counts[what] += amount
        try:
            yield
        finally:
            self._counts[what] -= amount
