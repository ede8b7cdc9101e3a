"""The tests that need a card, and some of them under NVIDIA's sanitizer."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence

from gpu.results import NotRunError, Recorder
from gpu.setting import Setting
from report import ROOT

WORKERS = 4
FILES = [
    f"tests/cuda/test_{name}.py"
    for name in (
        "capture",
        "compose",
        "libraries",
        "noise",
        "patch_grid",
        "signatures",
        "tensorrt_gpu",
        "torch_engine",
    )
]
# A few of every kernel, small enough for an instrumented run.
CHECKED = [
    "tests/cuda/test_compose.py::test_every_case_equals_the_reference[real-pool-rolled]",
    "tests/cuda/test_compose.py::test_every_case_equals_the_reference[real-bytes-nhwc]",
    "tests/cuda/test_patch_grid.py::test_every_case_equals_the_reference[real-pool-blended]",
    "tests/cuda/test_patch_grid.py::test_every_case_equals_the_reference[real-bytes-nhwc]",
    "tests/cuda/test_patch_grid.py::test_all_windows_in_order[real-even-16]",
    "tests/cuda/test_noise.py::test_out_and_streams[real]",
    "tests/cuda/test_noise.py::test_rows_of_a_table[real-1-3]",
    "tests/cuda/test_capture.py::test_a_graph_runs_what_was_captured[real]",
]
SANITIZER = "compute-sanitizer"


def measure_tests(setting: Setting, recorder: Recorder) -> None:
    """The tests that need a card; of a dry run, that they are found."""
    setting.wait_for_turn(recorder)
    parallel = (
        ["-p", "xdist.plugin", "-n", str(WORKERS)]
        if importlib.util.find_spec("xdist") and not setting.dry
        else []
    )
    words, failed = run_pytest(setting, "tests", FILES, parallel)
    recorder.row("tests that need a GPU", note=words)
    for name in failed:
        recorder.row(name, note="failed")
    if failed:
        raise NotRunError(words)


def measure_memcheck(setting: Setting, recorder: Recorder) -> None:
    """Accesses of our kernels beyond their memory; of a dry run, that the tests are found."""
    _sanitize(setting, recorder, "memcheck")


def measure_racecheck(setting: Setting, recorder: Recorder) -> None:
    """Races of our kernels in shared memory; of a dry run, that the tests are found."""
    _sanitize(setting, recorder, "racecheck")


def _sanitize(setting: Setting, recorder: Recorder, tool: str) -> None:
    setting.wait_for_turn(recorder)
    setting.need_kernels()
    if not setting.dry and shutil.which(SANITIZER) is None:
        raise NotRunError(f"{SANITIZER} is not on the PATH")
    prefix = [SANITIZER, "--tool", tool, "--error-exitcode", "9", "--target-processes", "all"]
    words, _ = run_pytest(setting, tool, CHECKED, (), () if setting.dry else prefix)
    text = (setting.out / f"{tool}.log").read_text(errors="replace")
    errors = sum(map(int, re.findall(r"(?:ERROR|RACECHECK) SUMMARY\D*(\d+)", text)))
    recorder.row(f"{tool} of {len(CHECKED)} tests", errors=errors, note=words)
    if errors:
        raise NotRunError(f"it found errors; see {tool}.log")


def run_pytest(
    setting: Setting, name: str, what: Sequence[str], more: Sequence[str], prefix: Sequence[str] = ()
) -> tuple[str, list[str]]:
    """Run tests in a process of their own, whose output is kept in NAME.log.

    Returns:
      pytest's last line, of a dry run without its time, and the names of failed tests.
    Raises:
      NotRunError: pytest could not be run, or the time was not enough; the end of its output.
    """
    # Other versions of packages than those of the tests may warn.
    command = [*prefix, sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-W", "default"]
    command += ["-p", "no:cacheprovider", "--tb=short", *more, *what]
    command += ["--collect-only"] if setting.dry else []
    log = setting.out / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    with log.open("w") as file:
        try:
            done = subprocess.run(
                command,
                cwd=ROOT,
                stdout=file,
                stderr=subprocess.STDOUT,
                check=False,
                # Of the plugins that are installed beside it only what is named: others import much or warn.
                env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
                timeout=setting.budget.left(),
            )
        except subprocess.TimeoutExpired:
            raise NotRunError(f"not done after {time.monotonic() - begin:.0f} s; see {log.name}") from None
    lines = log.read_text(errors="replace").splitlines()
    failed = [m[1] for line in lines if (m := re.match(r"(?:FAILED|ERROR) (\S+)", line))]
    pattern = r"\d+(/\d+)? (passed|failed|error|tests? collected)"
    summaries = [line.strip("= ") for line in lines if re.search(pattern, line)]
    if not summaries or done.returncode not in (0, 1, 9):
        raise NotRunError(f"pytest ended with {done.returncode}: {' / '.join(lines[-3:])}")
    return re.sub(r" in [\d.]+s.*", "", summaries[-1]) if setting.dry else summaries[-1], failed
