"""What all benchmarks share: timing in turns, a table, a JSON file with versions, commit and machine."""

from __future__ import annotations

import importlib.metadata
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cgnrt._support.machine import describe_machine

ROOT = Path(__file__).resolve().parent.parent
# Of which versions are worth knowing, where they are installed.
PACKAGES = (
    "cgnrt",
    "numpy",
    "torch",
    "triton",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "tensorrt",
)
PACKAGES += ("tensorrt-rtx", "pytorch-pretrained-biggan")
_FEWEST = 3  # rounds, however long they take


def host_seconds(call: Callable[[], object]) -> float:
    """Seconds of a call that returns when its work is done."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def time_in_turns(
    cases: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    warmup: int = 2,
    seconds: Callable[[Callable[[], object]], float] = host_seconds,
    limit_s: float = math.inf,
) -> dict[str, list[float]]:
    """Seconds of every call, the cases in turn, so that a machine whose speed drifts slows all alike.

    Args:
      seconds: what takes the time of a call.
      limit_s: after so long no round begins, except for the first three.
    """
    for call in cases.values():
        for _ in range(warmup):
            call()
    times: dict[str, list[float]] = {name: [] for name in cases}
    end = time.monotonic() + limit_s
    for turn in range(rounds):
        if turn >= _FEWEST and time.monotonic() > end:
            break
        for name, call in cases.items():
            times[name].append(seconds(call))
    return times


def summary(times: Sequence[float]) -> dict[str, float]:
    """Median and 95th percentile in milliseconds."""
    return {"median_ms": statistics.median(times) * 1e3, "p95_ms": quantile(times, 0.95) * 1e3}


def quantile(values: Sequence[float], share: float) -> float:
    """The value that this share of the others is not above; one of them, nothing between."""
    ordered = sorted(values)
    return ordered[round(share * (len(ordered) - 1))]


def median_ratio(numerator: Sequence[float], denominator: Sequence[float]) -> float:
    """Median of the ratios round by round."""
    return statistics.median(a / b for a, b in zip(numerator, denominator, strict=True))


def print_table(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows of one shape as Markdown."""
    print(f"\n{title}\n")
    columns = list(rows[0])
    cells = [[_cell(row[c]) for c in columns] for row in rows]
    widths = [max(len(c), *(len(row[k]) for row in cells)) for k, c in enumerate(columns)]
    for line in (columns, ["-" * w for w in widths], *cells):
        print("| " + " | ".join(text.ljust(w) for text, w in zip(line, widths, strict=True)) + " |")


def write_json(name: str, result: Mapping[str, Any], target: Path | None) -> None:
    """Save a result with what it was measured on; `out/bench-<name>.json` unless told otherwise."""
    target = target or ROOT / "out" / f"bench-{name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps({"benchmark": name, **context(), **result}, indent=2) + "\n")
    print(f"\nwritten: {target}", file=sys.stderr)


def context(commit: str | None = None) -> dict[str, Any]:
    """Date, commit, machine and versions.

    Args:
      commit: what to say of the code; None asks git, where there is one.
    """
    return {
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit or _commit(),
        "machine": describe_machine(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES if _installed(name)},
    }


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    try:
        found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:  # a machine without git, or without the right to run it
        return "unknown"
    return found.stdout.strip() or "unknown"


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
