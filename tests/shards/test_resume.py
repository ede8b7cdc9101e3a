"""Stopped at any moment and started again: nothing lost, doubled or half-written, and the same bytes."""

from __future__ import annotations

import json
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cgnrt import shards
from cgnrt.cli import main
from cgnrt.errors import CgnrtError, PlanError
from cgnrt.plan import Plan
from cgnrt.request.options import SampleOptions
from cgnrt.shards import journal, maker, run
from cgnrt.shards.folder import LOCK, locked
from cgnrt.shards.formats import choose_storage
from cgnrt.shards.job import EngineChoice, resolve

from .conftest import Make, contents

# A second's work for two processes, once they are up.
LONG = ["-n", "6000", "--shard-size", "300", "--pool", "20", "--image", "png", "--processes", "2"]


def command(plan: Path, folder: Path, *options: str) -> subprocess.Popen[str]:
    code = "import sys; from cgnrt.cli import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.Popen(
        [sys.executable, "-c", code, "generate", str(plan), "-o", str(folder), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition: Any, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not condition() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)


def stop_after(make: Make, folder: Path, count: int, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
    """A run that fails when it has finished `count` shards."""
    made = []
    original = maker.ShardMaker.make

    def failing(self: Any, *arguments: Any) -> Any:
        if len(made) == count:
            raise CgnrtError("stopped")
        made.append(None)
        return original(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(maker.ShardMaker, "make", failing)
        with pytest.raises(CgnrtError, match="stopped"):
            make(folder, **options)


def test_killed_at_random_moments(demo_plan: Path, tmp_path: Path) -> None:
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    began = time.monotonic()
    with command(demo_plan, whole, *LONG) as process:
        assert process.wait(120) == 0
    took = time.monotonic() - began
    draw = random.Random(6)
    kills = 0
    for _ in range(3):
        with command(demo_plan, torn, *LONG) as process:
            wait_for((torn / journal.JOURNAL).exists, process)
            time.sleep(draw.uniform(0, took / 3))
            process.kill()
            kills += process.wait() == -signal.SIGKILL
    assert kills
    with command(demo_plan, torn, *LONG) as process:
        assert process.wait(120) == 0
    assert contents(torn) == contents(whole)
    assert shards.verify(torn) == []


def test_workers_end_with_a_killed_parent(demo_plan: Path, tmp_path: Path) -> None:
    with command(demo_plan, tmp_path, *LONG, "--force") as process:
        wait_for(lambda: list(tmp_path.glob("*.tar")), process)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.kill()
        assert process.wait() == -signal.SIGKILL
        wait_for(lambda: not any(_alive(pid) for pid in children), process)
        deadline = time.monotonic() + 20
        while any(map(_alive, children)) and time.monotonic() < deadline:
            time.sleep(0.01)
    assert len(children) >= 2
    assert not any(map(_alive, children))


def _alive(pid: str) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def test_a_terminated_run_leaves_finished_shards_alone(demo_plan: Path, tmp_path: Path) -> None:
    with command(demo_plan, tmp_path, *LONG) as process:
        wait_for(lambda: list(tmp_path.glob("*.tar")), process)
        process.terminate()
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (1, "", "cgnrt generate: interrupted\n")
    names = set(contents(tmp_path))
    assert journal.JOURNAL in names
    assert all(name.startswith("shard-") for name in names - {journal.JOURNAL})


def test_a_killed_worker_is_told_and_gone_on_from(demo_plan: Path, tmp_path: Path) -> None:
    with command(demo_plan, tmp_path, *LONG) as process:
        wait_for(lambda: list(tmp_path.glob("*.tar")), process)
        for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(int(pid), signal.SIGKILL)
                break
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "ended by signal 9 before its shard was finished. Run the same command again" in err
    assert not list(tmp_path.glob(".*"))
    assert main(["generate", str(demo_plan), "-o", str(tmp_path), *LONG]) == 0
    assert shards.verify(tmp_path) == []


def test_goes_on_where_it_stopped(
    make: Make, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_after(make, tmp_path, 3, monkeypatch)
    assert set(contents(tmp_path)) == {journal.JOURNAL, *(f"shard-00000{k}.tar" for k in range(3))}
    before = [(tmp_path / f"shard-00000{k}.tar").stat().st_mtime_ns for k in range(3)]
    make(tmp_path, processes=2)
    assert [(tmp_path / f"shard-00000{k}.tar").stat().st_mtime_ns for k in range(3)] == before
    assert contents(tmp_path) == contents(whole)


@pytest.mark.parametrize("cut", [1, 40, 5000])
def test_a_torn_journal(
    make: Make, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    stop_after(make, tmp_path, 3, monkeypatch)
    path = tmp_path / journal.JOURNAL
    raw = path.read_bytes()
    head = raw.index(b"\n") + 1
    path.write_bytes(raw[: max(head, len(raw) - cut)])
    found = journal.read(tmp_path)
    assert found is not None
    assert len(found.shards) == (2 if cut < 5000 else 0)
    make(tmp_path)
    assert contents(tmp_path) == contents(whole)


def test_a_journal_with_garbage_at_its_end(
    make: Make, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_after(make, tmp_path, 3, monkeypatch)
    with (tmp_path / journal.JOURNAL).open("ab") as file:
        file.write(bytes(100) + b'\n{"name": "../../etc/passwd"}\n')
    make(tmp_path)
    assert contents(tmp_path) == contents(whole)


def test_a_peek_leaves_the_line_that_another_run_is_writing(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_after(make, tmp_path, 2, monkeypatch)
    path = tmp_path / journal.JOURNAL
    with path.open("ab") as file:
        file.write(b'{"name": "sha')
    raw = path.read_bytes()
    with locked(tmp_path), pytest.raises(CgnrtError, match="in use by another run"):
        make(tmp_path)
    assert path.read_bytes() == raw


def test_killed_between_manifest_and_journal(make: Make, whole: Path, tmp_path: Path) -> None:
    make(tmp_path)
    journal.begin(tmp_path, shards.Manifest.read(tmp_path))
    assert shards.verify(tmp_path) == [
        "the run is not finished (5 of 5 shards are); the same command resumes it"
    ]
    make(tmp_path)
    assert contents(tmp_path) == contents(whole)


def test_a_finished_data_set_is_left_alone(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make(tmp_path)
    monkeypatch.setattr(run, "make_here", None)
    assert make(tmp_path) == first
    assert make(tmp_path, force=True) == first


@pytest.mark.parametrize("damage", ["missing", "short"])
def test_a_lost_shard_is_made_again(make: Make, whole: Path, tmp_path: Path, damage: str) -> None:
    make(tmp_path)
    shard = tmp_path / "shard-000001.tar"
    if damage == "missing":
        shard.unlink()
    else:
        os.truncate(shard, 100)
    told: list[str] = []
    make(tmp_path, note=told.append)
    assert told == ["shard-000001.tar is missing or changed: it is made again"]
    assert contents(tmp_path) == contents(whole)


def test_leftovers_of_a_killed_run_are_taken_away(make: Make, whole: Path, tmp_path: Path) -> None:
    for name in (".shard-000002.tar.77.0123abcd.tmp", ".manifest.json.77.0123abcd.tmp", LOCK):
        (tmp_path / name).write_text("pid 77")
    make(tmp_path)
    assert contents(tmp_path) == contents(whole)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 6}, "samples.seed is 6, expected 5"),
        ({"n": 71}, "samples.n is 71, expected 70"),
        ({"image": "webp", "quality": 80}, "storage.quality is 80, expected None"),
        ({"shard_size": 10}, "storage.shard_size is 10, expected 16"),
        ({"threads": 2}, "engine.threads is 2, expected 1"),
        ({"do": {"texture": 1}}, r"samples.do is \{'texture': 1\}, expected \{\}"),
        ({"pool": 4, "seed": 1}, r"samples.pool is \[4, 4, 4\], expected None; samples.seed is 1"),
    ],
    ids=str,
)
def test_other_options_are_refused(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], message: str
) -> None:
    stop_after(make, tmp_path, 1, monkeypatch)
    before = contents(tmp_path)
    with pytest.raises(CgnrtError, match=rf"{message}.* or --force to start again"):
        make(tmp_path, **options)
    assert contents(tmp_path) == before


def test_another_plan_is_refused(make: Make, tmp_path: Path, root: Path) -> None:
    make(tmp_path)
    with pytest.raises(CgnrtError, match=r"plan.sha256 is \w{64}, expected \w{64}"):
        make(tmp_path, plan=root / "plans" / "colored.plan")


def test_a_plan_replaced_under_a_run(demo_plan: Path, tmp_path: Path, root: Path) -> None:
    plan = tmp_path / "a.plan"
    plan.write_bytes(demo_plan.read_bytes())
    with Plan.open(plan) as opened:
        job = resolve(
            opened,
            4,
            0,
            options=SampleOptions(seed=0),
            engine=EngineChoice("auto", "auto", "auto", None),
            storage=choose_storage("npz", None, None, masks=False, shard_size=4),
            processes=None,
            before=None,
        )
        assert maker.ShardMaker(job)  # has the file as it was
    elsewhere = pickle.loads(pickle.dumps(job))  # as another process gets it
    plan.unlink()
    plan.write_bytes((root / "plans" / "colored.plan").read_bytes())
    with pytest.raises(PlanError, match="The file was replaced since this run was started"):
        maker.ShardMaker(elsewhere)


def test_options_left_open_are_those_of_the_data_set(make: Make, tmp_path: Path) -> None:
    first = make(tmp_path, threads=2, backend="openvino", precision="fp32")
    (tmp_path / "shard-000000.tar").unlink()
    assert make(tmp_path, note=print).header["engine"] == first.header["engine"]
    assert first.header["engine"]["backend"] == "openvino"


def test_force_begins_anew(make: Make, whole: Path, tmp_path: Path) -> None:
    make(tmp_path, seed=1, format="parquet")
    make(tmp_path, force=True)
    assert contents(tmp_path) == contents(whole)


def test_libraries_that_changed_are_told_and_recorded(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_after(make, tmp_path, 2, monkeypatch)
    path = tmp_path / journal.JOURNAL
    lines = path.read_text().splitlines()
    made_with = json.loads(lines[1])
    made_with["made_with"]["pillow"] = "0.1"
    path.write_text("\n".join([lines[0], json.dumps(made_with), *lines[2:]]) + "\n")
    told: list[str] = []
    manifest = make(tmp_path, note=told.append)
    assert len(told) == 1
    assert told[0].startswith("pillow is ")
    assert [entry["pillow"] == "0.1" for entry in manifest.made_with] == [True, False]
    assert shards.verify(tmp_path) == []
