"""What all benchmarks share: timing in turns, a table, a JSON file with versions, commit and machine."""

from __future__ import annotations

import importlib.metadata
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cgnrt.machine import describe_machine

ROOT = Path(__file__).resolve().parent.parent


def time_in_turns(
    cases: Mapping[str, Callable[[], object]], *, rounds: int, warmup: int = 2
) -> dict[str, list[float]]:
    """Seconds of every call, the cases in turn, so that a machine whose speed drifts slows all alike."""
    for call in cases.values():
        for _ in range(warmup):
            call()
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, call in cases.items():
            begin = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - begin)
    return times


def summary(times: Sequence[float]) -> dict[str, float]:
    """Median and 95th percentile in milliseconds."""
    ordered = sorted(times)
    p95 = ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))]
    return {"median_ms": statistics.median(ordered) * 1e3, "p95_ms": p95 * 1e3}


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


def context() -> dict[str, Any]:
    """Date, commit, machine and versions."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "commit": _commit(),
        "machine": describe_machine(),
        "versions": {
            name: importlib.metadata.version(name)
            for name in ("cgnrt", "numpy", "torch", "onnxruntime", "openvino")
            if _installed(name)
        },
    }


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)


def _commit() -> str:
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or "unknown"


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
