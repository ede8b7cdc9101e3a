"""The sections of the GPU benchmark, each in a process of its own, and the table of what they found.

Some sections prepare their networks (weights, forms, compilation) while the tests run, and wait for their turn.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from gpu import results
from gpu.build import Build, end_group
from gpu.checks import measure_memcheck, measure_racecheck, measure_tests
from gpu.engines import measure_engines
from gpu.imagenet import measure_imagenet, measure_needed, measure_rewritten
from gpu.kernels import measure_kernels
from gpu.measures import MEASURES, summary_rows
from gpu.mnist import measure_mnist
from gpu.results import Budget, NotRunError, Recorder, first_line
from gpu.setting import TINY, Setting, Sizes, describe_device
from report import ROOT, context, print_table

from cgnrt.errors import CgnrtError

RESULT = "first.json"
TICK_S = 0.5
DRY_LIMIT_S = 3600  # of a section, on whatever machine
READY_S = 100  # that a section may prepare once the tests are done


@dataclass(frozen=True)
class Section:
    """A part that is run by itself.

    Attributes:
      limit_s: what it may take from its turn on; its process is ended then.
      early: it prepares while those before it run, and says by the fact "ready" when it is done with that.
      batch: which of the sizes for ImageNet it takes.
    """

    name: str
    run: Callable[[Setting, Recorder], None]
    limit_s: float
    early: bool = False
    batch: int = 0


SECTIONS = (
    Section("tests", measure_tests, 75),
    Section("memcheck", measure_memcheck, 25),
    Section("racecheck", measure_racecheck, 25),
    Section("imagenet", measure_imagenet, 110, early=True),
    Section("kernels", measure_kernels, 60),
    Section("mnist", measure_mnist, 40, early=True),
    Section("needed", measure_needed, 60, early=True),
    Section("imagenet-32", measure_rewritten, 50, early=True, batch=1),
    Section("needed-32", measure_needed, 50, early=True, batch=1),
    Section("engines", measure_engines, 30),
)


class Running:
    """Sections' processes, which end with this one whatever ends it."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, section: Section) -> subprocess.Popen[bytes]:
        """The process of a section, which is begun if it was not yet; it waits for its turn."""
        if section.name not in self._processes:
            command = [sys.executable, str(ROOT / "bench" / "gpu" / "first.py"), *sys.argv[1:]]
            command += ["--child", section.name]
            environment = dict(os.environ)
            if section.early:  # several at once, beside the tests
                share = str(max(1, (os.cpu_count() or 1) // 4))
                environment |= {"OMP_NUM_THREADS": share, "TORCHINDUCTOR_COMPILE_THREADS": share}
                # Where torch.compile keeps what it made: the next try goes on from there.
                environment["TORCHINDUCTOR_CACHE_DIR"] = str(self._options.work.resolve() / "inductor")
            # A group of its own, with the compilers and tests that it starts; not a session, which would outlive
            # whoever ends this one's.
            self._processes[section.name] = subprocess.Popen(
                command, env=environment, stdin=subprocess.PIPE, process_group=0
            )
        return self._processes[section.name]

    def stop(self) -> None:
        """End what still runs."""
        for process in self._processes.values():
            give_turn(process)
            end_group(process)


class Report:
    """The one file of the whole run, written anew whenever a section has a new row."""

    def __init__(self, options: argparse.Namespace, build: Build, begin: float) -> None:
        self._options, self._begin = options, begin
        self._stamp: object = None
        device = describe_device(dry=options.dry_run)
        self.header = {**context(options.commit), "device": device, "build": asdict(build)}
        if options.dry_run:
            self.header["build"]["seconds"] = None
        self.sections: dict[str, dict[str, Any]] = {}

    def refresh(self) -> None:
        """Take over what the sections' files have."""
        paths = [section_path(self._options, name) for name in self._options.sections]
        stamp = [path.stat().st_mtime_ns for path in paths if path.exists()]
        if stamp == self._stamp:
            return
        self._stamp = stamp
        found = ((path.stem, results.read(path)) for path in paths)
        self.sections |= {name: content for name, content in found if content is not None}
        self.write()

    def close(self, name: str, reason: str) -> None:
        """Say why a section was ended; what it measured stays."""
        path = section_path(self._options, name)
        if not path.exists():
            Recorder(name, path, dry=self._options.dry_run).finish(reason)
        content = results.read(path) or {}
        if content.get("reason") is None:
            results.write(path, content | {"complete": False, "reason": reason})
        self.refresh()

    def write(self) -> None:
        content = {"benchmark": "gpu-first", "dry_run": self._options.dry_run, **self.header}
        content |= {"minutes": self.minutes(), "summary": self.summary(), "sections": self.sections}
        results.write(self._options.out / RESULT, content)

    def minutes(self) -> float | str:
        """Since the start."""
        return results.DRY if self._options.dry_run else round((time.monotonic() - self._begin) / 60, 2)

    def summary(self) -> list[dict[str, str]]:
        # By section: the same measure at another batch size is in the results of another one.
        found = {
            measure.key: content["results"][measure.key]
            for measure in MEASURES
            if (content := self.sections.get(measure.section)) and measure.key in content["results"]
        }
        if {content["section"] for content in self.sections.values() if content["complete"]} == {
            section.name for section in SECTIONS
        }:
            found["minutes"] = {"value": self.minutes(), "note": "every section was finished"}
        reasons = {name: content["reason"] or "" for name, content in self.sections.items()}
        return summary_rows(found, reasons, dry=self._options.dry_run)

    def show(self) -> None:
        """Print everything, the summary last."""
        for section in SECTIONS:
            content = self.sections.get(section.name)
            if content is None:
                continue
            title = (section.run.__doc__ or "").partition("\n")[0].rstrip(".")
            if rows := results.table_rows(content):
                print_table(f"{section.name}: {title}", rows)
            if content["reason"]:
                print(f"\n{section.name} was not finished: {content['reason']}")
        device, versions = self.header["device"], self.header["versions"]
        driver = f", driver {device['driver']}" if "driver" in device else ""
        title = f"{device['name']}{driver}, torch {versions['torch']}, commit {self.header['commit']}"
        print_table(f"{title}, {self.minutes()} minutes", self.summary())


def run_all(options: argparse.Namespace, build: Build, begin: float) -> int:
    """Every section that was asked for, and the tables; 1 if one of them was not finished."""
    if not options.dry_run and not torch.cuda.is_available():
        print(
            f"bench gpu: torch {torch.__version__} finds no GPU. Run on a machine with one, or with --dry-run.",
            file=sys.stderr,
        )
        return 1
    report = Report(options, build, begin)
    chosen = [section for section in SECTIONS if section.name in options.sections]
    for section in chosen:
        section_path(options, section.name).unlink(missing_ok=True)
    running = Running(options)
    try:
        if options.dry_run:
            torch.set_num_threads(1)  # a few pixels: more would wait for each other
            for section in chosen:
                run_section(section, options, waits=False)
        else:
            run_apart(options, chosen, running, report, begin + 60 * options.minutes)
    finally:
        running.stop()
        report.refresh()
        report.write()
        report.show()
    failed = [section.name for section in chosen if not report.sections[section.name]["complete"]]
    if failed:
        print(f"\nbench gpu: not finished: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def run_apart(
    options: argparse.Namespace, chosen: list[Section], running: Running, report: Report, deadline: float
) -> None:
    """Each section in a process of its own, so that neither a crash nor a full card reaches the others."""
    early = [section for section in chosen if section.early]
    for section in early:
        running.start(section)
    for section in chosen:
        if section is next(iter(early), None):
            wait_until_ready(running, early, report, min(deadline, time.monotonic() + READY_S))
        limit_s = min(section.limit_s, deadline - time.monotonic())
        if limit_s < 1:
            report.close(section.name, f"no time is left of {options.minutes:g} minutes")
            continue
        print(f"{section.name}: at most {limit_s:.0f} s", file=sys.stderr)
        process = running.start(section)
        give_turn(process)
        end = time.monotonic() + limit_s
        while process.poll() is None and time.monotonic() < end:
            time.sleep(TICK_S)
            report.refresh()
        ran_out = process.poll() is None
        end_group(process)
        if ran_out:
            report.close(section.name, f"it was not done after {limit_s:.0f} s")
        elif process.returncode:
            report.close(section.name, f"its process ended with {process.returncode}; the error is above")
        report.refresh()


def give_turn(process: subprocess.Popen[bytes]) -> None:
    """A section that waits for its turn reads the end of its input."""
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()


def wait_until_ready(running: Running, early: list[Section], report: Report, end: float) -> None:
    """Nothing is timed while others prepare: until they are ready, or gone, or the time is over."""
    for section in early:
        process = running.start(section)
        while process.poll() is None and time.monotonic() < end:
            report.refresh()
            if report.sections.get(section.name, {}).get("facts", {}).get("ready"):
                break
            time.sleep(TICK_S)


def section_path(options: argparse.Namespace, name: str) -> Path:
    path: Path = options.work / "sections" / f"{name}.json"
    return path


def run_section(section: Section, options: argparse.Namespace, *, waits: bool) -> None:
    """Run one in this process. What cannot be measured is in its file, with the reason; other errors pass through."""
    dry = options.dry_run
    sizes = TINY if dry else Sizes()
    setting = Setting(
        dry=dry,
        device=torch.device("cpu") if dry else torch.device("cuda", 0),
        out=options.out,
        sizes=sizes,
        batch=sizes.imagenet_batches[section.batch],
        min_psnr=35.0,
        compile_mode=None if options.no_compile else options.compile_mode,
        plan=options.plan or ROOT / "plans" / "double-colored.plan",
        budget=Budget(DRY_LIMIT_S if dry else section.limit_s),
        waits=waits,
    )
    recorder = Recorder(section.name, section_path(options, section.name), dry=dry)
    try:
        section.run(setting, recorder)
    except (NotRunError, CgnrtError, MemoryError, torch.OutOfMemoryError) as error:
        recorder.finish(first_line(error))
    else:
        recorder.finish()


def run_child(options: argparse.Namespace) -> int:
    """What `Running.start` starts: a section, which ends when its parent does."""
    threading.Thread(target=_follow, args=(os.getppid(),), daemon=True).start()
    (section,) = (section for section in SECTIONS if section.name == options.child)
    run_section(section, options, waits=True)
    return 0


def _follow(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(TICK_S)
    os.killpg(0, signal.SIGKILL)
