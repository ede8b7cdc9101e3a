"""A plan appears whole or not at all: full disks, kills, files that exist."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cgnrt.errors import PlanError
from cgnrt.plan import Plan, write_plan


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "folder"
    path.mkdir()
    return path


def test_an_existing_file_is_kept(parts: Any, folder: Path) -> None:
    target = folder / "cgn.plan"
    target.write_bytes(b"mine")
    with pytest.raises(
        PlanError,
        match=r"write '.*cgn.plan': path is the name of an existing file, expected a new name.*force=True",
    ):
        write_plan(target, parts.manifest, parts.members)
    assert target.read_bytes() == b"mine"
    digest = write_plan(target, parts.manifest, parts.members, force=True)
    assert Plan.open(target).digest == digest
    assert os.listdir(folder) == ["cgn.plan"]


def test_a_dangling_link_is_kept(parts: Any, folder: Path) -> None:
    (folder / "cgn.plan").symlink_to("nowhere")
    with pytest.raises(PlanError, match="path is the name of an existing file"):
        write_plan(folder / "cgn.plan", parts.manifest, parts.members)


def refuse_links(*_: object) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


@pytest.mark.parametrize("has_links", [True, False])
def test_a_name_that_is_taken_meanwhile(
    parts: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    target = folder / "cgn.plan"
    if not has_links:
        monkeypatch.setattr(os, "link", refuse_links)
    real = os.fsync

    def fsync(descriptor: int) -> None:
        target.write_bytes(b"theirs")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(PlanError, match="path is the name of an existing file"):
        write_plan(target, parts.manifest, parts.members)
    assert target.read_bytes() == b"theirs"
    assert os.listdir(folder) == ["cgn.plan"]


def test_a_file_system_without_hard_links(parts: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", refuse_links)
    write_plan(folder / "cgn.plan", parts.manifest, parts.members)
    assert os.listdir(folder) == ["cgn.plan"]


def test_a_file_system_that_cannot_flush_folders(
    parts: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    digest = write_plan(folder / "cgn.plan", parts.manifest, parts.members)
    assert Plan.open(folder / "cgn.plan").digest == digest


@pytest.mark.parametrize("name", ["fsync", "replace", "link"])
def test_a_full_disk_leaves_nothing(
    parts: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    target = folder / "cgn.plan"
    force = name == "replace"
    if force:
        target.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, name, full)
    if name == "link":
        monkeypatch.setattr(os, "replace", full)
    with pytest.raises(
        PlanError, match=r"file is not writable \(No space left on device\), expected a place with room"
    ):
        write_plan(target, parts.manifest, parts.members, force=force)
    assert os.listdir(folder) == (["cgn.plan"] if force else [])
    if force:
        assert target.read_bytes() == b"old"


LIMITED = """
import resource, signal, sys
from cgnrt.errors import PlanError
from cgnrt.plan import Plan, write_plan
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
with Plan.open(sys.argv[1]) as plan:
    try:
        write_plan(sys.argv[2], plan.manifest, {n: plan.member(n) for n in plan.members}, force=True)
    except PlanError as error:
        print(error)
"""


def test_a_file_size_limit(golden_plan: Path, folder: Path) -> None:
    """A real failing write, half way through the file."""
    target = folder / "cgn.plan"
    target.write_bytes(b"old")
    command = [sys.executable, "-c", LIMITED, str(golden_plan), str(target)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.startswith(
        f"write '{target}': file is not writable (File too large), expected a place with"
    )
    assert os.listdir(folder) == ["cgn.plan"]
    assert target.read_bytes() == b"old"


KILLED = """
import os, sys
from cgnrt.plan import Plan, write_plan
def stop(*_):
    print("half", flush=True)
    sys.stdin.read()
os.fsync = stop
with Plan.open(sys.argv[1]) as plan:
    write_plan(sys.argv[2], plan.manifest, {n: plan.member(n) for n in plan.members}, force=True)
