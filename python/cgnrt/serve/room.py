"""What requests under way take up. What does not fit is refused at once."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator

from cgnrt.serve.limits import Limits
from cgnrt.serve.protocol import ServeError


class Room:
    """Counts what is taken; each of the methods gives it back when its block ends. For one event loop."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._taken: Counter[str] = Counter()

    def request(self) -> contextlib.AbstractContextManager[None]:
        """One request, from its head to the last byte of its answer."""
        return self._take("requests", 1, self._limits.requests)

    def stream(self) -> contextlib.AbstractContextManager[None]:
        """One request that is answered as a stream."""
        return self._take("streams", 1, self._limits.streams)

    def answer(self, size_bytes: int) -> contextlib.AbstractContextManager[None]:
        """Memory of an answer, from before it is made until it is sent. A single one may be of any size."""
        return self._take("bytes of answers", size_bytes, self._limits.answer_bytes)

    def taken(self, what: str) -> int:
        """How much of it is taken: "requests", "streams" or "bytes of answers"."""
        return self._taken[what]

    @contextlib.contextmanager
    def _take(self, what: str, amount: int, most: int) -> Iterator[None]:
        now = self._taken[what]
        if now and now + amount > most:
            raise ServeError(
                "unavailable",
                f"infer: {what} under way are {now}, expected at most {most} with {amount} more. Try again later.",
            )
        self._taken[what] += amount
        try:
            yield
        finally:
            self._taken[what] -= amount
