"""`cgnrt generate` as a user types it, and what it refuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cgnrt import MissingDependencyError, shards
from cgnrt.cli import main
from cgnrt.shards import job

from .conftest import Make, contents


def test_a_small_data_set(
    demo_plan: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "out"
    given = ["generate", str(demo_plan), "-n", "70", "-o", str(out), "--shard-size", "16", "--seed", "5"]
    assert main([*given, "--processes", "1"]) == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == (f"{out}\n", "")
    assert contents(out) == contents(whole)


def test_sampling_options(demo_plan: Path, tmp_path: Path) -> None:
    given = ["generate", str(demo_plan), "-n", "8", "-o", str(tmp_path), "--processes", "1"]
    given += ["--do", "texture=3", "--classes", "shape=1,2", "--pool", "4", "--start", "9", "--refresh", "3"]
    assert main([*given, "--format", "npz"]) == 0
    samples = json.loads((tmp_path / "manifest.json").read_text())["samples"]
    assert samples == {
        "n": 8,
        "start": 9,
        "seed": 0,
        "do": {"texture": 3},
        "labels": "independent",
        "classes": {"shape": [1, 2]},
        "truncation": None,
        "pool": [4, 4, 4],
        "refresh": 3,
        "per_noise": 1,
    }


def test_distinct_classes(demo_plan: Path, tmp_path: Path) -> None:
    given = ["generate", str(demo_plan), "-n", "40", "-o", str(tmp_path), "--processes", "1", "--distinct"]
    assert main([*given, "--format", "npz"]) == 0
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["samples"]["distinct"] is True
    names = manifest["classes"]
    with np.load(tmp_path / "shard-000000.npz") as shard:
        pairs = zip(shard["labels_texture"], shard["labels_background"], strict=True)
        assert all(names["texture"][one] != names["background"][other] for one, other in pairs)


def test_progress_is_shown_on_a_terminal_alone(
    demo_plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    given = ["generate", str(demo_plan), "-n", "8", "-o", str(tmp_path), "--processes", "1"]
    assert main(given) == 0
    assert "8/8" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": -1}, "n is -1, expected 0 or more"),
        ({"start": 2**63 - 1}, "start \\+ n is"),
        ({"shard_size": 0}, "shard_size is 0, expected an int of at least 1"),
        ({"processes": 0}, "processes is 0, expected an int of at least 1"),
        ({"threads": 0}, "threads is 0, expected an int of at least 1"),
        ({"format": "zip"}, "format is 'zip', expected one of webdataset, parquet, npz"),
        ({"image": "gif"}, "image is 'gif', expected one of webp, png, jpeg, raw for format webdataset"),
        ({"format": "npz", "image": "png"}, "image is 'png', expected raw for format npz"),
        ({"image": "png", "quality": 9}, "quality is 9, expected None: png is lossless"),
        ({"image": "jpeg", "quality": 101}, "quality is 101, expected 1..100 for jpeg"),
        ({"engine": "spark"}, "engine is 'spark', expected one of processes, ray"),
        ({"do": {"texture": 99}}, r"do\['texture'\] is 99, expected 0..9"),
        ({"pool": 3, "per_noise": 2}, "per_noise is set beside a pool"),
        ({"refresh": 3}, "refresh is 3 without a pool"),
        ({"truncation": 0.5}, "this plan has no truncation"),
        ({"backend": "tvm"}, "backend is 'tvm'"),
        ({"do": {"dx": 5}}, "place dx is 5, expected"),
    ],
    ids=str,
)
def test_bad_options_leave_nothing(make: Make, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(tmp_path / "out", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        (
            "ray",
            {"engine": "ray"},
            r"generate, --engine ray: package 'ray' is not installed\. Run: pip install 'cgnrt\[ray\]'",
        ),
        (
            "pyarrow",
            {"format": "parquet"},
            r"generate, --format parquet: package 'pyarrow' is not installed\. Run: pip install 'cgnrt\[parquet\]'",
        ),
    ],
)
def test_a_missing_package_is_named(
    make: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: str,
    options: dict[str, Any],
    message: str,
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", raising=False)
    with pytest.raises(MissingDependencyError, match=message):
        make(tmp_path / "out", **options)
    assert not list(tmp_path.iterdir())


def test_a_large_plan_takes_all_cores_at_once(demo_plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "available_cores", lambda: 6)
    assert job._threads(demo_plan, None) == 1
    monkeypatch.setattr(job, "_SMALL_PLAN_BYTES", 1000)
    assert job._threads(demo_plan, None) == 6
    assert job._threads(demo_plan, 2) == 3


def test_the_manifest_reads_back(whole: Path, make: Make) -> None:
    assert make(whole) == shards.Manifest.read(whole)
