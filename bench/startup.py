"""From nothing to the first batch of a plan, against `import torch` alone: fresh processes, in turn.

With `--against CHECKOUT` another state of the code is compared with this one: `import cgnrt`, and opening a plan and
sampling once, by the clock and in processor time, which other processes of a busy machine disturb less.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from checkouts import Checkout
from report import ROOT, median_ratio, print_table, summary, time_in_turns, write_json

# Prints the seconds of the clock, then of the processor: in all, of the import, of opening and sampling.
_FIRST_BATCH = """
import json, sys, time
clocks = time.perf_counter, time.process_time
begin = [clock() for clock in clocks]
import cgnrt
imported = [clock() for clock in clocks]
cgnrt.Generator(sys.argv[1]).sample(int(sys.argv[2]), seed=0)
end = [clock() for clock in clocks]
print(json.dumps([[e - b, i - b, e - i] for b, i, e in zip(begin, imported, end)]))
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
    """Rows for each plan: import and first batch, and each of the two; by the clock and in processor time."""
    checkouts = (Checkout.find(other), Checkout.find(ROOT))
    rows = []
    for plan, n in _PLANS.items():
        # Turn, checkout, clock, stage. The turn that writes byte code is left out.
        turns = [
            [json.loads(c.run(_FIRST_BATCH, ROOT / plan, n)) for c in checkouts] for _ in range(rounds + 1)
        ]
        for k, stage in enumerate(("import and first batch", "import cgnrt", "open and first batch")):
            row: dict[str, Any] = {"plan": Path(plan).stem, "stage": stage}
            for clock, name in enumerate(("", "cpu ")):
                then, now = ([turn[c][clock][k] for turn in turns[1:]] for c in range(2))
                row[f"{name}against_ms"] = statistics.median(then) * 1e3
                row[f"{name}this_ms"] = statistics.median(now) * 1e3
                row[f"{name}ratio"] = median_ratio(now, then)
            rows.append(row)
    return rows


if __name__ == "__main__":
    main()
