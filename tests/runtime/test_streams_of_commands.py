"""Commands whose stdout or stderr is closed, missing, full, or of a narrow encoding; and outputs that cannot be."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import pty
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cgnrt import Generator, audit
from cgnrt._support import terminal
from cgnrt._support.files import discard, written_beside
from cgnrt._support.terminal import flush_results, progress_bar, say, say_error
from cgnrt.cli import main
from cgnrt.errors import CgnrtError
from cgnrt.plan import write_plan

MAIN = "import sys; from cgnrt.cli import main; sys.exit(main(sys.argv[1:]))"
COMMANDS = {
    "inspect": ["inspect", "PLAN"],
    "sample": ["sample", "PLAN", "-n", "3", "-o", "OUT/x.npz"],
    "sheet": ["sheet", "PLAN", "-n", "3", "-o", "OUT/x.png"],
    "generate": ["generate", "PLAN", "-n", "20", "--shard-size", "8", "--processes", "2", "-o", "OUT/set"],
    "bench": ["bench", "PLAN", "--seconds", "0.01", "--batch", "16"],
}


def run(
    command: list[str], plan: Path, out: Path, redirection: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """The command as a shell runs it."""
    filled = [text.replace("PLAN", str(plan)).replace("OUT", str(out)) for text in command]
    return subprocess.run(
        ["/bin/sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-c", MAIN, *filled],
        capture_output=True, text=True, check=False, timeout=120, env={**os.environ, **environment},
    )  # fmt: skip


@pytest.mark.parametrize("name", list(COMMANDS))
@pytest.mark.parametrize("redirection", ["2>&-", ">&-", ">&- 2>&-", "<&- >&- 2>&-", "2>/dev/full"])
def test_closed_and_full(demo_plan: Path, tmp_path: Path, name: str, redirection: str) -> None:
    done = run(COMMANDS[name], demo_plan, tmp_path, redirection)
    assert (done.returncode, done.stderr) == (0, "")
    assert bool(done.stdout) == (">&- " not in f" {redirection} ".replace("2>&- ", ""))
    if name == "sample":  # nothing was printed into the file that got the number of stderr
        with np.load(tmp_path / "x.npz") as found:
            assert found["images"].shape == (3, 32, 32, 3)


def test_an_error_without_a_stderr(demo_plan: Path, tmp_path: Path) -> None:
    """It does not go to stdout either, where results are."""
    done = run(["sample", "PLAN", "-n", "-1", "-o", "OUT/x.npz"], demo_plan, tmp_path, "2>&-")
    assert (done.returncode, done.stdout) == (1, "")


@pytest.mark.parametrize("name", list(COMMANDS))
def test_a_full_stdout(demo_plan: Path, tmp_path: Path, name: str) -> None:
    done = run(COMMANDS[name], demo_plan, tmp_path, ">/dev/full")
    assert done.returncode == 1
    assert done.stderr == (
        f"cgnrt {name}: write to stdout: No space left on device, expected a place with room for the results.\n"
    )


@pytest.mark.parametrize("redirection", ["", "2>&-"])
def test_a_reader_that_has_seen_enough(demo_plan: Path, tmp_path: Path, redirection: str) -> None:
    done = run(COMMANDS["inspect"], demo_plan, tmp_path, f"{redirection} | true")
    assert done.stderr == ""


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8"])
def test_names_that_stdout_cannot_encode(demo_plan: Path, tmp_path: Path, encoding: str) -> None:
    out = tmp_path / "猫"
    done = run(COMMANDS["sample"], demo_plan, out, PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert done.returncode == 0, done.stderr
    assert (out / "x.npz").exists()
    shown = "猫" if encoding == "utf-8" else r"\u732b"
    assert done.stdout == f"{tmp_path}/{shown}/x.npz\n"


# Programs without a terminal.


@pytest.fixture(params=["missing", "closed", "full"])
def no_stderr(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "missing":
        monkeypatch.setattr(sys, "stderr", None)
    elif request.param == "closed":
        closed = io.StringIO()
        closed.close()
        monkeypatch.setattr(sys, "stderr", closed)
    else:
        monkeypatch.setattr(sys, "stderr", Full(terminal=True))


class Full(io.StringIO):
    """A terminal that takes nothing, as one whose window was closed."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal

    def write(self, text: str) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.usefixtures("no_stderr")
