"""The example with Lightning, by the library itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.extended


def run(root: Path, folder: Path, *words: str) -> str:
    environment = {**os.environ, "HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": "1", "TMPDIR": str(folder)}
    (folder / "plans").symlink_to(root / "plans")
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_example_with_lightning_learns(root: Path, tmp_path: Path) -> None:
    found = run(root, tmp_path, str(root / "examples/lightning_module.py"), "--steps", "100")
    accuracy = re.search(r"accuracy of the last batch: ([\d.]+)", found)
    assert accuracy
    assert float(accuracy[1]) > 0.3  # chance is 0.1
