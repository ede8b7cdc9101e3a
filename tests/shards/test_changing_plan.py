"""A plan that is overwritten or cut short while a data set is made: the data set is of one plan, or there is none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cgnrt import Generator, Plan, PlanError, shards
from cgnrt.cli import main
from cgnrt.plan import archive
from cgnrt.shards import processes, run
from cgnrt.shards.job import Job

from .conftest import SHARD_SIZE, Make, N, contents

Change = Callable[[Path], None]


def overwrite(path: Path) -> None:
    """By another plan, byte by byte, as `cp` does."""
    other = path.with_name("colored.plan").read_bytes()
    with path.open("r+b") as file:
        file.write(other)
        file.truncate()


def poke(path: Path) -> None:
    """One number of the weights."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\x42")


def cut(path: Path) -> None:
    os.truncate(path, 0)


CHANGES = pytest.mark.parametrize("change", [overwrite, poke, cut])


@pytest.fixture
def plan(root: Path, tmp_path: Path) -> Path:
    for name in ("colored.plan", "double-colored.plan"):
        shutil.copyfile(root / "plans" / name, tmp_path / name)
    return tmp_path / "double-colored.plan"


@pytest.fixture(params=["memory", "file"])
def kind_of_copy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of small and of large plans."""
    if request.param == "file":
        monkeypatch.setattr(archive, "_IN_MEMORY_BYTES", 0)


def after_the_first(monkeypatch: pytest.MonkeyPatch, change: Change, plan: Path) -> None:
    """Change the plan when one shard is finished."""
    for name in ("make_here", "make_in_processes"):
        executor = getattr(processes, name)

        def wrapped(*arguments: Any, executor: Any = executor) -> Iterator[shards.ShardRecord]:
            for number, record in enumerate(executor(*arguments)):
                if number == 0:
                    change(plan)
                yield record

        monkeypatch.setattr(run, name, wrapped)


@CHANGES
@pytest.mark.usefixtures("kind_of_copy")
def test_one_process(
    make: Make, whole: Path, plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Change
) -> None:
    after_the_first(monkeypatch, change, plan)
    make(tmp_path / "out", plan=plan)
    assert contents(tmp_path / "out") == contents(whole)


@CHANGES
def test_several_processes(
    make: Make, whole: Path, plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Change
) -> None:
    after_the_first(monkeypatch, change, plan)
    try:
        make(tmp_path / "out", plan=plan, processes=2)
    except PlanError as error:  # the second worker came too late
        assert "double-colored.plan" in str(error)  # noqa: PT017
        monkeypatch.undo()
        make(tmp_path / "out", note=print)
    assert contents(tmp_path / "out") == contents(whole)


def test_the_command(
    make: Make, whole: Path, plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    after_the_first(monkeypatch, overwrite, plan)
    sizes = ["-n", str(N), "--shard-size", str(SHARD_SIZE), "--seed", "5"]
    assert main(["generate", str(plan), "-o", str(tmp_path / "out"), *sizes, "--processes", "1"]) == 0
    assert contents(tmp_path / "out") == contents(whole)


@CHANGES
def test_a_worker_that_comes_later(
    make: Make, plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Change
) -> None:
    jobs: list[Job] = []
    monkeypatch.setattr(run, "make_here", lambda job, *_: jobs.append(job) or iter(()))
    with pytest.raises(KeyError):
        make(tmp_path / "out", plan=plan)
    job = jobs[0]
    object.__setattr__(job, "generator", None)  # as it is after the way to another process
    assert job.open().plan.digest == job.digest
    change(plan)
    with pytest.raises(PlanError):
        job.open()


@CHANGES
def test_an_open_plan(
    make: Make, plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Change
) -> None:
    """It is mapped: what another program does to it is noticed before a shard is recorded."""
    with Plan.open(plan) as opened:
        after_the_first(monkeypatch, change, plan)
        with pytest.raises(PlanError, match=r"read '.*double-colored\.plan': .*replace plans by renaming"):
            make(tmp_path / "out", plan=opened)
    assert [name for name in contents(tmp_path / "out") if name.startswith("shard")] == ["shard-000000.tar"]


@CHANGES
def test_streams_and_batches(plan: Path, change: Change) -> None:
    gen = Generator(plan)
    batches = gen.batches(64, 16, seed=0)
    stream = gen.stream(16, seed=0, prefetch=0)
    next(batches), next(stream)
    change(plan)
    for following in (batches, stream):
        with pytest.raises(PlanError, match="replace plans by renaming"):
            next(following)
    with pytest.raises(PlanError, match="replace plans by renaming"):
        gen(texture=3, seed=0)
    with pytest.raises(PlanError, match="replace plans by renaming"):
        gen.sample(4, seed=0, pool=4)
    stream.close()


def test_what_does_not_change_the_bytes_is_no_error(plan: Path, tmp_path: Path) -> None:
    gen = Generator(plan)
    first = gen.sample(4, seed=0)
    os.utime(plan)
    plan.chmod(0o444)
    gen.sample(4, seed=0)
    plan.rename(tmp_path / "moved.plan")
    shutil.copyfile(tmp_path / "colored.plan", plan)  # another file of its name
    assert (gen.sample(4, seed=0).images == first.images).all()
    (tmp_path / "moved.plan").unlink()
    assert (gen.sample(4, seed=0).images == first.images).all()


def test_no_room_for_a_copy(plan: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(archive, "_IN_MEMORY_BYTES", 0)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nothing"))
    with pytest.raises(PlanError, match=r"private copy is not written to .*Set TMPDIR to a folder with room"):
        Plan.open(plan, private=True)


def test_a_private_copy_is_read_only_and_complete(plan: Path, kind_of_copy: None) -> None:
    with Plan.open(plan) as mapped, Plan.open(plan, private=True) as copy:
        assert copy.digest == mapped.digest
        assert all(bytes(copy.member(name)) == bytes(mapped.member(name)) for name in mapped.members)
        with pytest.raises(TypeError):
            copy.member("manifest.json")[0] = 0
        copy.release_pages()
        copy.check_unchanged()
