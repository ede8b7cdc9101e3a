"""The GPU benchmark without a GPU: its dry run, and what it makes of figures, old results and its time."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

# Of the bounds that the project set itself; "at most" is for what is better smaller.
BOUNDS = {
    "compose": (0.85, 0.95),
    "patch_grid": (10, 30),
    "imagenet": (8, 20),
    "compiled": (1.3, 2),
    "matrix_rate": (0.25, 0.5),
    "pool": (25, "bandwidth-bound"),
    "mnist": (20, 100),
    "training": (1.10, 1.03),
}
HEADER = {"commit": "abc", "versions": {"torch": "1"}, "device": {"name": "some card"}}


@pytest.fixture
def bench(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """`bench/gpu.py`; its modules leave no trace, for their names are short."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(root / "bench")
    yield importlib.import_module("gpu")
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(root / "bench")):
            del sys.modules[name]


@pytest.fixture
def options(tmp_path: Path) -> argparse.Namespace:
    return argparse.Namespace(
        out=tmp_path / "out",
        work=tmp_path / "work",
        dry_run=True,
        resume=False,
        commit=None,
        sections=("one", "two"),
    )


def module(bench: ModuleType, name: str) -> Any:
    return sys.modules[name]


def test_a_dry_run_goes_through_every_row_and_shows_no_figure(
    bench: ModuleType, root: Path, tmp_path: Path
) -> None:
    command = [sys.executable, str(root / "bench" / "gpu.py"), "--dry-run", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    measures = module(bench, "gpu_measures").MEASURES
    table = done.stdout.splitlines()[-len(measures) :]
    for measure, line in zip(measures, table, strict=True):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[0] == measure.what
        assert cells[1] == cells[4] == "dry run", line
    files = {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}
    assert set(files) == set(bench.NAMES)
    for content in files.values():
        assert content["dry_run"] is True
        assert content["complete"] is True, content["reason"]
        found = [value for row in (*content["rows"], *content["results"]) for value in row.values()]
        assert not [value for value in found if isinstance(value, int | float)]


def test_the_measures_are_the_project_s(bench: ModuleType) -> None:
    measures = module(bench, "gpu_measures").MEASURES
    assert {m.key: (m.at_least, m.aim) for m in measures} == BOUNDS
    assert {key for section in bench.SECTIONS for key in section.measures} == set(BOUNDS)


@pytest.mark.parametrize(
    ("key", "value", "aim_met", "verdict"),
    [
        ("compose", 0.84, None, "missed"),
        ("compose", 0.85, None, "met"),
        ("compose", 0.96, None, "aim met"),
        ("training", 1.2, None, "missed"),
        ("training", 1.05, None, "met"),
        ("training", 1.01, None, "aim met"),
        ("pool", 24.0, True, "missed"),
        ("pool", 26.0, False, "met"),
        ("pool", 26.0, True, "aim met"),
        ("imagenet", float("nan"), None, "missed"),
    ],
)
def test_verdicts(bench: ModuleType, key: str, value: float, aim_met: bool | None, verdict: str) -> None:
    measures = {m.key: m for m in module(bench, "gpu_measures").MEASURES}
    assert measures[key].verdict(value, aim_met) == verdict


def test_the_table_has_figures_and_reasons(bench: ModuleType) -> None:
    rows = module(bench, "gpu_measures").summary_rows(
        [
            {"measure": "mnist", "value": 123.4, "aim_met": None, "note": "tensorrt fp16"},
            {"measure": "training", "value": 1.2, "aim_met": None, "note": ""},
            {"measure": "compiled", "not_run": "triton not installed"},
        ],
        dry=False,
    )
    by_key = dict(zip(BOUNDS, rows, strict=True))
    assert by_key["mnist"]["measured"] == "123 x"
    assert by_key["mnist"]["verdict"] == "aim met"
    assert by_key["mnist"]["by"] == "tensorrt fp16"
    assert by_key["training"]["at least"] == "at most 1.1 x"
    assert by_key["training"]["verdict"] == "missed"
    assert by_key["compiled"]["verdict"] == "not run: triton not installed"
    assert by_key["pool"]["verdict"] == "not run: its section was not run"
    assert by_key["pool"]["measured"] == ""


def sections(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, calls: list[str], fail: bool = False
) -> None:
    """Two sections of a row each in the place of the real ones; the second may run out of time."""

    def one(setting: Any, recorder: Any) -> None:
        """The first."""
        calls.append("one")
        recorder.row("a row", [1.0])
        recorder.result("compose", 1.0, "a note")
        recorder.fact("chosen", "something")

    def two(setting: Any, recorder: Any) -> None:
        """The second."""
        calls.append("two")
        recorder.row("another row", [1.0])
        if fail:
            setting.budget.require(1000, "the rest")
        recorder.result("mnist", 1.0, "a note")

    made = (bench.Section("one", one, 60, ("compose",)), bench.Section("two", two, 60, ("mnist", "pool")))
    monkeypatch.setattr(bench, "SECTIONS", made)
    monkeypatch.setattr(bench, "NAMES", ("one", "two"))


def test_resume_takes_what_is_complete_and_of_the_same_code(
    bench: ModuleType, options: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    sections(bench, monkeypatch, calls, fail=True)
    assert bench.run_all(options) == 0
    content = json.loads((options.out / "two.json").read_text())
    assert content["complete"] is False
    assert "the rest may take 1000 s" in content["reason"]
    assert [row["what"] for row in content["rows"]] == ["another row"]
    assert {result["measure"]: result["not_run"] for result in content["results"]} == {
        "mnist": content["reason"],
        "pool": content["reason"],
    }

    options.resume = True
    sections(bench, monkeypatch, calls)
    bench.run_all(options)
    assert calls == ["one", "two", "two"], "the one that was not finished is run again, the other is not"
    bench.run_all(options)
    assert len(calls) == 3
    options.commit = "another"
    bench.run_all(options)
    assert calls[3:] == ["one", "two"]
    options.resume = False
    bench.run_all(options)
    assert len(calls) == 7


def test_results_of_another_card_or_code_are_not_taken(bench: ModuleType) -> None:
    is_same_run = module(bench, "gpu_results").is_same_run
    stored = {**HEADER, "dry_run": False}
    assert is_same_run(stored, HEADER, dry=False)
    assert not is_same_run(stored, HEADER, dry=True)
    for name, other in (("commit", "def"), ("versions", {"torch": "2"}), ("device", {"name": "another"})):
        assert not is_same_run({**stored, name: other}, HEADER, dry=False)


def test_a_file_that_is_no_result_is_none(bench: ModuleType, tmp_path: Path) -> None:
    read = module(bench, "gpu_results").read
    path = tmp_path / "compose.json"
    assert read(path) is None
    for text in ("{", "[]", "{}"):
        path.write_text(text)
        assert read(path) is None


def test_figures_are_kept_in_milliseconds_with_percentiles(bench: ModuleType, tmp_path: Path) -> None:
    results = module(bench, "gpu_results")
    recorder = results.Recorder("compose", tmp_path / "compose.json", HEADER, dry=False)
    recorder.row("a row", [k / 1000 for k in range(1, 102)], rate=5.0, unit="GB/s", figures={"psnr_db": 40.0})
    recorder.skipped("another", "not installed")
    recorder.finish(("compose",))
    content = results.read(tmp_path / "compose.json")
    row = content["rows"][0]
    assert (row["median_ms"], row["p5_ms"], row["p95_ms"], row["psnr_db"]) == (51.0, 6.0, 96.0, 40.0)
    assert content["complete"] is True
    assert content["results"] == [{"measure": "compose", "not_run": "the section gave no figure"}]
    shown = results.table_rows(content)
    assert shown[1]["note"] == "not run: not installed"
    assert set(shown[0]) == set(shown[1])
    assert "ratio" not in shown[0]


def test_every_section_has_less_than_ten_minutes(bench: ModuleType) -> None:
    assert all(0 < section.budget_s < 600 for section in bench.SECTIONS)


def test_a_budget_says_what_is_left(bench: ModuleType) -> None:
    results = module(bench, "gpu_results")
    budget = results.Budget(100)
    budget.require(50, "a step")
    assert budget.share(0.5, at_most=10) == 10
    assert 40 < budget.share(0.5, at_most=1000) <= 50
    with pytest.raises(results.OutOfTimeError, match=r"a step may take 200 s, 100 of the section's 100 s"):
        budget.require(200, "a step")
    assert results.Budget(-1).left() == 0


def test_rounds_end_with_their_time_but_not_before_three(bench: ModuleType) -> None:
    report = module(bench, "report")
    slow = {"slow": lambda: time.sleep(0.002)}
    assert len(report.time_in_turns(slow, rounds=50, warmup=0, limit_s=0)["slow"]) == 3
    assert len(report.time_in_turns(slow, rounds=5, warmup=0)["slow"]) == 5


def test_a_section_in_a_process_of_its_own(bench: ModuleType, options: argparse.Namespace) -> None:
    device = bench.SECTIONS[0]
    assert bench.run_apart(device, options) is None
    content = json.loads((options.out / "device.json").read_text())
    assert content["complete"] is True


def test_a_process_that_takes_too_long_is_ended(bench: ModuleType, options: argparse.Namespace) -> None:
    hasty = dataclasses.replace(bench.SECTIONS[1], budget_s=0.1)
    reason = bench.run_apart(hasty, options)
    assert reason == "it was not done after 0.1 s"
    path = options.out / "compose.json"
    bench.end_of(hasty, path, HEADER, reason)
    content = json.loads(path.read_text())
    assert content["results"] == [{"measure": "compose", "not_run": reason}]
    assert content["complete"] is False


def test_what_was_measured_before_an_end_stays(bench: ModuleType, tmp_path: Path) -> None:
    results = module(bench, "gpu_results")
    path = tmp_path / "imagenet.json"
    section = bench.SECTIONS[bench.NAMES.index("imagenet")]
    recorder = results.Recorder("imagenet", path, HEADER, dry=False)
    recorder.row("a row", [1.0])
    recorder.result("imagenet", 9.0, "a note")
    bench.end_of(section, path, HEADER, "its process ended with -9")
    content = results.read(path)
    assert [row["what"] for row in content["rows"]] == ["a row"]
    assert [result.get("not_run") for result in content["results"]] == [None, "its process ended with -9"]


def test_wrong_images_are_not_timed(
    bench: ModuleType, options: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    ops = module(bench, "gpu_ops")
    monkeypatch.setattr(ops.Composition, "differs", lambda self: True)
    monkeypatch.setattr(ops.Grids, "differs", lambda self: True)
    for name in ("compose", "patch_grid"):
        bench.run_section(bench.SECTIONS[bench.NAMES.index(name)], options, HEADER)
        content = json.loads((options.out / f"{name}.json").read_text())
        assert content["results"] == [
            {"measure": name, "not_run": "its images differ from those of the CPU's op"}
        ]
        assert all("not_run" in row for row in content["rows"])


@pytest.mark.parametrize(
    ("precision", "reason"), [("fp32", "its images are less than 300 dB"), ("bf16", "no bf16")]
)
def test_an_engine_that_does_not_count_is_named(
    bench: ModuleType, options: argparse.Namespace, precision: str, reason: str
) -> None:
    setting = module(bench, "gpu_setting").Setting
    results = module(bench, "gpu_results")
    strict = dataclasses.replace(
        setting.dry_run(options.work, results.Budget(500), {}),
        engines=("native",),
        low=(precision,),
        min_psnr=300.0,
    )
    recorder = results.Recorder("mnist", options.out / "mnist.json", HEADER, dry=True)
    contenders = module(bench, "gpu_contenders")
    plan = module(bench, "gpu_mnist").PLAN
    with pytest.raises(results.NotRunError, match=rf"no engine counts: native {precision}: .*{reason}"):
        contenders.best_of_ours(
            strict,
            recorder,
            plan,
            (1,),
            lambda contender: 40.0,
            precisions=(precision,),
            counting=(precision,),
        )


def test_without_a_gpu_it_says_so(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench.cuda, "refusal", lambda index: "no NVIDIA driver is there. Install one")
    assert bench.main([]) == 1
    found = capsys.readouterr()
    assert found.err == (
        "bench gpu: device is none, expected cuda:0: no NVIDIA driver is there. Install one. Or try --dry-run.\n"
    )
    assert found.out == ""


def test_missing_packages_are_named_with_what_they_cost(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "absent", lambda names: [name for name in names if name in ("onnx", "scipy")])
    assert bench.missing_packages() == [
        "not installed: onnx: without a plan from before, imagenet, compiled, pool and training are not run",
        "not installed: scipy: the eager loop and torch.compile are not run",
    ]


def test_events_give_seconds(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of what is asked of torch, which has no device here."""
    setting = module(bench, "gpu_setting")
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


def test_a_machine_without_nvidia_smi_has_unknown_clocks(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    assert "unknown" in module(bench, "gpu_setting").clocks(False)


def test_psnr(bench: ModuleType) -> None:
    import torch

    psnr = module(bench, "gpu_model").psnr
    zeros = torch.zeros(2, 3, 4, 4)
    assert psnr(zeros + 0.02, zeros) == pytest.approx(40, abs=0.01)  # of pictures from -1 to 1
    assert psnr(zeros, zeros) == 200
    assert psnr(zeros / 0, zeros) == 0


def test_the_classifier_is_a_resnet50(bench: ModuleType) -> None:
    model = module(bench, "gpu_training").resnet50(1000)
    assert sum(parameter.numel() for parameter in model.parameters()) == 25_557_032
