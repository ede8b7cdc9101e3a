"""From nothing to the first batch of a plan, against `import torch` alone: fresh processes, in turn.

With `--against CHECKOUT` another state of the code takes its turns, too: whole processes, and in them the seconds of
`import cgnrt` and of opening a plan and sampling once.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from checkouts import Checkout
from report import ROOT, median_ratio, print_table, summary, time_in_turns, write_json

_FIRST_BATCH = """
import json, sys, time
begin = time.perf_counter()
import cgnrt
imported = time.perf_counter()
cgnrt.Generator(sys.argv[1]).sample(int(sys.argv[2]), seed=0)
print(json.dumps([imported - begin, time.perf_counter() - imported]))
"""
# Each plan with the size of its first batch.
_PLANS = {"plans/double-colored.plan": 64, "tests/runtime/golden/small_cgn.plan": 1}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--plan", type=Path, default=ROOT / "plans" / "double-colored.plan")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="another state of the code")
    parser.add_argument("--json", type=Path, help="where to write the result")
    arguments = parser.parse_args()

    if arguments.against:
        rows = against(arguments.against, arguments.rounds)
        print_table(f"Start-up against {arguments.against}: medians, and of ratios within a round", rows)
        write_json("startup-against", {"rounds": arguments.rounds, "rows": rows}, arguments.json)
        return
    first_batch = f"import cgnrt; cgnrt.Generator({str(arguments.plan)!r}).sample(64, seed=0)"
    programs = {
        "python alone": "pass",
        "import cgnrt": "import cgnrt",
        "import cgnrt + first batch": first_batch,
        "import torch": "import torch",
    }
    cases = {
        name: lambda code=code: subprocess.run([sys.executable, "-c", code], check=True)
        for name, code in programs.items()
    }
    times = time_in_turns(cases, rounds=arguments.rounds, warmup=1)
    rows = [
        {"program": name, **summary(seconds), "to import torch": median_ratio(seconds, times["import torch"])}
        for name, seconds in times.items()
    ]
    print_table("Start-up, whole processes", rows)
    write_json("startup", {"rows": rows}, arguments.json)


def against(other: Path, rounds: int) -> list[dict[str, Any]]:
    """Rows for each plan: the whole process, `import cgnrt`, opening the plan and the first batch."""
    checkouts = (Checkout.find(other), Checkout.find(ROOT))
    rows = []
    for plan, n in _PLANS.items():
        seconds: tuple[list[list[float]], list[list[float]]] = ([], [])
        for turn in range(rounds + 1):
            for checkout, found in zip(checkouts, seconds, strict=True):
                begin = time.perf_counter()
                stages = json.loads(checkout.run(_FIRST_BATCH, ROOT / plan, n))
                if turn:  # the first one writes byte code
                    found.append([time.perf_counter() - begin, *stages])
        for k, stage in enumerate(("whole process", "import cgnrt", "open and first batch")):
            then, now = ([turn[k] for turn in found] for found in seconds)
            rows.append(
                {
                    "plan": Path(plan).stem,
                    "stage": stage,
                    "against_ms": statistics.median(then) * 1e3,
                    "this_ms": statistics.median(now) * 1e3,
                    "ratio": median_ratio(now, then),
                }
            )
    return rows


if __name__ == "__main__":
    main()
