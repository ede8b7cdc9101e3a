"""The same shards by a local Ray, a worker of which is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cgnrt import shards

from .conftest import contents

pytestmark = pytest.mark.extended

OPTIONS = ["-n", "4000", "--shard-size", "250", "--image", "png"]


def command(plan: Path, folder: Path, *options: str) -> subprocess.Popen[str]:
    code = "import sys; from cgnrt.cli import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.Popen(
        [sys.executable, "-c", code, "generate", str(plan), "-o", str(folder), *OPTIONS, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def actors(root: int) -> list[int]:
    """The processes below `root` that make shards."""
    parents: dict[int, int] = {}
    titles: dict[int, bytes] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                titles[int(entry.name)] = (entry / "cmdline").read_bytes()
            except OSError:
                continue

    def below(pid: int) -> bool:
        while pid in parents and pid != root:
            pid = parents[pid]
        return pid == root

    return [pid for pid, title in titles.items() if b"MapWorker" in title and below(pid)]


def listeners(pids: set[int]) -> list[str]:
    """Addresses, as the kernel writes them, on which these processes listen to other machines."""
    inodes = set()
    for pid in pids:
        for handle in Path(f"/proc/{pid}/fd").iterdir():
            try:
                target = os.readlink(handle)
            except OSError:
                continue
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            address = fields[1].partition(":")[0]
            loopback = address.endswith("0100007F") or address == "00000000000000000000000001000000"
            if fields[3] == "0A" and fields[9] in inodes and not loopback:
                found.append(fields[1])
    return found


def test_a_killed_worker(demo_plan: Path, tmp_path: Path) -> None:
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    with command(demo_plan, whole) as process:
        assert process.wait(120) == 0
    with command(demo_plan, torn, "--engine", "ray") as process:
        deadline = time.monotonic() + 120
        while len(list(torn.glob("*.tar"))) < 2 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        victims = actors(process.pid)
        assert victims
        open_to_all = listeners({process.pid, *victims})
        os.kill(victims[0], signal.SIGKILL)
        before = len(list(torn.glob("*.tar")))
        out, err = process.communicate(timeout=180)
    assert process.returncode == 0, err
    assert out == f"{torn}\n"
    assert before < 16
    assert open_to_all == []
    assert contents(torn) == contents(whole)
    assert shards.verify(torn) == []


def test_what_fails_in_a_worker_arrives(demo_plan: Path, tmp_path: Path) -> None:
    (tmp_path / "shard-000000.tar").mkdir(parents=True)
    with command(demo_plan, tmp_path, "--engine", "ray", "--force") as process:
        _, err = process.communicate(timeout=180)
    assert process.returncode == 1
    assert f"write '{tmp_path / 'shard-000000.tar'}': Is a directory, expected a writable place" in err
