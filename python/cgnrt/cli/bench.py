"""`cgnrt bench`: images per second of one plan on this machine."""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from typing import Any

from cgnrt._support.machine import describe_machine
from cgnrt._support.terminal import progress_bar, say
from cgnrt.batch import Batch
from cgnrt.cli.arguments import Commands, add_generator, open_generator
from cgnrt.generator import Generator


def add_parser(commands: Commands) -> None:
    parser = commands.add_parser("bench", help="images per second on this machine")
    add_generator(parser)
    parser.add_argument(
        "--batch", type=int, help="images per call (1600 of 32 x 32 px, of larger ones fewer)"
    )
    parser.add_argument("--reuse", type=int, default=16, help="images per pool entry (16)")
    parser.add_argument("--seconds", type=float, default=2.0, help="time for each case (2)")
    parser.add_argument("--seed", type=int, default=0, help="of the first call; each has another (0)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    positive = 0 < arguments.seconds < math.inf and arguments.reuse >= 1
    if not positive or (arguments.batch is not None and arguments.batch < 1):
        raise ValueError("bench: batch, reuse and seconds are not all positive, expected positive numbers.")
    generator = open_generator(arguments)
    result = measure(
        generator,
        batch=usual_batch(generator.resolution) if arguments.batch is None else arguments.batch,
        reuse=arguments.reuse,
        seconds=arguments.seconds,
        seed=arguments.seed,
    )
    say(json.dumps(result, indent=2) if arguments.json else table(result))


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
    with progress_bar(seconds * len(cases), bar_format="{desc}{percentage:3.0f}% |{bar}|") as bar:
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
        batch.on_device.synchronize()


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
