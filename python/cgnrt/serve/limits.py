"""What a server takes at most."""

from __future__ import annotations

from dataclasses import dataclass

from cgnrt.render.networks import largest_chunk

# Of a request that is answered at once: 4,096 images of 32 x 32, 64 of 256 x 256.
_REQUEST_PIXELS = 1 << 22


@dataclass(frozen=True)
class Limits:
    """Limits of one server; options of `cgnrt serve` set some.

    Attributes:
      images: of one request, and entries of each of its pools.
      stream_images: of one request that is answered as a stream.
      piece: images in one response of such a stream at most.
      batch: images that one engine call makes at most, of one request or several.
      queue: images that wait at most. A request waits with no more than a batch of its images: longer ones take turns.
      streams: requests that are answered as streams at once.
      requests: at once, from the head of one to the last byte of its answer.
      answer_bytes: of all answers that are being made or not sent yet; one alone may be larger.
      body_bytes: of one HTTP request or gRPC message.
      timeout_s: from a request to its answer.
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
        """Images that wait at most where more come than are made: a longer queue makes none faster, but all late."""
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
        """Limits for images of this size, where they are not given."""
        batch = max(2, largest_chunk(resolution) // 2)  # more are not faster, but take longer
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