def test_bars_and_messages(demo_plan: Path, tmp_path: Path) -> None:
    with progress_bar(10, unit="image") as bar:
        for _ in range(10):
            bar.update()
            bar.set_description("on")
            bar.refresh()
    say_error("cgnrt", "an error")
    found = audit(lambda images: np.zeros(len(images), int), demo_plan, 10, progress=True)
    assert found.n == 10
    assert main(["sample", str(demo_plan), "-n", "3", "-o", str(tmp_path / "x.npz")]) == 0
    assert main(["sample", str(demo_plan), "-n", "-3", "-o", str(tmp_path / "y.npz")]) == 1


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    def shown(**options: Any) -> bool:
        ours, theirs = pty.openpty()
        with os.fdopen(theirs, "w") as screen, monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", screen)
            with progress_bar(3, unit="image", **options) as bar:
                bar.update(3)
        written = b""
        with contextlib.suppress(OSError):  # all was read, and the other end is closed
            while part := os.read(ours, 10_000):
                written += part
        os.close(ours)
        return b"3/3" in written

    assert shown()
    assert not shown(shown=False)


def test_results_without_a_stdout(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    say("a result")
    flush_results()
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stdout", closed)
    say("a result")
    flush_results()
    monkeypatch.setattr(sys, "stdout", Full(terminal=False))
    with pytest.raises(CgnrtError, match="write to stdout: Input/output error"):
        say("a result")
    assert capsys.readouterr().err == ""


def test_standard_files_that_are_closed_are_held() -> None:
    code = (
        "import os, sys\n"
        "os.close(1); os.close(2)\n"
        "from cgnrt._support.terminal import hold_standard_files\n"
        "hold_standard_files()\n"
        "file = os.open(sys.argv[1], os.O_WRONLY)\n"
        "os._exit(0 if file > 2 else 1)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, os.devnull], check=False).returncode == 0
    assert terminal.hold_standard_files() is None  # type: ignore[func-returns-value]  # nothing to do


# Outputs that cannot be.


@pytest.mark.parametrize("target", ["/dev/full/x.npz", "/proc/nothing/x.npz", "FILE/x.npz"])
@pytest.mark.parametrize("options", [[], ["--force"]])
def test_a_place_that_takes_no_file(
    demo_plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], target: str, options: list[str]
) -> None:
    (tmp_path / "file").touch()
    target = target.replace("FILE", str(tmp_path / "file"))
    assert main(["sample", str(demo_plan), "-n", "3", "-o", target, *options]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"cgnrt sample: write '{target}': ")
    assert "expected a writable place. Nothing was left behind." in error
    assert main(["generate", str(demo_plan), "-n", "3", "-o", target]) == 1
    assert "Traceback" not in capsys.readouterr().err


def test_a_clean_up_that_fails_does_not_hide_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "folder"

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "unlink", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)

    def full() -> None:
        with written_beside(folder / "x", force=False) as beside:
            beside.touch()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(CgnrtError, match="No space left on device"):
        full()
    with pytest.raises(RuntimeError, match="the cause"), written_beside(folder / "y", force=False):
        raise RuntimeError("the cause")
    discard(tmp_path / "nothing")


def test_a_plan_that_cannot_be_written(make_golden: Any, tmp_path: Path) -> None:
    for target in ("/dev/full/x.plan", "/proc/x.plan"):
        with pytest.raises(CgnrtError, match=f"write '{target}'"):
            write_plan(target, *make_golden.make_plan())


@pytest.mark.parametrize("kind", ["device", "fifo"])
def test_force_replaces_files_alone(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "x.json"
    if kind == "fifo":
        os.mkfifo(target)
    else:
        target.symlink_to("/dev/null")
    before = os.stat(target).st_mode
    with (
        pytest.raises(CgnrtError, match="it is not a regular file"),
        written_beside(target, force=True) as beside,
    ):
        beside.touch()
    assert os.stat(target).st_mode == before
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_per_noise_has_a_bound(demo_plan: Path) -> None:
    gen = Generator(demo_plan)
    for wrong in (2**63, 2**64, 10**30, np.uint64(2**63)):
        with pytest.raises(ValueError, match=r"per_noise is .*, expected an int of at least 1, below"):
            gen.sample(1, per_noise=wrong)  # type: ignore[arg-type]
    assert len(gen.sample(3, per_noise=2**63 - 1, seed=0)) == 3
