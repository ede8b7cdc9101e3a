"""The cores that a process may use: its affinity, and the quotas of its container, of which these trees are copies."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from cgnrt import _core, ops
from cgnrt._support import machine

V2 = "29 24 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "30 24 0:27 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"
    "31 30 0:28 / /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
    "32 30 0:29 / /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n"
)


def make(root: Path, mounts: str, cgroups: str, files: dict[str, str]) -> str:
    """A system's files: the mounts and cgroups of the process, and files below /sys/fs/cgroup."""
    process = root / "proc" / "self"
    process.mkdir(parents=True)
    (process / "mountinfo").write_text("24 1 0:1 / / rw - overlay overlay rw,cpu\n" + mounts)
    (process / "cgroup").write_text(cgroups)
    for name, text in files.items():
        path = root / "sys" / "fs" / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root)


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({"app/job/cpu.max": "200000 100000\n"}, 2),
        ({"app/job/cpu.max": "50000 100000\n"}, 1),  # half a CPU is one thread
        ({"app/job/cpu.max": "150000 100000\n"}, 2),
        ({"app/job/cpu.max": "2001 1000\n"}, 3),
        ({"app/job/cpu.max": "max 100000\n"}, None),
        ({"app/job/cpu.max": "max 100000\n", "app/cpu.max": "300000 100000\n"}, 3),  # of the one around it
        ({"app/job/cpu.max": "400000 100000\n", "app/cpu.max": "300000 100000\n"}, 3),
        ({"app/job/cpu.max": "100000 100000\n", "app/cpu.max": "max 100000\n"}, 1),
        ({"app/cpu.max": "300000 100000\n"}, 3),  # the process's own has no cpu controller
        ({"cpu.max": "600000 100000\n"}, 6),
        ({"other/cpu.max": "100000 100000\n"}, None),
        ({"app/job/cpu.max": ""}, None),
        ({"app/job/cpu.max": "200000 0\n"}, None),
        ({"app/job/cpu.max": "no number\n"}, None),
        ({}, None),
    ],
)
def test_quotas_of_version_2(tmp_path: Path, files: dict[str, str], cpus: int | None) -> None:
    assert _core.cpu_quota(make(tmp_path, V2, "0::/app/job\n", files)) == cpus


def quota(folder: str, quota_us: int, period_us: int = 100_000) -> dict[str, str]:
    """The files of one cgroup of version 1."""
    return {
        f"cpu,cpuacct/{folder}cpu.cfs_quota_us": f"{quota_us}\n",
        f"cpu,cpuacct/{folder}cpu.cfs_period_us": f"{period_us}\n",
    }


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        (quota("app/job/", 200_000), 2),
        (quota("app/job/", -1), None),
        (quota("app/job/", -1) | quota("app/", 250_000), 3),
        (quota("app/job/", 50_000, 10_000) | quota("", 400_000), 4),
        (quota("app/job/", 0), None),
    ],
)
def test_quotas_of_version_1(tmp_path: Path, files: dict[str, str], cpus: int | None) -> None:
    cgroups = "8:memory:/elsewhere\n4:cpu,cpuacct:/app/job\n1:name=systemd:/init.scope\n0::/app\n"
    assert _core.cpu_quota(make(tmp_path, V1, cgroups, files)) == cpus


@pytest.mark.parametrize("path", ["/docker/abc", "/docker/abc/job", "/docker/abcdef", "/../../docker/abc"])
def test_a_container_that_sees_its_own_cgroup_as_the_mount(tmp_path: Path, path: str) -> None:
    """The host's path is in /proc/self/cgroup, and the container's part of it is mounted."""
    mounts = "31 30 0:28 /docker/abc /sys/fs/cgroup/cpu\\054cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n"
    root = make(tmp_path, mounts, f"4:cpu,cpuacct:{path}\n", quota("", 200_000) | quota("job/", 100_000))
    assert _core.cpu_quota(root) == (1 if path.endswith("/job") else 2)


def test_a_private_namespace(tmp_path: Path) -> None:
    assert _core.cpu_quota(make(tmp_path, V2, "0::/\n", {"cpu.max": "200000 100000\n"})) == 2


def test_both_versions_at_once(tmp_path: Path) -> None:
    mounts = V1 + "33 30 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
    files = quota("app/", 300_000) | {"unified/app/cpu.max": "200000 100000\n"}
    assert _core.cpu_quota(make(tmp_path, mounts, "4:cpu,cpuacct:/app\n0::/app\n", files)) == 2


def test_a_mount_with_a_space_in_its_name(tmp_path: Path) -> None:
    mounts = V2.replace("/sys/fs/cgroup", "/sys/fs/cgroup/a\\040b")
    assert _core.cpu_quota(make(tmp_path, mounts, "0::/\n", {"a b/cpu.max": "100000 100000\n"})) == 1


def test_no_cgroups(tmp_path: Path) -> None:
    assert _core.cpu_quota(str(tmp_path)) is None
    assert _core.cpu_quota(make(tmp_path, "", "0::/\n", {})) is None


def test_everything_counts_the_same_cores() -> None:
    allowed = len(os.sched_getaffinity(0))
    expected = min(allowed, _core.cpu_quota("") or allowed)
    assert machine.available_cores() == ops.build_info()["cpu"]["cpus"] == expected
    assert machine.describe_machine()["cores"] == expected


def test_torch_takes_no_more_threads_than_the_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    torch = SimpleNamespace(get_num_threads=lambda: 64, set_num_threads=taken.append)
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr(machine, "available_cores", lambda: 2)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    machine.limit_torch_threads()
    monkeypatch.setattr(machine, "available_cores", lambda: 128)
    machine.limit_torch_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    monkeypatch.setattr(machine, "available_cores", lambda: 2)
    machine.limit_torch_threads()
    assert taken == [2]
