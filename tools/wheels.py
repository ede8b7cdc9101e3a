"""Wheels in a folder, one for each Python: compiled, repaired and named by auditwheel, and checked.

    python tools/wheels.py --output dist python3.11 python3.12

What builds them comes from the environment that runs this: the extra [wheel], with cmake and ninja on the PATH.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pythons import find_python
from wheel_checks import problems

ROOT = Path(__file__).resolve().parents[1]


def run(*words: object, **environment: str) -> None:
    """Run a command; what it says is shown where it fails."""
    command = [str(word) for word in words]
    inherited = {name: text for name, text in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        command, env=inherited | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    if done.returncode != 0:
        sys.exit(
            f"{' '.join(command)}\n{done.stdout.decode(errors='replace')}\nwheels: the command above failed."
        )


def build(python: Path, cuda: str, output: Path) -> Path:
    """The wheel of one Python, as auditwheel names it."""
    with tempfile.TemporaryDirectory() as folder:
        raw, repaired = Path(folder, "raw"), Path(folder, "repaired")
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        pip = [sys.executable, "-m", "pip", "--python", python]
        run(*pip, "wheel", "--no-deps", "-w", raw, ROOT, SKBUILD_CMAKE_DEFINE=f"CGNRT_CUDA={cuda}", PATH=path)
        (wheel,) = raw.glob("*.whl")
        if sys.platform == "linux":
            run(sys.executable, "-m", "auditwheel", "repair", "-w", repaired, wheel, PATH=path)
            (wheel,) = repaired.glob("*.whl")
        output.mkdir(parents=True, exist_ok=True)
        return Path(wheel).replace(output / wheel.name)


def main() -> None:
    parser = argparse.ArgumentParser(description="Build wheels of cgnrt, repair and check them.")
    parser.add_argument("pythons", nargs="+", help="interpreters, as python3.11 or a path")
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="folder of the wheels (dist/)")
    parser.add_argument(
        "--cuda",
        choices=("AUTO", "ON", "OFF"),
        default="AUTO",
        help="CUDA kernels (AUTO: where nvcc is found)",
    )
    parser.add_argument("--sdist", action="store_true", help="the source distribution, too")
    arguments = parser.parse_args()
    pythons = [find_python(name)[0] for name in arguments.pythons]
    if arguments.sdist:
        run(sys.executable, "-m", "build", "--sdist", "--outdir", arguments.output, ROOT)
        for sdist in arguments.output.glob("cgnrt-*.tar.gz"):
            print(f"{sdist}: {sdist.stat().st_size / 1e6:.1f} MB", flush=True)
    failed = False
    for python in pythons:
        begin = time.monotonic()
        wheel = build(python, arguments.cuda, arguments.output.resolve())
        print(f"{wheel}: {wheel.stat().st_size / 1e6:.1f} MB, {time.monotonic() - begin:.0f} s", flush=True)
        for problem in problems(wheel, ROOT, cuda=True if arguments.cuda == "ON" else None):
            failed = True
            print(f"  {problem}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
