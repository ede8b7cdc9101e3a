"""Folders that are full, read-only, in use, or somebody else's."""

from __future__ import annotations

import dataclasses
import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cgnrt import shards
from cgnrt.cli import main
from cgnrt.errors import CgnrtError
from cgnrt.shards import journal
from cgnrt.shards.folder import LOCK, locked

from .conftest import Make, contents

LIMITED = """
import resource, signal, sys
from cgnrt.cli import main
if __name__ == "__main__":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("format", "processes"), [("webdataset", "1"), ("parquet", "1"), ("npz", "1"), ("webdataset", "2")]
)
def test_a_full_disk(demo_plan: Path, tmp_path: Path, format: str, processes: str) -> None:
    """Real writes that fail half way through a shard."""
    out = tmp_path / "out"
    given = ["generate", str(demo_plan), "-n", "64", "--shard-size", "16", "-o", str(out)]
    given += ["--format", format, "--image", "raw", "--processes", processes]
    script = tmp_path / "limited.py"
    script.write_text(LIMITED)
    done = subprocess.run([sys.executable, script, *given], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "File too large, expected a writable place. Nothing was left behind." in done.stderr
    assert list(contents(out)) == ["journal.jsonl"]
    assert main(given) == 0  # there is room again
    assert shards.verify(out, deep=True) == []


@pytest.mark.parametrize("moment", ["append", "sync", "manifest"])
def test_a_disk_that_is_full_for_the_bookkeeping(
    make: Make, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        if moment == "append":
            patch.setattr("cgnrt.shards.journal.Journal._append", full)
        elif moment == "sync":
            patch.setattr("cgnrt.shards.journal.os.fsync", full)
        else:
            patch.setattr("cgnrt.shards.manifest.Path.write_text", full)
        with pytest.raises(CgnrtError, match="No space left on device, expected a writable place"):
            make(tmp_path)
    assert not (tmp_path / "manifest.json").exists()
    make(tmp_path)
    assert contents(tmp_path) == contents(whole)


def test_a_read_only_disk(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def refuse(path: Any, flags: int, *arguments: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return real(path, flags, *arguments)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(CgnrtError, match="Read-only file system, expected a writable folder"):
        make(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_place_where_no_folder_can_be(make: Make, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(CgnrtError, match=r"generate '.*(File exists|Not a directory), expected a folder"):
            make(folder)
    assert contents(tmp_path) == {"file": b"mine"}


def test_somebody_elses_folder(make: Make, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(CgnrtError, match=r"other files in it \(thesis.txt\).* Pass --force to write beside"):
        make(tmp_path)
    assert contents(tmp_path) == {"thesis.txt": b"mine"}
    make(tmp_path, force=True)
    make(tmp_path, force=True, seed=6)
    assert (tmp_path / "thesis.txt").read_text() == "mine"
    assert shards.verify(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"shards": []}', "format is None, expected 'cgnrt-data-set'"),
        (
            '{"format": "cgnrt-data-set", "format_version": 9}',
            "format version is 9, expected 1. Upgrade cgnrt.",
        ),
        ("[", "content is not JSON"),
    ],
)
def test_a_manifest_that_is_not_ours(make: Make, tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    for call in (make, shards.verify):
        with pytest.raises(CgnrtError, match=message):
            call(tmp_path)
    assert contents(tmp_path) == {"manifest.json": content.encode()}


def test_two_runs_at_once(make: Make, whole: Path, tmp_path: Path) -> None:
    with (
        locked(tmp_path),
        pytest.raises(CgnrtError, match=rf"in use by another run \(pid {os.getpid()} on .*expected one run"),
    ):
        make(tmp_path)
    make(tmp_path)
    assert contents(tmp_path) == contents(whole)


def test_a_lock_of_the_dead_is_no_lock(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text("pid 1 on elsewhere\n")
    with locked(tmp_path):
        assert f"pid {os.getpid()} on " in (tmp_path / LOCK).read_text()
    assert not list(tmp_path.iterdir())


PRECIOUS = b"what nobody has a copy of\n"


@pytest.mark.parametrize("kind", ["symbolic", "dangling", "hard", "file", "empty hard", "fifo", "folder"])
def test_a_lock_that_is_something_else(make: Make, tmp_path: Path, kind: str) -> None:
    out, precious = tmp_path / "out", tmp_path / "precious"
    out.mkdir()
    precious.write_bytes(b"" if kind == "empty hard" else PRECIOUS)
    before = precious.read_bytes()
    lock = out / LOCK
    if kind == "symbolic":
        lock.symlink_to(precious)
    elif kind == "dangling":
        lock.symlink_to(tmp_path / "nothing")
    elif kind in ("hard", "empty hard"):
        os.link(precious, lock)
    elif kind == "file":
        lock.write_bytes(PRECIOUS)
    elif kind == "fifo":
        os.mkfifo(lock)
    else:
        lock.mkdir()
    messages = {
        "symbolic": "cgnrt-lock is a symbolic link, expected a file",
        "dangling": "cgnrt-lock is a symbolic link, expected a file",
        "fifo": "cgnrt-lock is not a regular file",
        "folder": "Is a directory",
    }
    with pytest.raises(CgnrtError, match=messages.get(kind, "cgnrt-lock is not a lock of cgnrt")):
        make(out)
    assert precious.read_bytes() == before
    assert os.path.lexists(lock)
    assert not (tmp_path / "nothing").exists()
    if kind == "file":
        assert lock.read_bytes() == PRECIOUS


def test_a_lock_that_a_crash_left_is_taken(make: Make, whole: Path, tmp_path: Path) -> None:
    for content in ("", "pid 77 on elsewhere\n"):
        (tmp_path / LOCK).write_text(content)
        make(tmp_path, note=print)
        assert contents(tmp_path) == contents(whole)


def test_a_journal_that_is_a_link(make: Make, whole: Path, tmp_path: Path) -> None:
    """Of another data set, which would get the lines of this one."""
    other, out = tmp_path / "other", tmp_path / "out"
    make(other)
    manifest = shards.Manifest.read(other)
    journal.begin(other, dataclasses.replace(manifest, shards=manifest.shards[:2]))
    begun = (other / "journal.jsonl").read_bytes()
    out.mkdir()
    (out / "journal.jsonl").symlink_to(other / "journal.jsonl")
    with pytest.raises(CgnrtError, match=r"journal\.jsonl is a symbolic link, expected a file"):
        make(out)
    assert (other / "journal.jsonl").read_bytes() == begun


@pytest.mark.parametrize("name", ["manifest.json", "shard-000002.tar"])
def test_what_is_written_replaces_links(make: Make, whole: Path, tmp_path: Path, name: str) -> None:
    out, precious = tmp_path / "out", tmp_path / "precious"
    out.mkdir()
    precious.write_bytes(PRECIOUS)
    if name == "manifest.json":
        make(out, note=print)
        (out / name).unlink()
        (out / name).symlink_to(precious)
        with pytest.raises(CgnrtError):  # it is read first
            make(out)
    else:
        (out / name).symlink_to(precious)
        make(out, force=True)
        assert contents(out) == contents(whole)
    assert precious.read_bytes() == PRECIOUS
