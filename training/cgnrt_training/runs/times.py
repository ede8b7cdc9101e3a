"""How long things take, as a log says it."""

from __future__ import annotations

import time
from typing import TextIO

from cgnrt._support.terminal import say


def shown(seconds: float) -> str:
    """A time as people say it."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.2f} s"


class Estimate:
    """Tells once, after some seconds of work, how long the rest of it will take.

    Args:
      left: how many things are to be done.
      things: what they are, in the plural.
      log: None tells nothing.
    """

    def __init__(self, left: int, things: str, log: TextIO | None, after_s: float = 5.0) -> None:
        self._left, self._things, self._log, self._after_s = left, things, log, after_s
        self._begin: float | None = None
        self._done = 0

    def add(self, count: int) -> None:
        """So many more are done."""
        self._left -= count
        now = time.perf_counter()
        if self._begin is None:  # the first ones are slower than the others
            self._begin = now
            return
        self._done += count
        if self._log is not None and now - self._begin >= self._after_s and self._left > 0:
            each = (now - self._begin) / self._done
            say(f"time: {shown(each * self._left)} for {self._left:,} more {self._things}", self._log)
            self._log = None
