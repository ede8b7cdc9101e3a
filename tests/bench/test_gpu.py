"""The GPU benchmark without a GPU: its dry run, what it makes of figures and time, and what it leaves behind."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import re
import signal
import subprocess
import sys
import time
import venv
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from packaging.requirements import Requirement

from cgnrt import _core

# The packages that the benchmark needs.
NEEDED = ("torch", "numpy", "pillow", "pytest", "pybind11")
# What the project asks of a GPU.
BOUNDS = {
    "compose": (0.90, 0.97),
    "patch_grid": (6, 10),
    "imagenet": (3, 5),
    "matrix_rate": (0.13, 0.2),
    "mnist": (8, 12),
    "training": (1.10, 1.03),
    "minutes": (9, 9),
}


@pytest.fixture
def runner(module: Callable[[str], ModuleType]) -> ModuleType:
    """`bench/gpu/runner.py`."""
    return module("gpu.runner")


@pytest.fixture
def options(tmp_path: Path) -> argparse.Namespace:
    return argparse.Namespace(
        out=tmp_path / "out",
        work=tmp_path / "work",
        dry_run=True,
        commit="abc",
        minutes=9,
        no_compile=False,
        compile_mode="default",
        plan=None,
        sections=["one", "two"],
    )


def part(name: str) -> Any:
    return sys.modules[f"gpu.{name}"]


def some_build(runner: ModuleType) -> Any:
    return importlib.import_module("gpu.build").Build([], "_core.so", ["90"])


@pytest.fixture
def bare_python(root: Path, tmp_path: Path) -> Path:
    """Python in an environment with `NEEDED`, what these require, and cgnrt: no engine library, no ONNX."""
    venv.create(tmp_path / "environment")
    (site,) = (tmp_path / "environment").glob("lib/python*/site-packages")
    entries = {}
    names = list(NEEDED)
    for name in names:
        package = importlib.metadata.distribution(name)
        needs = [Requirement(line) for line in package.requires or ()]
        names += [
            n.name
            for n in needs
            if (not n.marker or n.marker.evaluate({"extra": ""})) and n.name not in names
        ]
        tops = {file.parts[0] for file in package.files or ()} - {"..", "__pycache__"}
        entries |= {top: Path(str(package.locate_file(top))) for top in tops}
    for folder in ("python/cgnrt", "training/cgnrt_training", "export/cgnrt_export"):
        entries |= {f"{Path(folder).name}/{entry.name}": entry for entry in (root / folder).iterdir()}
    core = Path(_core.__file__)  # beside the sources, or where an editable install has it
    for name, entry in (entries | {f"cgnrt/{core.name}": core}).items():
        (site / name).parent.mkdir(exist_ok=True)
        (site / name).symlink_to(entry)
    return tmp_path / "environment" / "bin" / "python"


def test_a_dry_run_goes_through_every_row_and_shows_no_figure(
    runner: ModuleType, root: Path, tmp_path: Path, bare_python: Path
) -> None:
    """On a machine without git, nvidia-smi, or anything else on the path."""
    command = [str(bare_python), str(root / "bench" / "gpu" / "first.py"), "--dry-run"]
    command += ["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    environment = {**os.environ, "PATH": "", "PYTHONPATH": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    measures = part("measures").MEASURES
    for measure, line in zip(measures, done.stdout.splitlines()[-len(measures) :], strict=True):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[0] == measure.what
        assert cells[1] == cells[4] == "dry run", line
    content = json.loads((tmp_path / "out" / "first.json").read_text())
    notes = {row["what"]: row["note"] for row in content["summary"]}
    larger, smaller = part("setting").TINY.imagenet_batches
    assert larger > smaller
    for measure in measures[2:4]:
        assert f"batch {larger};" in notes[measure.what]
    assert content["dry_run"] is True
    assert content["commit"] == "unknown"
    assert list(content["sections"]) == [section.name for section in runner.SECTIONS]
    for section in content["sections"].values():
        assert section["complete"] is True, section["reason"]
        found = [value for row in section["rows"] for value in row.values()]
        assert not [value for value in (*found, section["seconds"]) if isinstance(value, int | float)]
    checked = content["sections"]["memcheck"]["rows"][0]["note"]
    assert checked == f"{len(part('checks').CHECKED)} tests collected"


def test_the_measures_are_the_project_s(runner: ModuleType) -> None:
    measures = part("measures").MEASURES
    assert {m.key: (m.must, m.aim) for m in measures} == BOUNDS
    assert {m.section for m in measures} <= {"", *(section.name for section in runner.SECTIONS)}


def test_every_file_with_a_test_for_a_gpu_is_run(runner: ModuleType, root: Path) -> None:
    found = {
        str(path.relative_to(root))
        for path in (root / "tests").rglob("test_*.py")
        if path != Path(__file__) and any(mark in path.read_text() for mark in ("mark.gpu", "device_module"))
    }
    assert found == set(part("checks").FILES)


@pytest.mark.parametrize(
    ("key", "value", "verdict"),
    [
        ("compose", 0.89, "missed"),
        ("compose", 0.90, "met"),
        ("compose", 0.98, "aim met"),
        ("training", 1.2, "missed"),
        ("training", 1.05, "met"),
        ("training", 1.01, "aim met"),
        ("imagenet", float("nan"), "missed"),
    ],
)
def test_verdicts(runner: ModuleType, key: str, value: float, verdict: str) -> None:
    measures = {m.key: m for m in part("measures").MEASURES}
    assert measures[key].verdict(value) == verdict


def test_the_table_has_figures_and_reasons(runner: ModuleType) -> None:
    rows = part("measures").summary_rows(
        {"mnist": {"value": 123.4, "note": "graph"}, "training": {"value": 1.2, "note": ""}},
        {"kernels": "no NVIDIA driver is there"},
        dry=False,
    )
    by_key = dict(zip(BOUNDS, rows, strict=True))
    assert by_key["mnist"]["measured"] == "123 x"
    assert (by_key["mnist"]["verdict"], by_key["mnist"]["note"]) == ("aim met", "graph")
    assert (by_key["training"]["must"], by_key["training"]["verdict"]) == ("at most 1.1 x", "missed")
    assert (by_key["compose"]["verdict"], by_key["compose"]["note"]) == (
        "not run",
        "no NVIDIA driver is there",
    )
    assert by_key["imagenet"]["note"] == "its section was not run"


def test_figures_are_kept_in_milliseconds(runner: ModuleType, tmp_path: Path) -> None:
    results = part("results")
    recorder = results.Recorder("compose", tmp_path / "compose.json", dry=False)
    recorder.row(
        "a row", [k / 1000 for k in range(1, 102)], count=102e6, unit="GB/s", ratio=None, psnr_db=40.0
    )
    recorder.skipped("another", "not installed")
    recorder.finish()
    content = results.read(tmp_path / "compose.json")
    row = content["rows"][0]
    assert row == {
        "what": "a row",
        "median_ms": 51.0,
        "p95_ms": 96.0,
        "rate": pytest.approx(2e9),
        "psnr_db": 40.0,
        "unit": "GB/s",
        "note": "",
    }
    shown = results.table_rows(content)
    assert shown[1]["note"] == "not run: not installed"
    assert set(shown[0]) == set(shown[1])
    assert results.read(tmp_path / "none.json") is None


def test_a_budget_says_what_is_left(runner: ModuleType) -> None:
    results = part("results")
    budget = results.Budget(100)
    budget.require(50, "a step")
    assert budget.share(0.5, at_most=10) == 10
    assert 40 < budget.share(0.5, at_most=1000) <= 50
    with pytest.raises(results.NotRunError, match=r"a step may take 200 s, 100 of the section's 100 s"):
        budget.require(200, "a step")
    assert results.Budget(-1).left() == 0


def test_what_takes_too_long_is_left(runner: ModuleType) -> None:
    results = part("results")
    with (
        pytest.raises(results.NotRunError, match=r"compiling was not done after 0\.05 s"),
        results.time_limit(0.05, "compiling"),
    ):
        time.sleep(10)
    with results.time_limit(10, "compiling"):
        pass


def test_rounds_end_with_their_time_but_not_before_three(runner: ModuleType) -> None:
    report = sys.modules["report"]
    slow = {"slow": lambda: time.sleep(0.002)}
    assert len(report.time_in_turns(slow, rounds=50, warmup=0, limit_s=0)["slow"]) == 3
    assert len(report.time_in_turns(slow, rounds=5, warmup=0)["slow"]) == 5


def test_a_section_that_takes_too_long_is_ended(
    runner: ModuleType, options: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--dry-run", "--out", str(options.out), "--work", str(options.work)]
    monkeypatch.setattr(sys, "argv", ["first.py", *arguments])
    chosen = [s for s in runner.SECTIONS if s.name in ("memcheck", "mnist")]
    chosen = [runner.Section(s.name, s.run, 1.2, s.early) for s in chosen]
    options.sections = [section.name for section in chosen]
    report = runner.Report(options, some_build(runner), time.monotonic())
    running = runner.Running(options)
    try:
        runner.run_apart(options, chosen, running, report, time.monotonic() + 2.4)
    finally:
        running.stop()
    assert report.sections["memcheck"]["reason"] == "it was not done after 1 s"
    assert re.match(r"it was not done after|no time is left", report.sections["mnist"]["reason"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_benchmark_that_is_killed_leaves_no_process(
    runner: ModuleType, root: Path, options: argparse.Namespace, number: int
) -> None:
    """A section's process waits for its turn; it and its own children must go with the one that started it."""
    script = f"""
import argparse, sys, time
sys.path.insert(0, {str(root / "bench")!r})
from pathlib import Path
from gpu import build, runner
sys.argv = ["first.py", "--dry-run", "--out", {str(options.out)!r}, "--work", {str(options.work)!r}]
running = runner.Running(argparse.Namespace(work=Path({str(options.work)!r})))
with build.ended_by_signals():
    try:
        print(running.start(runner.SECTIONS[0]).pid, flush=True)
        time.sleep(600)
    finally:
        running.stop()
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    waiting = options.work / "sections" / "tests.json"
    end = time.monotonic() + 300
    try:
        while not waiting.exists() and time.monotonic() < end:
            time.sleep(0.05)
        assert waiting.exists()
        process.send_signal(number)
        process.wait(300)
        while is_running(child) and time.monotonic() < end:
            time.sleep(0.05)
        assert not is_running(child)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def is_running(pid: int) -> bool:
    """Whether a process is there that has not ended; one that nobody asked for its end counts as ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_wrong_images_are_not_timed(
    runner: ModuleType, options: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels = part("kernels")
    monkeypatch.setattr(kernels.Composition, "differs", lambda self: True)
    monkeypatch.setattr(kernels.Grids, "differs", lambda self: True)
    (section,) = (section for section in runner.SECTIONS if section.name == "kernels")
    runner.run_section(section, options, waits=False)
    content = json.loads(runner.section_path(options, "kernels").read_text())
    assert content["results"] == {}
    rows = [row for row in content["rows"] if row["what"].startswith(("compose", "patch_grid"))]
    assert {row["note"] for row in rows} == {"not run: its images differ from those of the CPU's op"}


def test_images_far_from_float32_are_not_timed(
    runner: ModuleType, options: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part("networks").Truth, "decibels", lambda self, networks: 34.0)
    (section,) = (section for section in runner.SECTIONS if section.name == "mnist")
    runner.run_section(section, options, waits=False)
    content = json.loads(runner.section_path(options, "mnist").read_text())
    assert content["results"] == {}
    assert content["reason"] == "none of its graphs can be run; its rows say why"
    notes = [row["note"] for row in content["rows"]]
    assert notes.count("not run: its images are less than 35 dB from float32") == 2


@pytest.mark.parametrize("has_fp32", [True, False])
def test_engines_are_compared_with_their_own_float32_only(
    runner: ModuleType, options: argparse.Namespace, monkeypatch: pytest.MonkeyPatch, has_fp32: bool
) -> None:
    """Not with whichever precision runs first. Every processor has float32: it stands for the other precisions, too."""
    engines = part("engines")
    run = engines.run

    def run_fp32(setting: Any, n: int, *, precision: str, **options: Any) -> Any:
        if precision == "fp32" and not has_fp32:
            raise part("results").NotRunError("it has no fp32")
        return run(setting, n, precision="fp32", **options)

    monkeypatch.setattr(engines, "run", run_fp32)
    monkeypatch.setattr(engines, "backends_for", lambda kind: [])  # torch only
    (section,) = (section for section in runner.SECTIONS if section.name == "engines")
    runner.run_section(section, options, waits=False)
    rows = json.loads(runner.section_path(options, "engines").read_text())["rows"]
    names = [f"torch {precision}" for precision in ("fp32", "fp16", "bf16")]
    names += [f"torch, CUDA graph, {precision}" for precision in ("fp16", "bf16")]
    assert [row["what"] for row in rows] == [f"Generator, {name}, batch 4" for name in names]
    assert ["psnr_db" in row for row in rows] == [has_fp32] * 5
    assert rows[0]["note"] == ("" if has_fp32 else "not run: it has no fp32")


def test_without_a_gpu_it_says_so(
    runner: ModuleType, options: argparse.Namespace, capsys: pytest.CaptureFixture[str]
) -> None:
    options.dry_run = False
    assert runner.run_all(options, some_build(runner), 0.0) == 1
    found = capsys.readouterr()
    assert re.search(
        r"bench gpu: torch \S+ finds no GPU\. Run on a machine with one, or with --dry-run", found.err
    )
    assert found.out == ""


def test_a_cgnrt_that_cannot_be_imported_is_none(runner: ModuleType, tmp_path: Path) -> None:
    probe = importlib.import_module("gpu.build")._probe
    (tmp_path / "cgnrt").mkdir()
    (tmp_path / "cgnrt" / "__init__.py").write_text("raise ImportError('no _core')\n")
    # An editable install would be found before what is on the path.
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nsys.meta_path[:] = [f for f in sys.meta_path if 'Redirecting' not in type(f).__name__]\n"
    )
    assert probe([str(tmp_path)]) is None


def test_events_give_seconds(runner: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of what is asked of torch, which has no device here."""
    setting = part("setting")
    asked: list[str] = []

    class Event:
        def __init__(self, *, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            asked.append("record")

        def synchronize(self) -> None:
            asked.append("wait")

        def elapsed_time(self, end: Event) -> float:
            return 250.0

    monkeypatch.setattr(setting.torch.cuda, "Event", Event)
    monkeypatch.setattr(setting.torch.cuda, "synchronize", lambda: asked.append("idle"))
    assert setting.event_seconds(lambda: asked.append("call")) == 0.25
    assert asked == ["idle", "record", "call", "record", "wait"]


def test_psnr(runner: ModuleType) -> None:
    import torch

    psnr = part("networks").psnr
    zeros = torch.zeros(2, 3, 4, 4)
    assert psnr(zeros + 0.02, zeros) == pytest.approx(40, abs=0.01)  # of pictures from -1 to 1
    assert psnr(zeros, zeros) == 200
    assert psnr(zeros / 0, zeros) == 0


def test_the_classifier_is_a_resnet50(runner: ModuleType) -> None:
    model = part("training").resnet50(1000)
    assert sum(parameter.numel() for parameter in model.parameters()) == 25_557_032
