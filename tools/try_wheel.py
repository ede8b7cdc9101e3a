"""Try a wheel in an empty environment and an empty folder, with no compiler: `python tools/try_wheel.py dist/*.whl`."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from pythons import find_python

FIRST_STEPS = Path(__file__).with_name("first_steps.py")


def interpreter(wheel: Path, names: list[str]) -> Path:
    """The Python of those given that a wheel is for."""
    for python, tag in map(find_python, names):
        if f"-{tag}-" in wheel.name:
            return python
    sys.exit(f"try {wheel.name}: no Python for it among {', '.join(names)}. Give one with --python.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheels", nargs="+", type=Path)
    parser.add_argument("--python", action="append", default=[], help="interpreters to try them with")
    parser.add_argument("--extras", default="cpu,serve", help="to install with it (cpu,serve); '' for none")
    arguments = parser.parse_args()
    kept = {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")}
    kept |= {"CC": "/bin/false", "CXX": "/bin/false"}
    for wheel in arguments.wheels:
        python = interpreter(wheel, arguments.python or [sys.executable])
        print(f"{wheel.name} by {python}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([python, "-m", "venv", folder], check=True, env=kept)
            own = str(Path(folder, "bin", "python"))
            asked = f"{wheel.resolve()}[{arguments.extras}]" if arguments.extras else str(wheel.resolve())
            pip = [own, "-m", "pip", "install", "-q", "--only-binary", ":all:", asked]
            subprocess.run(pip, check=True, env=kept, cwd=folder)
            subprocess.run([own, str(FIRST_STEPS)], check=True, env=kept, cwd=folder)


if __name__ == "__main__":
    main()
