"""The script of docs/serving.md, as pasted, against a server."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from serving import running

import cgnrt
from cgnrt.serve.service import Service


def test_the_script_of_the_document(root: Path, demo_plan: Path) -> None:
    page = (root / "docs" / "serving.md").read_text()
    (script,) = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    generator = cgnrt.Generator(demo_plan, dtype="uint8", layout="NHWC", device="cpu")
    with running(Service(generator, demo_plan.stem)) as server:
        script = script.replace("127.0.0.1:8000", server.http)  # 8000 may be somebody else's
        found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    expected = generator.sample(64, seed=7, do={"texture": "lime"})
    rows = list(map(list, zip(*(column[:3].tolist() for column in expected.labels), strict=True)))
    assert found.stdout == f"(64, 32, 32, 3) {rows}\n"
