"""Which Python modules of cgnrt have lines that run in `Generator(plan)` and `gen.sample(256)` on the native engine.

They are what one has to read to follow a call. A module counts if at least one line of one of its functions runs; what
an import runs does not count. Each checkout is traced in a fresh process.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from checkouts import Checkout
from report import ROOT, print_table, write_json

_TRACED = """
import json, pathlib, sys, threading
import cgnrt

package = pathlib.Path(cgnrt.__file__).parent
found = {"construct": set(), "sample": set()}
lines = set()
step = "construct"
IMPORT = "<frozen importlib._bootstrap>"

def imports(frame):
    while frame is not None:
        if frame.f_code.co_filename == IMPORT:
            return True
        frame = frame.f_back
    return False

def in_function(frame, event, argument):
    if event == "line":
        lines.add((frame.f_code.co_filename, frame.f_lineno))
    return in_function

def trace(frame, event, argument):
    code = frame.f_code
    # Modules and bodies of classes have no optimised locals.
    if code.co_flags & 1 and code.co_filename.startswith(str(package)) and not imports(frame):
        found[step].add(code.co_filename)
        return in_function

threading.settrace(trace)
sys.settrace(trace)
generator = cgnrt.Generator(sys.argv[1])
step = "sample"
generator.sample(256, seed=0)
sys.settrace(None)
threading.settrace(None)
if set(generator.backend.replace(",", " ").split()) != {"native"}:
    sys.exit("the plan does not run on the native engine")
named = {key: sorted(str(pathlib.Path(f).relative_to(package)) for f in files) for key, files in found.items()}
loaded = sum(name == "cgnrt" or name.startswith("cgnrt.") for name in sys.modules)
print(json.dumps({**named, "lines": len(lines), "imported": loaded}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", type=Path, nargs="?", default=ROOT)
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="another one, to compare with")
    parser.add_argument("--plan", type=Path, default=ROOT / "plans" / "double-colored.plan")
    parser.add_argument("--json", type=Path, help="where to write the result")
    arguments = parser.parse_args()

    folders = [folder for folder in (arguments.checkout, arguments.against) if folder]
    traces = {str(folder): traced(folder, arguments.plan) for folder in folders}
    for folder, trace in traces.items():
        print(f"\n{folder}\n  " + "\n  ".join(trace["modules"]))
    rows = [
        {
            "checkout": folder,
            "modules": len(trace["modules"]),
            "in Generator(plan)": len(trace["construct"]),
            "in sample(256)": len(trace["sample"]),
            "lines that run": trace["lines"],
            "modules imported": trace["imported"],
        }
        for folder, trace in traces.items()
    ]
    print_table("Modules whose lines run in Generator(plan) and sample(256)", rows)
    write_json("modules", {"rows": rows, "traces": traces}, arguments.json)


def traced(folder: Path, plan: Path) -> dict[str, Any]:
    """What runs in a checkout: modules by call and altogether, lines, modules that were imported."""
    found: dict[str, Any] = json.loads(Checkout.find(folder).run(_TRACED, plan.resolve()))
    return {**found, "modules": sorted({*found["construct"], *found["sample"]})}


if __name__ == "__main__":
    main()
