"""The example that trains on a stream runs as it stands, and what it trains tells shapes."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "train_classifier.py"


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> dict[str, float]:
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), *map(str, arguments)])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    found = re.findall(r"says the (\w+)'s label of ([\d.]+) %", capsys.readouterr().out)
    return {name: float(share) for name, share in found}


def test_on_counterfactuals_alone(
    demo_plan: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run(monkeypatch, capsys, "--plan", demo_plan, "--steps", 60)
    assert found["shape"] > 50
    assert found["texture"] < 20
    assert found["background"] < 20


def test_half_of_it_real(
    demo_plan: Path, mnist: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run(monkeypatch, capsys, "--plan", demo_plan, "--steps", 3, "--data", mnist)
    assert set(found) == {"shape", "texture", "background"}
