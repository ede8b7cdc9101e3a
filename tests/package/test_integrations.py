"""docs/integrations.md as a whole, and the example with Lightning, by the libraries that they are about."""

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


def test_every_block_of_the_page_runs(root: Path, tmp_path: Path) -> None:
    page = (root / "docs/integrations.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    assert len(blocks) == 6
    (tmp_path / "page.py").write_text("\n".join(blocks))
    assert "PngImageFile" in run(root, tmp_path, "page.py")


def test_the_example_with_lightning_learns(root: Path, tmp_path: Path) -> None:
    found = run(root, tmp_path, str(root / "examples/lightning_module.py"), "--steps", "100")
    accuracy = re.search(r"accuracy of the last batch: ([\d.]+)", found)
    assert accuracy
    assert float(accuracy[1]) > 0.3  # chance is 0.1