"""


def test_a_kill_leaves_the_old_file(golden_plan: Path, folder: Path) -> None:
    target = folder / "cgn.plan"
    target.write_bytes(b"old")
    command = [sys.executable, "-c", KILLED, str(golden_plan), str(target)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"half\n"
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert target.read_bytes() == b"old"
    left = [name for name in os.listdir(folder) if name != "cgn.plan"]
    assert [name.startswith(".cgn.plan.") and name.endswith(".tmp") for name in left] == [True]


def test_an_interrupt_leaves_nothing(parts: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_plan(folder / "cgn.plan", parts.manifest, parts.members)
    assert os.listdir(folder) == []


def test_the_file_is_flushed_before_it_gets_its_name(
    parts: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for name in ("fsync", "link", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, _name=name, _real=real: (calls.append(_name), _real(*a))[1])
    write_plan(folder / "a.plan", parts.manifest, parts.members)
    write_plan(folder / "a.plan", parts.manifest, parts.members, force=True)
    assert calls == ["fsync", "link", "fsync", "fsync", "replace", "fsync"]


def test_a_folder_that_is_missing_or_a_file(parts: Any, folder: Path) -> None:
    with pytest.raises(PlanError, match=r"write '.*': file is not writable \(No such file or directory\)"):
        write_plan(folder / "none" / "cgn.plan", parts.manifest, parts.members)
    (folder / "file").write_bytes(b"")
    with pytest.raises(PlanError, match=r"file is not writable \(Not a directory\)"):
        write_plan(folder / "file" / "cgn.plan", parts.manifest, parts.members)
    with pytest.raises(PlanError, match=r"file is not writable \(Is a directory\)"):
        write_plan(folder, parts.manifest, parts.members, force=True)


def test_a_name_that_is_too_long(parts: Any, folder: Path) -> None:
    """The temporary name is longer than the target's, but must not be what limits it."""
    write_plan(folder / ("x" * 255), parts.manifest, parts.members)
    with pytest.raises(PlanError, match=r"file is not writable \(File name too long\)"):
        write_plan(folder / ("x" * 256), parts.manifest, parts.members)


def test_a_relative_target(parts: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    write_plan("cgn.plan", parts.manifest, parts.members)
    assert os.listdir(folder) == ["cgn.plan"]


def test_what_is_written_is_what_the_reader_accepts(parts: Any, folder: Path) -> None:
    parts.members["mechanisms/shape.onnx"] = b"\x08\x08"
    with pytest.raises(
        PlanError, match=r"write '.*': mechanism 'shape': graph: graph member is without a graph"
    ):
        write_plan(folder / "cgn.plan", parts.manifest, parts.members)
    assert os.listdir(folder) == []


def test_arrays_are_members_too(parts: Any, folder: Path) -> None:
    table = np.arange(9, dtype="<f4").reshape(3, 3)
    write_plan(folder / "a.plan", parts.manifest, {**parts.members, "mechanisms/shape.embedding": table})
    np.testing.assert_array_equal(Plan.open(folder / "a.plan").mechanisms["shape"].embedding, table)


@pytest.mark.parametrize("bad", ["text", 3, None, np.zeros((3, 3), "<f4")[:, ::2]])
def test_a_member_that_is_no_buffer(parts: Any, folder: Path, bad: Any) -> None:
    with pytest.raises(
        TypeError, match=r"write_plan: member 'engines/x' is .*, expected a C-contiguous buffer"
    ):
        write_plan(folder / "a.plan", parts.manifest, {**parts.members, "engines/x": bad})
    assert os.listdir(folder) == []


def test_the_file_has_ordinary_rights(parts: Any, folder: Path) -> None:
    write_plan(folder / "a.plan", parts.manifest, parts.members)
    (folder / "b").write_bytes(b"")
    assert (folder / "a.plan").stat().st_mode == (folder / "b").stat().st_mode
    assert (folder / "a.plan").stat().st_nlink == 1


def test_two_writers_at_once(parts: Any, folder: Path) -> None:
    """One wins; the other is told, or replaces it when it may."""
    results: list[str] = []

    def write(force: bool) -> None:
        try:
            results.append(write_plan(folder / "a.plan", parts.manifest, parts.members, force=force))
        except PlanError as error:
            results.append(str(error))

    for force in (False, True):
        threads = [threading.Thread(target=write, args=(force,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    digests = [result for result in results if len(result) == 64]
    assert len(digests) == 5
    assert len(set(digests)) == 1
    assert sum("existing file" in result for result in results) == 3
    assert os.listdir(folder) == ["a.plan"]
