"""Everything that the first nine minutes on an NVIDIA GPU can tell, in one command.

    python bench/gpu/first.py --out FOLDER

It needs CUDA's PyTorch, NumPy, Pillow and pytest, and either an installed cgnrt or pip, scikit-build-core, pybind11,
CMake, ninja and nvcc to build one. It needs no network, no plan and no other engine library. FOLDER/first.json has
every row as soon as it is measured. What is missing on the machine, and what there was no time for, is in the table
with the reason.
`--dry-run` does every step on the CPU, a few pixels at a time, and shows no figure.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

BENCH = Path(__file__).resolve().parents[1]
sys.path[0] = str(BENCH)  # these files are its package `gpu`

from gpu.build import ended_by_signals, ready  # noqa: E402

SECTIONS = ("tests", "memcheck", "racecheck", "imagenet", "kernels", "mnist", "needed")
SECTIONS += ("imagenet-32", "needed-32", "engines")
WORK = BENCH.parent / "out" / "bench-gpu"


def main(arguments: Sequence[str] | None = None) -> int:
    begin = time.monotonic()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sections",
        nargs="+",
        choices=SECTIONS,
        default=SECTIONS,
        metavar="NAME",
        help=", ".join(SECTIONS),
    )
    parser.add_argument("--out", type=Path, default=WORK, help="for first.json and logs (%(default)s)")
    parser.add_argument(
        "--work", type=Path, default=WORK / "work", help="for builds and caches (%(default)s)"
    )
    parser.add_argument("--minutes", type=float, default=9, help="for everything (%(default)s)")
    parser.add_argument("--plan", type=Path, help="what the engines section runs (plans/double-colored.plan)")
    parser.add_argument("--commit", help="what to say of the code where there is no git")
    parser.add_argument("--no-compile", action="store_true", help="leave out what torch.compile makes")
    parser.add_argument("--compile-mode", default="default", help="of torch.compile (%(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="on the CPU, without figures")
    parser.add_argument("--child", choices=SECTIONS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child is not None:
        from gpu import runner

        return runner.run_child(options)
    with ended_by_signals():
        build = ready(options.work, dry=options.dry_run)
        sys.path[1:1] = build.paths
        if build.paths:
            os.environ["PYTHONPATH"] = os.pathsep.join(build.paths)
        from gpu import runner  # imports cgnrt, which is there only now

        return runner.run_all(options, build, begin)


if __name__ == "__main__":
    sys.exit(main())
