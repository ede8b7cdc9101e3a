"""Table 2 and Table 5: what is run, what is gone on with, and what is made of it."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cgnrt.errors import CgnrtError
from cgnrt_training.classifier import train as loop
from cgnrt_training.cli import FAILED, OK, USAGE, main
from cgnrt_training.experiments import cells, table2, table5
from cgnrt_training.experiments.workers import run_cells


@pytest.fixture(autouse=True)
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "N_HELD_OUT", 16)


@pytest.fixture
def plans(demo_plan: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "plans"
    folder.mkdir()
    for variant in ("colored", "double-colored"):
        (folder / f"{variant}.plan").symlink_to(demo_plan)
    return folder


def square(name: str, value: Any, folder: Path) -> dict[str, Any]:
    if value == "fail":
        raise ValueError("it broke")
    if value == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    return {"square": value * value, "pid": os.getpid()}


def test_cells_are_done_once(tmp_path: Path) -> None:
    log = io.StringIO()
    first = run_cells(square, {"a": 2, "b": 3}, tmp_path, jobs=0, log=log)
    assert [first[name]["square"] for name in ("a", "b")] == [4, 9]
    (tmp_path / "a.json").write_text('{"square": "kept"}')
    again = run_cells(square, {"a": 2, "b": 3, "c": 4}, tmp_path, jobs=0, log=log)
    assert [again[name]["square"] for name in ("a", "b", "c")] == ["kept", 9, 16]
    assert "2 of 3 cells are done" in log.getvalue()
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(CgnrtError, match=r"b\.json': content is damaged"):
        run_cells(square, {"b": 3}, tmp_path, jobs=0, log=log)


@pytest.mark.parametrize("jobs", [0, 2])
def test_a_cell_that_fails_does_not_keep_the_others_from_being_done(jobs: int, tmp_path: Path) -> None:
    content = {"a": "fail", "b": 3, "c": 4}
    if jobs:
        content["d"] = "die"
    with pytest.raises(CgnrtError, match=rf"{1 + bool(jobs)} of {len(content)} cells failed.* Run the same"):
        run_cells(square, content, tmp_path, jobs=jobs, log=io.StringIO())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.json", "c.json"]
    if jobs:
        assert json.loads((tmp_path / "b.json").read_text())["pid"] != os.getpid()
        assert not multiprocessing.active_children()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_the_command(how: signal.Signals, tmp_path: Path) -> None:
    """Ctrl-C, and a parent that could do nothing any more."""
    # A module of its own: the workers import it by its name.
    (tmp_path / "naps.py").write_text(
        "import os, time\n"
        "def nap(name, value, folder):\n"
        "    (folder / f'{name}.pid').write_text(str(os.getpid()))\n"
        "    time.sleep(600)\n"
    )
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from naps import nap\n"
        "from cgnrt_training.experiments.workers import run_cells\n"
        "if __name__ == '__main__':\n"
        f"    run_cells(nap, {{'a': 0, 'b': 0}}, Path({str(tmp_path)!r}), jobs=2, log=sys.stderr)\n"
    )
    script = tmp_path / "script.py"
    script.write_text(program)
    parent = subprocess.Popen([sys.executable, str(script)], stderr=subprocess.PIPE, start_new_session=True)
    try:
        _stop_when_both_work(parent, how, tmp_path)
    finally:
        parent.kill()
        parent.communicate()


def _stop_when_both_work(parent: subprocess.Popen[bytes], how: signal.Signals, folder: Path) -> None:
    files = [folder / "a.pid", folder / "b.pid"]
    deadline = time.monotonic() + 240
    while not all(file.exists() and file.read_text() for file in files) and time.monotonic() < deadline:
        time.sleep(0.05)
    pids = [int(file.read_text()) for file in files]
    parent.send_signal(how)
    parent.wait(timeout=240)
    deadline = time.monotonic() + 30
    while any(map(_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(_alive, pids))


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_folder_of_other_settings_is_refused(tmp_path: Path) -> None:
    cells.open_folder(tmp_path, {"steps": 5, "plan.colored": "x"})
    cells.open_folder(tmp_path, {"steps": 5, "plan.wildlife": "y"})
    assert json.loads((tmp_path / "settings.json").read_text()) == {
        "steps": 5,
        "plan.colored": "x",
        "plan.wildlife": "y",
    }
    with pytest.raises(ValueError, match=r"steps \(5 -> 6\), plan\.colored \(x -> z\)"):
        cells.open_folder(tmp_path, {"steps": 6, "plan.colored": "z"})


def test_command_is_shown_without_paths() -> None:
    found = cells.shown(["table2", "--data", "/home/me/x", "--plans=/y", "--rows", "a b", "--output", "out"])
    assert found == "cgnrt-train table2 --data MNIST --plans PLANS --rows 'a b' --output OUTPUT"
    found = cells.shown(["evaluate", "p.plan", "--predictors", "/a", "/b", "--output=/o", "--seed", "1"])
    assert found == "cgnrt-train evaluate p.plan --predictors PREDICTOR PREDICTOR --output OUTPUT --seed 1"


def test_mean_and_sample_deviation() -> None:
    assert cells.mean_std([0.5, 0.7]) == [0.6, round(0.02**0.5, 6)]
    assert cells.mean_std([0.5]) == [0.5, 0.0]


def test_table2(mnist: Path, plans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "t2"
    command = [*("table2", "--variant", "double-colored", "--data", str(mnist), "--plans", str(plans))]
    command += [*("--rows", "original,original+cgn", "--seeds", "2", "--jobs", "0", "--steps", "2")]
    command += [*("--set", "batch_size=8", "--audit", "4", "--output", str(output))]
    assert main(command) == OK
    printed = capsys.readouterr()
    assert printed.out.strip() == str(output / "table2.json")
    record = json.loads((output / "table2.json").read_text())
    assert record["experiment"] == "table2"
    assert record["seeds"] == [0, 1]
    assert record["settings"]["steps"] == 2
    assert set(record) >= {"command", "wall_s", "machine", "versions", "commit"}
    for row in ("original", "original+cgn"):
        found = record["results"]["double-colored"][row]
        done = [
            json.loads((output / f"cells/double-colored.{row}.{seed}.json").read_text()) for seed in (0, 1)
        ]
        assert found["test"] == cells.mean_std([cell["test"] for cell in done])
        assert found["train"] == cells.mean_std([cell["train"] for cell in done])
        assert found["audit"] == done[0]["audit"]
        assert "audit" not in done[1]
        assert [cell["settings"]["seed"] for cell in done] == [0, 1]
    assert "| Original + CGN " in (output / "table2.md").read_text()
    # Once more: nothing is done again. Another variant joins the folder.
    before = {path: path.stat().st_mtime_ns for path in (output / "cells").iterdir()}
    assert main(command) == OK
    assert {path: path.stat().st_mtime_ns for path in (output / "cells").iterdir()} == before
    assert main([*command, "--variant", "colored", "--rows", "original"]) == OK
    assert main([*command, "--steps", "3"]) == FAILED
    assert "steps (2 -> 3)" in capsys.readouterr().err


def test_table2_checks_files_before_it_starts(
    mnist: Path, plans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = ["table2", "--data", str(mnist), "--jobs", "0", "--output", str(tmp_path / "t2")]
    colored = [*shared, "--variant", "colored"]
    for command, message, code in (
        ([*colored, "--rows", "original+cgn"], "Give it, or leave the row out of --rows", FAILED),
        ([*colored, "--rows", "original+gan", "--gans", str(tmp_path)], "colored.pt is missing", FAILED),
        ([*shared, "--variant", "wildlife", "--rows", "original"], "Give it, or another --variant", FAILED),
        ([*colored, "--rows", "orignal"], "Did you mean original", USAGE),
        ([*colored, "--seeds", "0"], "--seeds is 0, expected >= 1", USAGE),
        ([*colored, "--set", "seed=3"], "expected a setting that all cells share", USAGE),
    ):
        assert main(command) == code
        assert message in capsys.readouterr().err
    assert not (tmp_path / "t2").exists()


def test_table2_beside_the_papers_figures() -> None:
    row = {"train": [0.974, 0.001], "test": [0.96, 0.0025]}
    lines = table2.table({"double-colored": {"original+cgn": row, "oracle": row}}).splitlines()
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]] == [
        "Original + CGN",
        "97.4 ± 0.1 (97.4)",
        "96.0 ± 0.2 (89.0)",
    ]
    assert [cell.strip() for cell in lines[3].split("|")[1:-1]][1:] == ["97.4 ± 0.1", "96.0 ± 0.2"]


def test_causal_signal_is_the_one_whose_accuracy_changes_least() -> None:
    found = table5.read(
        "double-colored",
        {
            "shape": [{"0.9": 0.85, "1": 0.86}, {"0.9": 0.85, "1": 0.84}],
            "texture": [{"0.9": 0.9, "1": 0.99}] * 2,
            "background": [{"0.9": 0.91, "1": 1.0}] * 2,
        },
    )
    assert found["causal"] == "shape"
    assert found["accuracy"]["shape"]["1"] == [0.85, 0.014142]
    assert found["spread"] == {"shape": 0.0, "texture": 0.09, "background": 0.09}
    text = table5.table(
        {**found, "accuracy": {k: {**v, "0.95": v["1"]} for k, v in found["accuracy"].items()}}
    )
    assert text.endswith("changes least: shape.")


def test_table5(mnist: Path, demo_plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "t5"
    command = [*("table5", "--data", str(mnist), "--plan", str(demo_plan), "--seeds", "1", "--jobs", "0")]
    command += [*("--steps", "2", "--set", "batch_size=8", "--output", str(output))]
    assert main(command) == OK
    assert "the causal signal is" in capsys.readouterr().err
    record = json.loads((output / "table5.json").read_text())
    accuracy = record["results"]["accuracy"]
    assert set(accuracy) == {"shape", "texture", "background"}
    assert all(list(pairs) == ["0.9", "0.95", "1"] for pairs in accuracy.values())
    labels = {json.loads(path.read_text())["settings"]["label"] for path in (output / "cells").glob("*.json")}
    assert labels == set(accuracy)
    assert (output / "table5.md").exists()
