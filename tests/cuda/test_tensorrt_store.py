"""Where engines lie, in the local cache and in plans, and which of them fits."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cgnrt.backends.tensorrt.cache import CacheKey, folder, read_entry, timing_cache, write_entry
from cgnrt.backends.tensorrt.ready import ReadyEngines, UnfitError, find_ready, list_ready
from cgnrt.backends.tensorrt.target import Batches, Target, graph_digest, slug
from cgnrt.cli.inspect import describe, to_json
from cgnrt.plan import MECHANISMS, Plan, write_plan

TARGET = Target("tensorrt", "11.4.1.2", "sm_90", "NVIDIA H100 80GB HBM3")
KEY = CacheKey("shape", "ab" * 32, "fp16", Batches(1, 32, 128), TARGET)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CGNRT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


# Batches.


@pytest.mark.parametrize(
    ("sizes", "profile"),
    [([32], (32, 32, 32)), ([1, 128], (1, 128, 128)), ([1, 32, 128], (1, 32, 128)), ((4, 4, 4), (4, 4, 4))],
)
def test_one_to_three_sizes_make_a_profile(sizes: Any, profile: tuple[int, ...]) -> None:
    assert Batches.of(sizes).sizes == profile


@pytest.mark.parametrize("sizes", [[], [0], [2, 1], [1, 2, 3, 4], [1.5], [True], [1 << 17], ["1"]])
def test_other_sizes_are_refused(sizes: Any) -> None:
    with pytest.raises(
        ValueError, match=r"build engines: batch is .*, expected one to three sizes of 1..65536"
    ):
        Batches.of(sizes)


def test_which_profile_covers_which() -> None:
    assert Batches(1, 32, 128).covers(Batches(1, 16, 64))
    assert not Batches(2, 32, 128).covers(Batches(1, 16, 64))
    assert not Batches(1, 32, 128).covers(Batches(1, 16, 129))


# The target.


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("NVIDIA H100 80GB HBM3", "nvidia-h100-80gb-hbm3"),
        (
            "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition",
            "nvidia-rtx-pro-6000-blackwell-max-q-work",
        ),
        ("../..", "unnamed"),
        ("  ", "unnamed"),
    ],
)
def test_cards_have_names_that_files_may_have(name: str, expected: str) -> None:
    assert slug(name) == expected


def test_the_longest_member_name_is_short_enough() -> None:
    target = Target("tensorrt_rtx", "10.100.100.1000", "sm_121", "N" * 200)
    assert len(ReadyEngines(target, "fp16", Batches(1, 1, 1), {}).member("background")) <= 128


# The cache.


def test_what_is_written_is_read(cache: Path) -> None:
    assert read_entry(KEY) is None
    write_entry(KEY, b"engine\nwith lines")
    assert read_entry(KEY) == b"engine\nwith lines"
    assert [path.name for path in folder().iterdir()] == [KEY.path.name]
    assert folder() == cache / "tensorrt"
    assert folder().stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "other",
    [
        replace(KEY, digest="cd" * 32),
        replace(KEY, mechanism="texture"),
        replace(KEY, precision="bf16"),
        replace(KEY, batches=Batches(1, 32, 64)),
        replace(KEY, fp32_layers=("a",)),
        *(replace(KEY, target=replace(TARGET, **{field: "other"})) for field in TARGET.__dataclass_fields__),
    ],
)
def test_everything_that_matters_is_in_the_key(other: CacheKey) -> None:
    write_entry(KEY, b"engine")
    assert read_entry(other) is None
    # Nor is an entry taken for another's because of its name.
    other.path.write_bytes(KEY.path.read_bytes())
    assert read_entry(other) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[:-1],
        lambda raw: raw[:-1] + b"X",
        lambda raw: b"",
        lambda raw: b"X" + raw,
        lambda raw: raw + b"X",
    ],
)
def test_a_damaged_entry_is_none(damage: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture) -> None:
    write_entry(KEY, b"engine")
    KEY.path.write_bytes(damage(KEY.path.read_bytes()))
    with caplog.at_level(logging.WARNING):
        assert read_entry(KEY) is None
    assert "is damaged: it is built again" in caplog.text
    write_entry(KEY, b"new")
    assert read_entry(KEY) == b"new"


def test_another_user_s_entry_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_entry(KEY, b"engine")
    monkeypatch.setattr(os, "getuid", lambda: KEY.path.stat().st_uid + 1)
    with caplog.at_level(logging.WARNING):
        assert read_entry(KEY) is None
    assert "belongs to user" in caplog.text


def test_a_cache_that_cannot_be_written_is_no_error(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache.write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        write_entry(KEY, b"engine")
    assert "the engine was not kept" in caplog.text


def test_the_user_s_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CGNRT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert folder() == tmp_path / "xdg" / "cgnrt" / "tensorrt"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert folder() == tmp_path / ".cache" / "cgnrt" / "tensorrt"


def test_timings_are_by_target() -> None:
    assert timing_cache(TARGET).name == "tensorrt-11.4.1.2-sm_90-nvidia-h100-80gb-hbm3.timings"


# Ready engines.


def with_members(source: Path, target: Path, members: dict[str, bytes]) -> Path:
    with Plan.open(source) as plan:
        kept = {name: plan.member(name) for name in plan.members}
        write_plan(target, plan.manifest, kept | members)
        del kept
    return target


@pytest.fixture
def ready(golden_plan: Path) -> ReadyEngines:
    with Plan.open(golden_plan) as plan:
        graphs = {name: graph_digest(found) for name, found in plan.mechanisms.items()}
    return ReadyEngines(TARGET, "fp16", Batches(1, 8, 16), graphs, {"composite": 55.5})


@pytest.fixture
def plan(golden_plan: Path, ready: ReadyEngines, tmp_path: Path) -> Any:
    engines = {name: f"engine of {name}".encode() for name in MECHANISMS}
    path = with_members(golden_plan, tmp_path / "ready.plan", ready.members(engines))
    with Plan.open(path) as opened:
        yield opened


def find(plan: Plan, **changed: Any) -> ReadyEngines:
    asked = {"precision": "fp16", "target": TARGET, "batches": None} | changed
    return find_ready(plan, list(plan.mechanisms.values()), **asked)


def test_members_are_where_the_format_has_them(ready: ReadyEngines, plan: Plan) -> None:
    where = "engines/tensorrt-11.4.1.2/sm_90-nvidia-h100-80gb-hbm3/fp16"
    assert [name for name in plan.members if name.startswith("engines/")] == [
        f"{where}/engines.json",
        *(f"{where}/{name}.engine" for name in MECHANISMS),
    ]
    assert list_ready(plan) == [ready]


def test_what_fits_is_found(ready: ReadyEngines, plan: Plan) -> None:
    assert find(plan) == ready
    assert find(plan, batches=Batches(2, 4, 16)) == ready
    assert bytes(plan.member(ready.member("shape"))) == b"engine of shape"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (
            {"target": replace(TARGET, version="11.4.1.3")},
            r"engines for tensorrt 11\.4\.1\.2 on NVIDIA H100 80GB HBM3 \(sm_90\); this is tensorrt 11\.4\.1\.3 on NV",
        ),
        ({"target": replace(TARGET, architecture="sm_100")}, r"this is .* \(sm_100\)"),
        (
            {"target": replace(TARGET, device="NVIDIA H200")},
            r"this is tensorrt 11\.4\.1\.2 on NVIDIA H200 \(sm_90\)",
        ),
        ({"target": replace(TARGET, library="tensorrt_rtx")}, "this is tensorrt_rtx 11"),
        ({"precision": "bf16"}, "engines for this card in fp16, not in bf16"),
        ({"batches": Batches(1, 8, 32)}, r"engines for batches of 1\.\.16, not of 1\.\.32"),
    ],
)
def test_what_does_not_fit_says_why(plan: Plan, changed: dict[str, Any], words: str) -> None:
    with pytest.raises(UnfitError, match=words):
        find(plan, **changed)


def test_inspect_lists_them(ready: ReadyEngines, plan: Plan, golden_plan: Path, tmp_path: Path) -> None:
    line = "fp16 (55.5 dB) for batches of 1..16: tensorrt 11.4.1.2 on NVIDIA H100 80GB HBM3 (sm_90)"
    changed = replace(ready, parity={"composite": {"psnr_db": 55.5}})
    path = with_members(golden_plan, tmp_path / "inspect.plan", changed.members({}))
    with Plan.open(path) as opened:
        assert f"engines\n  {line}\n" in describe(opened)
        assert to_json(opened)["engines"] == [changed.to_json()]
    assert "fp16 (not measured) for" in describe(plan)
    with Plan.open(golden_plan) as without:
        assert "engines" not in describe(without)
        assert to_json(without)["engines"] == []
    path = with_members(golden_plan, tmp_path / "bad.plan", {f"{ready.folder}/engines.json": b"{}"})
    with Plan.open(path) as bad:
        assert "engines.json': fields are not format" in describe(bad)


def test_a_plan_without_engines(golden_plan: Path) -> None:
    with Plan.open(golden_plan) as plan:
        assert list_ready(plan) == []
        with pytest.raises(UnfitError, match="no ready engines"):
            find(plan)


def test_an_engine_of_another_graph(golden_plan: Path, ready: ReadyEngines, tmp_path: Path) -> None:
    other = replace(ready, graphs={**ready.graphs, "texture": "00" * 32})
    engines = dict.fromkeys(MECHANISMS, b"engine")
    path = with_members(golden_plan, tmp_path / "other.plan", other.members(engines))
    with (
        Plan.open(path) as plan,
        pytest.raises(UnfitError, match=r"another graph than its own for .*'texture'"),
    ):
        find(plan)


def test_an_engine_that_is_missing(golden_plan: Path, ready: ReadyEngines, tmp_path: Path) -> None:
    path = with_members(golden_plan, tmp_path / "missing.plan", ready.members({"shape": b"engine"}))
    with (
        Plan.open(path) as plan,
        pytest.raises(UnfitError, match="no engine of mechanism 'texture' for this card"),
    ):
        find(plan)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda info: "text", "fields are not format"),
        (lambda info: {**info, "more": 1}, "fields are not format"),
        (lambda info: {**info, "format": 2}, "format is 2, expected 1"),
        (lambda info: {**info, "version": 11}, "are not all strings"),
        (lambda info: {**info, "batches": [1, 2]}, "expected three sizes in ascending order"),
        (lambda info: {**info, "batches": "123"}, "expected three sizes in ascending order"),
        (lambda info: {**info, "graphs": {}}, "graphs are not a digest for each mechanism"),
        (lambda info: {**info, "parity": 1}, "parity is not an object"),
        (lambda info: {**info, "device": "NVIDIA H200"}, "expected the folder that it lies in"),
    ],
)
def test_a_description_that_is_none(
    change: Callable[[Any], Any], words: str, golden_plan: Path, ready: ReadyEngines, tmp_path: Path
) -> None:
    members = ready.members(dict.fromkeys(MECHANISMS, b"engine"))
    name = f"{ready.folder}/engines.json"
    members[name] = json.dumps(change(json.loads(members[name]))).encode()
    path = with_members(golden_plan, tmp_path / "bad.plan", members)
    with (
        Plan.open(path) as plan,
        pytest.raises(UnfitError, match=f"not described as they should be: .*{words}"),
    ):
        find(plan)


def test_a_description_that_is_no_json(golden_plan: Path, ready: ReadyEngines, tmp_path: Path) -> None:
    path = with_members(golden_plan, tmp_path / "bad.plan", {f"{ready.folder}/engines.json": b"\xff"})
    with Plan.open(path) as plan, pytest.raises(UnfitError, match="it is not JSON that a plan may hold"):
        find(plan)
