"""What a section found: a JSON file that grows row by row, and tables."""

from __future__ import annotations

import contextlib
import json
import signal
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from report import quantile

DRY = "dry run"


class NotRunError(Exception):
    """Why something is not measured, in words for the table."""


def first_line(error: BaseException) -> str:
    """What an error says, without what follows."""
    return (str(error).splitlines() or [type(error).__name__])[0]


@contextlib.contextmanager
def time_limit(seconds: float, what: str) -> Iterator[None]:
    """End the block after so long; for the main thread, once in a process at a time.

    Raises:
      NotRunError: the time is over.
    """

    def leave(number: int, frame: object) -> None:
        raise NotRunError(f"{what} was not done after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, leave)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Budget:
    """The time of a section, which begins when it has the card to itself."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.start()

    def start(self) -> None:
        self._end = time.monotonic() + self.seconds

    def left(self) -> float:
        """Seconds, 0 at least."""
        return max(0.0, self._end - time.monotonic())

    def share(self, part: float, *, at_most: float) -> float:
        """Seconds for one step: a part of what is left, within a bound."""
        return min(at_most, part * self.left())

    def require(self, seconds: float, what: str) -> None:
        """Go on only where so much is left.

        Raises:
          NotRunError: it is not.
        """
        if self.left() < seconds:
            raise NotRunError(
                f"{what} may take {seconds:g} s, {self.left():.0f} of the section's {self.seconds:g} s are left"
            )


class Recorder:
    """Rows, results and facts of one section, saved whenever there is a new one.

    Args:
      dry: save "dry run" in the place of each figure.
    """

    def __init__(self, section: str, path: Path, *, dry: bool) -> None:
        self._path, self._dry = path, dry
        self._begin = time.monotonic()
        self.content: dict[str, Any] = {
            "section": section,
            "complete": False,
            "reason": None,
            "seconds": None,
            "rows": [],
            "results": {},
            "facts": {},
        }

    def row(
        self,
        what: str,
        times: Sequence[float] = (),
        *,
        count: float | None = None,
        unit: str = "images/s",
        ratio: float | None = None,
        note: str = "",
        **figures: float,
    ) -> None:
        """Add a row.

        Args:
          times: seconds of each call; median and percentiles are kept.
          count: of what a call does, for a rate in `unit`.
          ratio: to what the note or the section says.
          note: facts, without figures that were measured.
          figures: others, by name.
        """
        numbers: dict[str, Any] = {}
        if times:
            numbers |= {
                f"{name}_ms": quantile(times, at) * 1e3 for name, at in (("median", 0.5), ("p95", 0.95))
            }
            if count is not None:
                numbers["rate"] = count / statistics.median(times)
        numbers |= {"ratio": ratio, **figures}
        found = {name: DRY if self._dry else value for name, value in numbers.items() if value is not None}
        if "rate" in found:
            found["unit"] = unit
        self.content["rows"].append({"what": what, **found, "note": note})
        self._save()

    def skipped(self, what: str, reason: object) -> None:
        """Add a row that says why there is no figure."""
        self.content["rows"].append({"what": what, "note": f"not run: {reason}"})
        self._save()

    def result(self, measure: str, value: float, note: str) -> None:
        """Say what a measure of the last table came to."""
        self.content["results"][measure] = {"value": DRY if self._dry else value, "note": note}
        self._save()

    def fact(self, name: str, value: Any) -> None:
        self.content["facts"][name] = value
        self._save()

    def finish(self, reason: object = None) -> None:
        """End the section; without a reason it is complete."""
        self.content |= {
            "complete": reason is None,
            "reason": None if reason is None else str(reason),
            "seconds": DRY if self._dry else round(time.monotonic() - self._begin, 1),
        }
        self._save()

    def _save(self) -> None:
        write(self._path, self.content)


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Save a file; a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(content, indent=2) + "\n")
    beside.replace(path)


def read(path: Path) -> dict[str, Any] | None:
    """A section's file; None if it does not exist or is not complete JSON."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def table_rows(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A section's rows as they are printed, all of one shape."""
    names = dict.fromkeys(name for row in content["rows"] for name in row if name != "note")
    return [{name: row.get(name, "") for name in (*names, "note")} for row in content["rows"]]
