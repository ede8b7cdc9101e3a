"""The example for a user's own modules runs as it stands."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
from PIL import Image

from cgnrt import Plan

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_modules.py"


def test_the_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), str(tmp_path)])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    assert "10 counterfactuals, and 10 with do(texture = red)" in capsys.readouterr().out
    with Plan.open(tmp_path / "own_modules.plan") as plan:
        assert plan.manifest.resolution == (64, 64)
        assert [m.noise.size for m in plan.manifest.mechanisms.values()] == [4, 12, 20]
        assert all(len(m.classes) == 5 for m in plan.manifest.mechanisms.values())
        # Each in its way: nothing to rewrite, a chain of modules, calls without modules.
        rewrites = [m["rewrites"] for m in plan.manifest.parity["mechanisms"].values()]
        assert [r["up-samplings merged"] for r in rewrites] == [0, 2, 3]
    with Image.open(tmp_path / "own_modules.png") as sheet:
        assert sheet.width > 10 * 64
        assert len(sheet.convert("RGB").getcolors(1 << 24)) > 1000, "it is not blank"
