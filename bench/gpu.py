"""What cgnrt does on an NVIDIA GPU, against the card's own rates and what a user would pick instead.

Each section runs in a process of its own, in less than ten minutes, and saves what it measured row by row; weights are
made on the spot. Times are between CUDA events, on random data, in turn with what they are compared with. `--resume`
takes what was measured before by the same code, versions and card. `--dry-run` goes through all of it on the CPU, a
few pixels at a time, and shows no figure.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gpu_results as results
import torch
from gpu_imagenet import measure_compiled, measure_imagenet, measure_pool
from gpu_measures import summary_rows
from gpu_mnist import measure_mnist
from gpu_model import ready
from gpu_ops import measure_compose, measure_device, measure_patch_grid
from gpu_results import Budget, NotRunError, Recorder, first_line
from gpu_setting import EXPORT, REFERENCE, Setting, absent, describe_device
from gpu_training import measure_training
from report import ROOT, context, print_table

from cgnrt import cuda
from cgnrt.errors import CgnrtError


@dataclasses.dataclass(frozen=True)
class Section:
    """A part that is run and resumed by itself.

    Attributes:
      budget_s: what it may take; its process is ended then.
      measures: rows of the last table that it gives.
    """

    name: str
    run: Callable[[Setting, Recorder], None]
    budget_s: float
    measures: tuple[str, ...] = ()


def make_model(setting: Setting, recorder: Recorder) -> None:
    """Random weights of the ImageNet CGN and its plan, which the sections from imagenet on need."""
    recorder.fact("plan", str(ready(setting).plan))


SECTIONS = (
    Section("device", measure_device, 90),
    Section("compose", measure_compose, 300, ("compose",)),
    Section("patch_grid", measure_patch_grid, 420, ("patch_grid",)),
    Section("model", make_model, 560),
    Section("imagenet", measure_imagenet, 570, ("imagenet", "matrix_rate")),
    Section("compiled", measure_compiled, 570, ("compiled",)),
    Section("pool", measure_pool, 300, ("pool",)),
    Section("mnist", measure_mnist, 420, ("mnist",)),
    Section("training", measure_training, 480, ("training",)),
)
STARTING_S = 20  # of a section's time: until its process has imported what it needs
NAMES = tuple(section.name for section in SECTIONS)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sections", nargs="+", choices=NAMES, default=NAMES, metavar="NAME", help=", ".join(NAMES)
    )
    parser.add_argument("--out", type=Path, help="a JSON file for each section (out/bench-gpu)")
    parser.add_argument("--work", type=Path, help="2 GB of weights and a plan (out/bench-gpu-model)")
    parser.add_argument("--resume", action="store_true", help="skip sections that are in --out already")
    parser.add_argument("--commit", help="what to say of the code where there is no git repository")
    parser.add_argument("--dry-run", action="store_true", help="without a GPU, and without figures")
    parser.add_argument("--child", choices=NAMES, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.work = options.work or ROOT / "out" / "bench-gpu-model"
    if options.dry_run:
        torch.set_num_threads(1)  # a few pixels: more would wait for each other
    if options.child:
        return run_child(options)
    if not options.dry_run and (reason := no_card()) is not None:
        print(f"bench gpu: device is none, expected cuda:0: {reason}. Or try --dry-run.", file=sys.stderr)
        return 1
    for line in missing_packages():
        print(f"bench gpu: {line}", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        if options.out is None:
            options.out = Path(folder) if options.dry_run else ROOT / "out" / "bench-gpu"
        return run_all(options)


def no_card() -> str | None:
    """Why there is nothing to measure."""
    if (reason := cuda.refusal(0)) is not None:
        return reason.rstrip(".")
    return None if torch.cuda.is_available() else f"torch {torch.__version__} finds no GPU"


def missing_packages() -> list[str]:
    """What is not installed, and which sections leave out what for it; engines are named in their rows."""
    sections = {
        EXPORT: "without a plan from before, imagenet, compiled, pool and training are not run",
        REFERENCE: "the eager loop and torch.compile are not run",
        ("triton",): "torch.compile is not run",
    }
    return [
        f"not installed: {', '.join(gone)}: {what}"
        for names, what in sections.items()
        if (gone := absent(names))
    ]


def run_all(options: argparse.Namespace) -> int:
    """Every section that was asked for, and the table of all that are there; 1 if one of them failed."""
    header = header_of(options)
    failed = []
    for section in SECTIONS:
        path = options.out / f"{section.name}.json"
        if section.name not in options.sections:
            continue
        before = results.read(path)
        if (
            options.resume
            and before
            and before["complete"]
            and results.is_same_run(before, header, dry=options.dry_run)
        ):
            print(f"{section.name}: there from before", file=sys.stderr)
            continue
        print(f"{section.name}: at most {section.budget_s:g} s", file=sys.stderr)
        path.unlink(missing_ok=True)
        if options.dry_run:
            run_section(section, options, header)
        elif (reason := run_apart(section, options)) is not None:
            end_of(section, path, header, reason)
            failed.append(section.name)
    found = [(s, results.read(options.out / f"{s.name}.json")) for s in SECTIONS]
    stored = [
        (section, content)
        for section, content in found
        if content and results.is_same_run(content, header, dry=options.dry_run)
    ]
    for section, content in stored:
        if rows := results.table_rows(content):
            print_table(f"{section.name}: {first_line_of(section)}", rows)
        if content["reason"]:
            print(f"\n{section.name} was not finished: {content['reason']}")
    print_table(
        title(header), summary_rows([r for _, c in stored for r in c["results"]], dry=options.dry_run)
    )
    if failed:
        print(f"\nbench gpu: failed: {', '.join(failed)}. Run again with --resume.", file=sys.stderr)
    return 1 if failed else 0


def header_of(options: argparse.Namespace) -> dict[str, Any]:
    """Date, commit, machine, versions and card."""
    found = context()
    if options.commit:
        found["commit"] = options.commit
    found["device"] = describe_device(options.dry_run)
    header: dict[str, Any] = json.loads(json.dumps(found))  # as it is read again
    return header


def title(header: dict[str, Any]) -> str:
    """What stands above the last table."""
    device = header["device"]
    driver = f", driver {device['driver']}" if "driver" in device else ""
    return f"{device['name']}{driver}, torch {header['versions']['torch']}, commit {header['commit']}"


def first_line_of(section: Section) -> str:
    return (section.run.__doc__ or "").partition("\n")[0].rstrip(".")


def run_section(section: Section, options: argparse.Namespace, header: dict[str, Any]) -> None:
    """Run one in this process. What cannot be measured is in its file, with the reason; other errors pass through."""
    earlier: dict[str, Any] = {}
    for name in NAMES[: NAMES.index(section.name)]:
        content = results.read(options.out / f"{name}.json")
        if content and results.is_same_run(content, header, dry=options.dry_run):
            earlier |= content["facts"]
    make = Setting.dry_run if options.dry_run else Setting.on_card
    setting = make(options.work, Budget(section.budget_s - STARTING_S), earlier)
    recorder = Recorder(section.name, options.out / f"{section.name}.json", header, dry=options.dry_run)
    try:
        section.run(setting, recorder)
    except NotRunError as reason:
        recorder.finish(section.measures, reason)
    except (CgnrtError, MemoryError) as error:
        recorder.finish(section.measures, first_line(error))
    else:
        recorder.finish(section.measures)


def run_child(options: argparse.Namespace) -> int:
    """What `run_apart` starts."""
    section = SECTIONS[NAMES.index(options.child)]
    run_section(section, options, header_of(options))
    return 0


def run_apart(section: Section, options: argparse.Namespace) -> str | None:
    """Run one in a process of its own, so that neither a crash nor a full card reaches the others.

    Returns:
      Why it was ended, or None.
    """
    command = [sys.executable, str(Path(__file__).resolve()), "--child", section.name]
    command += ["--out", str(options.out), "--work", str(options.work)]
    command += ["--dry-run"] if options.dry_run else []
    command += ["--commit", options.commit] if options.commit else []
    # Where torch.compile keeps what it made: the next try goes on from there.
    cache = {"TORCHINDUCTOR_CACHE_DIR": str(options.work / "inductor")}
    process = subprocess.Popen(command, env={**cache, **os.environ}, start_new_session=True)
    try:
        code = process.wait(timeout=section.budget_s)
    except subprocess.TimeoutExpired:
        return f"it was not done after {section.budget_s:g} s"
    finally:
        # With the compilers that it started.
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return None if code == 0 else f"its process ended with {code}; the error is above"


def end_of(section: Section, path: Path, header: dict[str, Any], reason: str) -> None:
    """Close the file of a section whose process was ended; what it measured stays."""
    content = results.read(path)
    if content is None:
        Recorder(section.name, path, header, dry=False).finish(section.measures, reason)
        return
    content |= {"complete": False, "reason": reason}
    results.close(content, section.measures, reason)
    results.write(path, content)


if __name__ == "__main__":
    sys.exit(main())
