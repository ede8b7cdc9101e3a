"""What a section of the GPU benchmark found: a JSON file that grows row by row, and a table."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from report import quantile

DRY = "dry run"


class NotRunError(Exception):
    """Why something is not measured, in words for the table."""


class OutOfTimeError(NotRunError):
    """The section's time does not suffice for more."""


def first_line(error: BaseException) -> str:
    """What an error says, without what follows."""
    return (str(error).splitlines() or [type(error).__name__])[0]


class Budget:
    """The time of a section."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds, 0 at least."""
        return max(0.0, self._end - time.monotonic())

    def share(self, part: float, *, at_most: float) -> float:
        """Seconds for one step: a part of what is left, within a bound."""
        return min(at_most, part * self.left())

    def require(self, seconds: float, what: str) -> None:
        """Go on only where so much is left.

        Raises:
          OutOfTimeError: it is not.
        """
        if self.left() < seconds:
            raise OutOfTimeError(
                f"{what} may take {seconds:g} s, {self.left():.0f} of the section's {self.seconds:g} s were left"
            )


class Recorder:
    """Rows, results and facts of one section, saved whenever there is a new one.

    Args:
      header: what stands before them in the file; `is_same_run` compares it.
      dry: keep no figure.
    """

    def __init__(self, section: str, path: Path, header: Mapping[str, Any], *, dry: bool) -> None:
        self._path, self._dry = path, dry
        self._begin = time.monotonic()
        self._content: dict[str, Any] = {
            "benchmark": f"gpu-{section}",
            "section": section,
            "dry_run": dry,
            **header,
            "complete": False,
            "reason": None,
            "rows": [],
            "results": [],
            "facts": {},
        }

    def row(
        self,
        what: str,
        times: Sequence[float] = (),
        *,
        rate: float | None = None,
        unit: str = "",
        ratio: float | None = None,
        figures: Mapping[str, float] | None = None,
        note: str = "",
    ) -> None:
        """Add a row.

        Args:
          times: seconds of each call; median and percentiles are kept.
          rate: how much a second, in `unit`.
          ratio: to what the note or the section says.
          figures: others, by name.
          note: facts, without figures that were measured.
        """
        values: dict[str, float | None] = {"median_ms": None, "p5_ms": None, "p95_ms": None}
        if times:
            values = {
                "median_ms": statistics.median(times) * 1e3,
                "p5_ms": quantile(times, 0.05) * 1e3,
                "p95_ms": quantile(times, 0.95) * 1e3,
            }
        numbers = {**values, "rate": rate, "ratio": ratio, **(figures or {})}
        if self._dry:
            numbers = {name: None if value is None else DRY for name, value in numbers.items()}
        self._content["rows"].append({"what": what, **numbers, "unit": unit, "note": note})
        self._save()

    def skipped(self, what: str, reason: object) -> None:
        """Add a row that says why there is no figure."""
        self._content["rows"].append({"what": what, "not_run": str(reason)})
        self._save()

    def result(self, measure: str, value: float, note: str, *, aim_met: bool | None = None) -> None:
        """Say what a measure of the last table came to."""
        figure = DRY if self._dry else value
        self._content["results"].append(
            {
                "measure": measure,
                "value": figure,
                "aim_met": DRY if self._dry else aim_met,
                "note": note,
            }
        )
        self._save()

    def not_run(self, measure: str, reason: object) -> None:
        """Say why a measure has no figure."""
        self._content["results"].append({"measure": measure, "not_run": str(reason)})
        self._save()

    def fact(self, name: str, value: Any) -> None:
        """Keep what later sections ask for."""
        self._content["facts"][name] = value
        self._save()

    def finish(self, measures: Sequence[str], reason: object = None) -> None:
        """End the section; without a reason it is complete. Measures without a result are not run for the reason."""
        self._content |= {"complete": reason is None, "reason": None if reason is None else str(reason)}
        if not self._dry:
            self._content["seconds"] = round(time.monotonic() - self._begin, 1)
        close(self._content, measures, reason)
        self._save()

    def _save(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write(self._path, self._content)


def close(content: dict[str, Any], measures: Sequence[str], reason: object) -> None:
    """Say of measures without a result that they were not run, and why."""
    found = {result["measure"] for result in content["results"]}
    why = "the section gave no figure" if reason is None else str(reason)
    content["results"] += [{"measure": name, "not_run": why} for name in measures if name not in found]


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Save a section's file; a reader never sees half of it."""
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
    beside.replace(path)


def read(path: Path) -> dict[str, Any] | None:
    """A section's file; None where there is none that can be read."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and "section" in content else None


def is_same_run(content: Mapping[str, Any], header: Mapping[str, Any], *, dry: bool) -> bool:
    """Whether a file's figures are of this code, these versions and this card: those of another do not stand beside."""
    names = ("commit", "versions", "device")
    return content.get("dry_run") is dry and all(content.get(name) == header[name] for name in names)


def table_rows(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A section's rows as they are printed, all of one shape; what no row has is left out."""
    basic = ("what", "median_ms", "p5_ms", "p95_ms", "rate", "unit", "ratio")
    extra = [
        name
        for name in dict.fromkeys(name for row in content["rows"] for name in row)
        if name not in (*basic, "note", "not_run")
    ]
    rows = []
    for row in content["rows"]:
        note = f"not run: {row['not_run']}" if "not_run" in row else row["note"]
        rows.append({**{name: _shown(row.get(name)) for name in (*basic, *extra)}, "note": note})
    used = [name for name in (rows[0] if rows else ()) if any(row[name] != "" for row in rows)]
    return [{name: row[name] for name in used} for row in rows]


def _shown(value: Any) -> Any:
    return "" if value is None else value
