"""`cgnrt bench`: images per second of one plan on this machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from tqdm import tqdm

from cgnrt.batch import Batch
from cgnrt.generator import Generator
from cgnrt.machine import describe_machine


def measure(generator: Generator, *, batch: int, reuse: int, seconds: float, seed: int) -> dict[str, Any]:
    """Time fresh samples, and pool samples that use every entry `reuse` times.

    A new seed for every timed call, so that no cached pool answers. Returns medians in images per second. A bar on
    stderr, if that is a terminal, shows how far it is; it moves between the timed calls.
    """
    seeds = iter(range(seed, seed + 1_000_000))
    pool = max(1, batch // reuse)
    cases: dict[str, Callable[[], Batch]] = {
        "reuse 1": lambda: generator.sample(batch, seed=next(seeds)),
        f"pool {pool}, reuse {reuse}": lambda: generator.sample(batch, seed=next(seeds), pool=pool),
    }
    rows = []
    with tqdm(total=seconds * len(cases), bar_format="{desc}{percentage:3.0f}% |{bar}|", disable=None) as bar:
        for before, (name, call) in enumerate(cases.items()):
            bar.set_description(name)
            _wait(call())
            times: list[float] = []
            start = time.perf_counter()
            while not times or time.perf_counter() < start + seconds:
                begin = time.perf_counter()
                _wait(call())
                end = time.perf_counter()
                times.append(end - begin)
                bar.update(before * seconds + min(end - start, seconds) - bar.n)
            rows.append(
                {"case": name, "images_per_second": batch / statistics.median(times), "calls": len(times)}
            )
    return {
        "plan": str(generator.plan.path),
        "digest": generator.plan.digest,
        "backend": generator.backend,
        "precision": generator.precision,
        "device": generator.device,
        "reason": generator.reason,
        "batch": batch,
        "rows": rows,
        "machine": describe_machine(),
    }


def _wait(batch: Batch) -> None:
    """A batch on a GPU is still being made when it is handed out."""
    if batch.on_device is not None:
        batch.on_device.stream.synchronize()


def usual_batch(resolution: tuple[int, int]) -> int:
    """Images in a timed call that take neither an instant nor minutes: 1,600 of 32 x 32 px, 25 of 256 x 256."""
    return max(1, min(1600, 1600 * 32 * 32 // (resolution[0] * resolution[1])))


def table(result: dict[str, Any]) -> str:
    """The result as text."""
    lines = [
        f"{result['plan']}: {result['backend']} {result['precision']} on {result['device']} ({result['reason']})",
        f"{result['machine']['cpu']}, {result['machine']['cores']} cores, "
        f"matrix extensions: {', '.join(result['machine']['matrix_extensions']) or 'none'}",
    ]
    lines += [
        f"  {row['case']:<24} {row['images_per_second']:>12,.0f} images/s   ({row['calls']} calls of {result['batch']})"
        for row in result["rows"]
    ]
    return "\n".join(lines)
