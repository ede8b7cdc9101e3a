"""Checkouts of this repository, so that a benchmark can compare one state of the code with another."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_WHERE = "import pathlib, cgnrt._core; print(pathlib.Path(cgnrt.__file__).resolve())"


@dataclass(frozen=True)
class Checkout:
    """A checkout whose cgnrt can be imported.

    Attributes:
      root: its folder.
      python: the interpreter that imports cgnrt from it.
    """

    root: Path
    python: str

    @classmethod
    def find(cls, folder: Path) -> Checkout:
        """The checkout in a folder, with this interpreter if it can import that cgnrt, else with its `.venv`.

        Raises:
          SystemExit: neither can.
        """
        root = folder.resolve()
        for python in (sys.executable, str(root / ".venv" / "bin" / "python")):
            if Path(python).exists():
                checkout = cls(root, python)
                done = checkout.start(_WHERE)
                text, _ = done.communicate()
                if done.returncode == 0 and Path(text.strip()).is_relative_to(root):
                    return checkout
        raise SystemExit(f"bench: cgnrt cannot be imported from {root}. Run `make demo` there first.")

    def start(self, code: str, *arguments: object) -> subprocess.Popen[str]:
        """A fresh process that runs Python code; stdin and stdout are pipes, stderr is dropped."""
        environment = {
            **os.environ,
            "PYTHONPATH": str(self.root / "python"),
            # Both checkouts start from compiled modules, in whatever state their folders are.
            "PYTHONPYCACHEPREFIX": str(Path(__file__).resolve().parents[1] / "out" / "pycache"),
        }
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        return subprocess.Popen(
            [self.python, "-c", code, *map(str, arguments)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def run(self, code: str, *arguments: object) -> str:
        """What the code prints in a fresh process.

        Raises:
          RuntimeError: it failed.
        """
        process = self.start(code, *arguments)
        text, _ = process.communicate()
        if process.returncode:
            raise RuntimeError(f"a process of {self.root} ended with {process.returncode}")
        return text
