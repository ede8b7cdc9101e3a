"""Images per second of an MNIST plan, this checkout against another.

Each has a process of its own; they take turns, and every call has a new seed.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
from pathlib import Path
from typing import Any

from checkouts import Checkout
from report import ROOT, median_ratio, print_table, write_json

_SERVE = """
import sys, time
import cgnrt
generator = cgnrt.Generator(sys.argv[1])
for seed, line in enumerate(sys.stdin):
    n, pool = map(int, line.split())
    begin = time.perf_counter()
    generator.sample(n, seed=seed, pool=pool or None)
    print(time.perf_counter() - begin, flush=True)
"""
REUSE = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("against", type=Path, metavar="CHECKOUT", help="the other state of the code")
    parser.add_argument("--plan", type=Path, default=ROOT / "plans" / "double-colored.plan")
    parser.add_argument("--images", type=int, default=1600, help="images per call")
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--json", type=Path, help="where to write the result")
    arguments = parser.parse_args()
    n = arguments.images

    processes = [
        Checkout.find(folder).start(_SERVE, arguments.plan.resolve()) for folder in (arguments.against, ROOT)
    ]
    rows = []
    for name, pool in (("reuse 1", 0), (f"pool, reuse {REUSE}", n // REUSE)):
        seconds: tuple[list[float], list[float]] = ([], [])
        for turn in range(arguments.rounds + 2):
            for process, found in zip(processes, seconds, strict=True):
                second = ask(process, n, pool)
                if turn >= 2:
                    found.append(second)
        then, now = seconds
        rows.append(
            {
                "case": name,
                "images/s against": n / statistics.median(then),
                "images/s": n / statistics.median(now),
                "ratio": median_ratio(then, now),
            }
        )
    for process in processes:
        process.communicate()
    print_table(f"Images per second against {arguments.against}, medians, and of ratios within a round", rows)
    result: dict[str, Any] = {"images": n, "rounds": arguments.rounds, "rows": rows}
    write_json("rates", result, arguments.json)


def ask(process: subprocess.Popen[str], n: int, pool: int) -> float:
    """Seconds of one call of `sample` in a process."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{n} {pool}\n")
    process.stdin.flush()
    return float(process.stdout.readline())


if __name__ == "__main__":
    main()
