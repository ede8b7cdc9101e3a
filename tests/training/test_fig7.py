from __future__ import annotations

import json
from pathlib import Path

import pytest

from cgnrt_training.classifier import train as loop
from cgnrt_training.cli import OK, USAGE, main


@pytest.fixture(autouse=True)
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "N_HELD_OUT", 16)


def test_three_axes_share_their_common_cell(
    mnist: Path, demo_plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "f7"
    command = ["fig7", "--variant", "double-colored", "--data", str(mnist), "--plan", str(demo_plan)]
    command += ["--counterfactuals", "10000,200000", "--per-noise", "1,5", "--reuse", "1,4"]
    command += [
        "--seeds",
        "1",
        "--jobs",
        "0",
        "--steps",
        "2",
        "--set",
        "batch_size=8",
        "--output",
        str(output),
    ]
    assert main(command) == OK
    assert capsys.readouterr().out.strip() == str(output / "fig7.json")
    names = {path.name for path in (output / "cells").glob("*.json")}
    assert names == {
        "n10000.k1.r1.0.json",
        "n200000.k1.r1.0.json",
        "n200000.k5.r1.0.json",
        "n200000.k1.r4.0.json",
    }
    results = json.loads((output / "fig7.json").read_text())["results"]
    assert results["variant"] == "double-colored"
    axes = results["axes"]
    assert {axis: list(points) for axis, points in axes.items()} == {
        "counterfactuals": ["10000", "200000"],
        "per_noise": ["1", "5"],
        "reuse": ["1", "4"],
    }
    assert axes["counterfactuals"]["200000"] == axes["per_noise"]["1"] == axes["reuse"]["1"]
    assert axes["counterfactuals"]["10000"]["distinct"] == 2  # 1 of a batch of 8, for 2 steps
    assert axes["counterfactuals"]["200000"]["distinct"] == 12  # 6 of 8
    assert (output / "fig7.md").read_text().count("held-out counterfactuals") == 3


def test_wrong_values(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["fig7", "--variant", "colored", "--data", "x", "--plan", "y", "--output", "z"]
    for option, value, message in (
        ("--reuse", "1,x", "--reuse is '1,x', expected numbers"),
        ("--per-noise", "0", "per_noise is 0, expected a whole number of at least 1"),
    ):
        assert main([*command, option, value]) == USAGE
        assert message in capsys.readouterr().err
