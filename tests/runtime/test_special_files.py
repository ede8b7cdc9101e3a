"""What has a file's name and is not a file is refused at once, wherever a user or a file names one."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from special_files import KINDS, at_once, make_special

from cgnrt import Plan, shards
from cgnrt._support.reading import open_file, read_file, read_text
from cgnrt.cli import main
from cgnrt.errors import PlanError
from cgnrt.shards.maker import checksum


@pytest.fixture(params=KINDS)
def special(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return make_special(request.param, tmp_path / "special")


def test_reading(special: Path) -> None:
    message = "Is a directory" if special.is_dir() else "not a regular file"
    for read in (open_file, read_file, read_text, checksum):
        with at_once(), pytest.raises(OSError, match=message):
            read(special)


def test_files_are_read(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes("a\r\nb\rä\n".encode())
    link = tmp_path / "link"
    link.symlink_to(file)
    assert read_file(link) == file.read_bytes()
    assert read_text(link) == file.read_text("utf-8") == "a\nb\nä\n"
    assert read_file(file, 8) == file.read_bytes()
    with pytest.raises(OSError, match="more than 7 bytes"):
        read_file(file, 7)
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "none")
    before = len(os.listdir("/dev/fd"))
    with pytest.raises(IsADirectoryError):
        read_file(tmp_path)
    assert len(os.listdir("/dev/fd")) == before


def test_plans(special: Path) -> None:
    with at_once(), pytest.raises(PlanError, match=r"file is (a directory|not a regular file|unreadable)"):
        Plan.open(special)


def test_shards(golden_plan: Path, special: Path, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    shards.generate(golden_plan, 2, folder, processes=1)
    (shard,) = folder.glob("*.tar")
    shard.unlink()
    os.rename(special, shard)
    with at_once():
        (problem,) = shards.verify(folder)
    assert "cannot be read (" in problem


@pytest.mark.parametrize(
    "arguments",
    [
        lambda plan, it: ["inspect", it],
        lambda plan, it: ["sample", it, "-n", "1", "-o", f"{it}.npz"],
        lambda plan, it: ["serve", it],
        lambda plan, it: ["serve", plan, "--token-file", it],
        lambda plan, it: ["serve", plan, "--certificate", it, "--key", it, "--port", "0", "--no-grpc"],
        lambda plan, it: ["real", plan, "--saliency", it, "-o", f"{it}.png"],
    ],
    ids=["plan", "sample", "serve", "token", "certificate", "saliency"],
)
def test_commands(
    arguments: Callable[[str, str], list[str]],
    special: Path,
    golden_plan: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plan = shutil.copy(golden_plan, tmp_path / "cgn.plan")
    with at_once(20):
        assert main(arguments(str(plan), str(special))) == 1
    assert f"'{special}'" in capsys.readouterr().err


# Files that come with the package, and that the same function has just written.
OWN = {
    ("cgnrt/serve/browsers.py", "entry.read_bytes()"),
    ("cgnrt_training/settings.py", 'entry.read_text("utf-8")'),
    ("cgnrt_training/imagenet/classes.py", 'Path(__file__).with_name("classes.txt").read_text('),
    ("cgnrt/cli/example.py", '(resources.files("cgnrt") / "examples" / _PLAN).read_bytes()'),
    ("cgnrt/serve/grpc_messages.py", 'files("cgnrt.serve").joinpath(_DESCRIPTORS).read_bytes()'),
    ("cgnrt_training/photos/writing.py", '.open("rb") as rows'),
    ("cgnrt/backends/tensorrt/build.py", 'path.read_bytes() if path.is_file() else b""'),
}


def test_files_are_read_in_one_place(root: Path) -> None:
    """What is read goes through `_support.reading`, which opens nothing but files."""
    found = set()
    for folder in ("python/cgnrt", "training/cgnrt_training", "export/cgnrt_export"):
        for path in (root / folder).rglob("*.py"):
            for line in path.read_text("utf-8").splitlines():
                reads = re.search(r"\.read_(bytes|text)\(", line)
                if reads or re.search(r"(?<!os)\.open\(\"rb\"|[^._a-z]open\([^)]*\"rb\"", line):
                    name = path.relative_to(root / folder.partition("/")[0]).as_posix()
                    if not any(name == own and text in line for own, text in OWN):
                        found.add((name, line.strip()))
    assert found == {("cgnrt/_support/files.py", 'spools[name].open("rb") as spool,')}
