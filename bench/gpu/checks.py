"""The tests that need a card, and some of them under NVIDIA's sanitizer."""

from __future__ import annotations

import importlib.util
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
    for name in ("capture", "compose", "libraries", "noise", "patch_grid", "signatures", "tensorrt_gpu")
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
SANITIZER, TOOLS = "compute-sanitizer", ("memcheck", "racecheck")


def measure_tests(setting: Setting, recorder: Recorder) -> None:
    """The tests that need a card; of a dry run, that they are found."""
    setting.wait_for_turn(recorder)
    parallel = ["-n", str(WORKERS)] if importlib.util.find_spec("xdist") and not setting.dry else []
    words, failed = run_pytest(setting, "tests", FILES, parallel)
    recorder.row("tests that need a GPU", note=words)
    for name in failed:
        recorder.row(name, note="failed")
    if failed:
        raise NotRunError(words)


def measure_sanitizer(setting: Setting, recorder: Recorder) -> None:
    """Kernels under memcheck and racecheck; of a dry run, that their tests are found."""
    setting.wait_for_turn(recorder)
    setting.need_kernels()
    if not setting.dry and shutil.which(SANITIZER) is None:
        raise NotRunError(f"{SANITIZER} is not on the PATH")
    wrong = []
    for tool in TOOLS[:1] if setting.dry else TOOLS:
        prefix = [SANITIZER, "--tool", tool, "--error-exitcode", "9", "--target-processes", "all"]
        words, _ = run_pytest(setting, tool, CHECKED, (), () if setting.dry else prefix)
        found = 0 if setting.dry else _errors(setting, tool)
        recorder.row(f"{tool} of {len(CHECKED)} tests", errors=found, note=words)
        wrong += [tool] if found else []
    if wrong:
        raise NotRunError(f"{', '.join(wrong)} found errors; see the logs")


def run_pytest(
    setting: Setting, name: str, what: Sequence[str], more: Sequence[str], prefix: Sequence[str] = ()
) -> tuple[str, list[str]]:
    """Run tests in a process of their own, whose output is kept in NAME.log.

    Returns:
      pytest's last line, and the names of failed tests.
    Raises:
      NotRunError: pytest could not be run, or the time was not enough; the end of its output.
    """
    # Warnings of other versions than ours are no errors here.
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
                timeout=setting.budget.left(),
            )
        except subprocess.TimeoutExpired:
            raise NotRunError(f"not done after {time.monotonic() - begin:.0f} s; see {log.name}") from None
    lines = log.read_text(errors="replace").splitlines()
    failed = [m[1] for line in lines if (m := re.match(r"(?:FAILED|ERROR) (\S+)", line))]
    summaries = [
        line for line in lines if re.search(r"\d+(/\d+)? (passed|failed|error|tests? collected)", line)
    ]
    if not summaries or (done.returncode not in (0, 1, 9)):
        raise NotRunError(f"pytest ended with {done.returncode}: {' / '.join(lines[-3:])}")
    return re.sub(r" in [\d.]+s.*", "", summaries[-1]).strip("= ") if setting.dry else summaries[-1].strip(
        "= "
    ), failed


def _errors(setting: Setting, tool: str) -> int:
    """What the sanitizer counted."""
    text = (setting.out / f"{tool}.log").read_text(errors="replace")
    return sum(int(found) for found in re.findall(r"(?:ERROR SUMMARY|RACECHECK SUMMARY)\D*(\d+)", text))
