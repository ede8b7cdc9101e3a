"""Finding cgnrt for this Python or building it for the card that is here; ending processes. Imports nothing of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [str(ROOT / name) for name in ("python", "training", "export")]
LIMIT_S = 120
# Prints the architectures of the kernels: an empty list if there is no CUDA part, or only the emulated one.
_PROBE = """
import importlib.util, json
from cgnrt import _core, cuda
found = cuda.info()
if not all(map(importlib.util.find_spec, ("cgnrt_training", "cgnrt_export"))):
    raise SystemExit(1)
print(json.dumps([_core.__file__, found["architectures"] if found and not found["emulated"] else []]))
"""


@dataclass(frozen=True)
class Build:
    """The cgnrt that is measured.

    Attributes:
      paths: what Python needs on its path for it.
      core: the compiled CPU part.
      architectures: what the kernels are compiled for; empty: there are no kernels.
      seconds: that the build took; None: it existed already.
      failure: why there are no kernels; None: there are, or none were asked for.
    """

    paths: list[str]
    core: str
    architectures: list[str]
    seconds: float | None = None
    failure: str | None = None


def ready(work: Path, *, dry: bool) -> Build:
    """The cgnrt of this environment or of the source tree, if it has what is needed; else one that is built in `work`.

    Args:
      dry: kernels are not needed.
    Raises:
      SystemExit: it cannot be built either.
    """
    given = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    for paths in (given, [*given, *SOURCES]):
        found = _probe(paths)
        if found is not None and (found.architectures or dry):
            return found
    begin = time.monotonic()
    site = work / f"site-{sys.implementation.cache_tag}"
    failure = None if dry else _install(work, site, kernels=True)
    if failure is not None:
        print(f"bench gpu: {failure}\nWithout kernels then.", file=sys.stderr)
    if (dry or failure is not None) and (reason := _install(work, site, kernels=False)) is not None:
        raise SystemExit(f"bench gpu: cgnrt is not installed and cannot be built: {reason}")
    built = _probe([str(site)])
    if built is None:
        raise SystemExit(f"bench gpu: cgnrt was built into {site}, but cannot be imported from there.")
    return Build(built.paths, built.core, built.architectures, time.monotonic() - begin, failure)


def _probe(paths: list[str]) -> Build | None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(
        [sys.executable, "-c", _PROBE], env=environment, cwd="/", capture_output=True, text=True, check=False
    )
    if done.returncode:
        return None
    core, architectures = json.loads(done.stdout.splitlines()[-1])
    return Build(paths, core, architectures)


def _install(work: Path, site: Path, *, kernels: bool) -> str | None:
    """Build and install the source tree into a folder of its own: for this card alone, without x86 variants.

    Returns:
      The end of the output where it fails, or None.
    """
    settings = {
        "build-dir": str(work / f"build-{sys.implementation.cache_tag}-{'cuda' if kernels else 'cpu'}"),
        "cmake.define.CGNRT_PORTABLE": "ON",
        "cmake.define.CGNRT_CUDA": "ON" if kernels else "OFF",
        "cmake.define.CMAKE_CUDA_ARCHITECTURES": f"{_capability()}-real",
    }
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index"]
    command += ["--disable-pip-version-check", "--upgrade", "--target", str(site), str(ROOT)]
    command += [f"--config-settings={name}={value}" for name, value in settings.items()]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, process_group=0
    )
    try:
        output, _ = process.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        return f"its build took more than {LIMIT_S} s"
    finally:
        end_group(process)
    return None if process.returncode == 0 else "\n".join(output.splitlines()[-30:])


def _capability() -> str:
    """Compute capability of the first card, as CMake writes it; an H100's if nvidia-smi does not tell."""
    command = ["nvidia-smi", "-i", "0", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return "90"
    found = done.stdout.strip().replace(".", "")
    return found if found.isdecimal() else "90"


def end_group(process: subprocess.Popen[Any]) -> None:
    """End a process that was started with a group of its own, and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Signals that end a process unwind this one first, so that nothing that it started keeps the card."""

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.signal(number, leave) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
