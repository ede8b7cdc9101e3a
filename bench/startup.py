"""From nothing to the first batch of a plan, against `import torch` alone: fresh processes, in turn."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from report import ROOT, median_ratio, print_table, summary, time_in_turns, write_json


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plan", type=Path, default=ROOT / "plans" / "double-colored.plan")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, help="where to write the result")
    arguments = parser.parse_args()

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


if __name__ == "__main__":
    main()
