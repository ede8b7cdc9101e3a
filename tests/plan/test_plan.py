"""What a plan gives once it is open, and the golden plan."""

from __future__ import annotations

import gc
import hashlib
import importlib.util
import mmap
import pickle
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cgnrt.errors import PlanError
from cgnrt.plan import (
    MECHANISMS,
    BankSource,
    CgnManifest,
    Plan,
    SaliencyPlan,
    external_initializers,
    write_plan,
)

GOLDEN = Path(__file__).parent / "golden"
# Digest and SHA-256 of the golden plans: of every version, and never made anew.
V1 = (
    "8e230311774c6760be03a9b45b2c3a4d3e846339de272beb70a14fb397b31e6d",
    "b7d9917a0368df13309f6e57ac439abb2e12da0de52dcbd5dab66f820b0803e5",
)
V2 = (
    "1d9af6adeec30dc2017264776d2272fdeb57d77406a8a1a8f599f3477eb37273",
    "9e5bddd177ec18257afe785a470497973de7ebc3272e53b3bb2d79efff613086",
)
V2_SALIENCY = (
    "91ab3653ce3a3eed01dbaf691caf4ab249b9c47d0864eb87df6b46496da4c884",
    "680c0a62b63a7b9a7ecf06e557bc9baef79137a013a579f281d2afaf8b50f386",
)


V3 = (
    "572dc690c04c3bf7595e3ddf19f4aecfb8948ba943701d6991f11b89aeff8ffc",
    "c5342918a52adfe880586399b2baee8c7f496d4d5bfcc2d7a61455b2c18b5b32",
)
V3_HALF = (
    "178440cee71ecc464cc9eff084cf944cc871ccdf67c0f67807219dcd3b668280",
    "d300da770574bd089bf1a4c565fdb9be999724a9abd45fa16c9041d2d1e1797e",
)
V3_SALIENCY = (
    "68611f6db28a02c9f312800d9714ee3e87b1ae4e846d6721a9819760fb15b310",
    "61b1e4179004e8b430cad7606888644d73160765bf97b2ebe84421719287244e",
)
V4 = (
    "cf43177efe58ff31fa8c14a99445ecd466d11a1a5a4fc05838b00ccbd3195d10",
    "fded0ce4a270ed1d3ab097931f8aee100783a85b6b07f8f344f91b3fd34505d4",
)
V4_HALF = (
    "4c372ff0381c1c7292924c177f97de1d3415b79a953621e612a8a393cce7712e",
    "a523bf96a9af0e226c2fdf8d66211199a45393ef4b5cbd5144d445d7473da91c",
)
V4_SALIENCY = (
    "0af987cf7e1360caf8c04eca67733fe7050e87a9c2df878a3ea42c60769aba34",
    "ef39055164189f9f67bb53fe8a1eb19ff1522a42eaea32d6f54b34988cdf408d",
)
V4_BANK = (
    "251d21ec3c86748436ece6b5dda6981835ae6959fe5155e0e0118813302865d8",
    "b0b72aa8c19f778372befe82f0649e3e348133198cefefdd4edfaf4f62708883",
)
V4_STREAMS = (
    "8c181f69fdc344664c0aea7164040170be58b63d6b338ce81ef6fe35b5d73ec7",
    "5aacd7e5aef8238668a965e2b80b6f394a8469e33f4df09f959a2d8d9321de7f",
)


@pytest.mark.parametrize(
    ("version", "name", "fixed"),
    [
        (1, "v1.plan", V1),
        (2, "v2.plan", V2),
        (3, "v3.plan", V3),
        (3, "v3-half.plan", V3_HALF),
        (4, "v4.plan", V4),
        (4, "v4-half.plan", V4_HALF),
    ],
)
def test_golden_plans_open_and_are_unchanged(version: int, name: str, fixed: tuple[str, str]) -> None:
    path = GOLDEN / name
    assert hashlib.sha256(path.read_bytes()).hexdigest() == fixed[1]
    with Plan.open(path) as plan:
        assert plan.digest == fixed[0]
        assert plan.manifest.format_version == version
        assert plan.manifest.kind == "cgn"
        assert tuple(plan.mechanisms) == MECHANISMS
        shape = plan.mechanisms["shape"]
        assert shape.classes == ("disc", "square", "cross")
        assert shape.spec.noise.size == 4
        assert (shape.spec.roll, plan.mechanisms["texture"].spec.roll) == (False, True)
        assert [spec.shape for spec in plan.mechanisms["texture"].spec.outputs] == [("n", 3, 8, 8)]


@pytest.mark.parametrize(
    ("version", "name", "fixed"),
    [
        (2, "v2-saliency.plan", V2_SALIENCY),
        (3, "v3-saliency.plan", V3_SALIENCY),
        (4, "v4-saliency.plan", V4_SALIENCY),
    ],
)
def test_golden_saliency_plans_open_and_are_unchanged(
    version: int, name: str, fixed: tuple[str, str]
) -> None:
    assert hashlib.sha256((GOLDEN / name).read_bytes()).hexdigest() == fixed[1]
    with SaliencyPlan.open(GOLDEN / name) as plan:
        assert plan.digest == fixed[0]
        assert (plan.manifest.format_version, plan.manifest.kind) == (version, "saliency")
        assert plan.network.spec.std == (0.229, 0.224, 0.225)
        assert [spec.shape for spec in plan.network.spec.outputs] == [("n", 1, 8, 8)]


def test_golden_bank_plan_opens_and_is_unchanged() -> None:
    path = GOLDEN / "v4-bank.plan"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == V4_BANK[1]
    with Plan.open(path) as plan:
        assert plan.digest == V4_BANK[0]
        assert not plan.networks
        assert tuple(plan.banks) == MECHANISMS
        texture = plan.banks["texture"]
        assert texture.pictures.shape == (7, 3, 8, 8)
        assert texture.labels.tolist() == [0, 0, 0, 1, 2, 2, 2]
        assert texture.weights is not None
        assert texture.weights.tolist() == [1, 2, 3, 4, 0, 5, 1]
        assert (texture.spec.range, plan.banks["shape"].spec.range) == ((-1, 1), (0, 1))
        assert texture.spec.sources == (BankSource("make_golden.py", 7, "0" * 64, "MIT"),)
        plan.verify_banks()


def test_golden_plan_of_streams_opens_and_is_unchanged() -> None:
    path = GOLDEN / "v4-bank-streams.plan"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == V4_STREAMS[1]
    with Plan.open(path) as plan:
        assert plan.digest == V4_STREAMS[0]
        assert [bank.spec.store for bank in plan.banks.values()] == ["webp", "webp", "jpeg"]
        assert plan.following == {"texture": "shape"}
        assert plan.banks["background"].read(np.arange(7)).shape == (7, 3, 8, 8)
        plan.verify_banks()


@pytest.mark.parametrize("version", [1, 2, 3])
def test_older_versions_differ_by_version_kind_and_storage_alone(
    version: int, golden_plan: Path, tmp_path: Path
) -> None:
    """And are written again as they were, for who has the manifest of an old plan."""
    with Plan.open(GOLDEN / f"v{version}.plan") as old, Plan.open(golden_plan) as new:
        found = old.manifest.to_dict() | {"format_version": 4, "kind": "cgn"}
        for spec in found["mechanisms"].values():
            spec |= {"kind": "graph", "storage": None}
        assert new.manifest.to_dict() == found
        members = {name: old.member(name) for name in old.members}
        assert members == {name: new.member(name) for name in new.members}
        for manifest in (old.manifest, old.manifest.to_dict()):
            write_plan(tmp_path / "again.plan", manifest, members, force=True)
            assert (tmp_path / "again.plan").read_bytes() == (GOLDEN / f"v{version}.plan").read_bytes()


def test_golden_script_makes_the_golden_plans(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("make_golden", GOLDEN / "make_golden.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, made in (
        ("v4.plan", module.make_plan()),
        ("v4-half.plan", module.make_plan(half=True)),
        ("v4-saliency.plan", module.make_saliency_plan()),
        ("v4-bank.plan", module.make_bank_plan()),
    ):
        write_plan(tmp_path / name, *made)
        assert (tmp_path / name).read_bytes() == (GOLDEN / name).read_bytes()


def test_any_zip_tool_reads_a_plan(golden_plan: Path) -> None:
    with zipfile.ZipFile(golden_plan) as archive, Plan.open(golden_plan) as plan:
        assert archive.testzip() is None
        assert archive.namelist() == ["manifest.json", *plan.members]
        for name in plan.members:
            assert archive.read(name) == plan.member(name)
        assert hashlib.sha256(archive.read("manifest.json")).hexdigest() == plan.digest


def test_members_are_aligned_read_only_and_in_place(golden_plan: Path) -> None:
    with Plan.open(golden_plan) as plan:
        for name in ("manifest.json", *plan.members):
            view = plan.member(name)
            assert view.readonly
            assert np.frombuffer(view, np.uint8).ctypes.data % 64 == 0
        shape = plan.mechanisms["shape"]
        assert shape.weights is not None
        assert shape.weights.readonly
        assert not shape.embedding.flags.writeable
        assert shape.embedding.dtype == np.float32
        assert shape.embedding.shape == (3, 3)
        raw = plan.member("mechanisms/shape.embedding")
        assert np.shares_memory(shape.embedding, np.frombuffer(raw, np.uint8))


def test_views_outlive_the_plan(golden_plan: Path) -> None:
    plan = Plan.open(golden_plan)
    mechanism, view = plan.mechanisms["shape"], plan.member("mechanisms/shape.weights")
    expected = bytes(view)
    plan.close()
    plan.close()  # twice does no harm
    del plan
    gc.collect()
    assert bytes(view) == expected
    assert np.isfinite(mechanism.embedding).all()


def test_a_closed_plan_says_so(golden_plan: Path) -> None:
    plan = Plan.open(golden_plan)
    plan.close()
    with pytest.raises(ValueError, match="is closed"):
        plan.member("manifest.json")
    with pytest.raises(ValueError, match="is closed"):
        _ = plan.mechanisms


def test_closing_unmaps_when_no_view_is_left(golden_plan: Path) -> None:
    def mapped() -> bool:
        return str(golden_plan) in Path("/proc/self/maps").read_text()

    gc.collect()
    before = mapped()
    plan = Plan.open(golden_plan)
    assert mapped()
    plan.close()
    gc.collect()
    assert mapped() == before


def test_an_unknown_member_is_a_key_error(golden_plan: Path) -> None:
    with Plan.open(golden_plan) as plan, pytest.raises(KeyError, match=r"name is 'x', expected one of"):
        plan.member("x")


def test_round_trip(parts: Any, tmp_path: Path) -> None:
    parts.manifest |= {
        "training_data": "MNIST, \u00e9t\u00e9",
        "noise_mode": "shared",
        "truncation": {"minimum": 0.1, "maximum": 1, "default": 0.5},
        "parity": {"a": [1, 2.5, None, True, {"b": "c"}]},
        "sources": [{"name": "ckp.pth", "sha256": "a" * 64, "url": "x"}],
        "precision": "bf16",
    }
    parts.members["engines/any.bin"] = b"\0" * 100
    digest = write_plan(tmp_path / "a.plan", parts.manifest, parts.members)
    with Plan.open(tmp_path / "a.plan") as plan:
        assert plan.digest == digest
        found = plan.manifest.to_dict()
        members = found.pop("members")
        assert found == parts.manifest
        assert {name: bytes(plan.member(name)) for name in plan.members} == parts.members
        assert {name: entry["size"] for name, entry in members.items()} == {
            name: len(data) for name, data in parts.members.items()
        }
        assert isinstance(plan.manifest, CgnManifest)
        # A CgnManifest does as well as a mapping, and gives the same bytes; so does any buffer.
        views = {name: plan.member(name) for name in plan.members}
        assert write_plan(tmp_path / "b.plan", plan.manifest, views) == digest
    assert (tmp_path / "a.plan").read_bytes() == (tmp_path / "b.plan").read_bytes()


def test_mechanisms_may_share_a_table(parts: Any) -> None:
    for name in ("texture", "background"):
        parts.manifest["mechanisms"][name]["embedding"]["member"] = "mechanisms/shape.embedding"
        del parts.members[f"mechanisms/{name}.embedding"]
    with Plan.open(parts.save()) as plan:
        assert np.shares_memory(plan.mechanisms["shape"].embedding, plan.mechanisms["texture"].embedding)


def test_a_graph_may_hold_its_weights(parts: Any) -> None:
    parts.set_graph(parts.inline())
    with Plan.open(parts.save()) as plan:
        assert plan.mechanisms["shape"].weights is None
        assert external_initializers(plan.mechanisms["shape"].model) == []


def test_external_initializers(golden_plan: Path) -> None:
    with Plan.open(golden_plan) as plan:
        found = external_initializers(plan.mechanisms["texture"].model)
    assert found == [("weight", "float32", (192, 7), 0, 5376), ("bias", "float32", (192,), 5376, 768)]


def test_the_whole_plan_reads_from_paths_and_strings(golden_plan: Path) -> None:
    assert Plan.open(str(golden_plan)).path == str(golden_plan)
    assert "golden" in repr(Plan.open(golden_plan))


def test_errors_pickle() -> None:
    error = pickle.loads(pickle.dumps(PlanError("load 'x': file is missing.")))
    assert isinstance(error, PlanError)
    assert str(error) == "load 'x': file is missing."


def test_the_mapping_is_read_only(golden_plan: Path) -> None:
    plan = Plan.open(golden_plan)
    assert isinstance(plan.member("manifest.json").obj, mmap.mmap)
    with pytest.raises(TypeError):
        plan.member("manifest.json")[0] = 0


def test_reading_needs_only_numpy() -> None:
    code = (
        "import sys, cgnrt.plan, cgnrt.cli.inspect; "
        "print([m for m in ('torch', 'onnx', 'onnxruntime', 'openvino') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_opening_is_quick(golden_plan: Path) -> None:
    """A bound that only an accident (quadratic code, a slow import) passes; 1 ms is usual."""
    Plan.open(golden_plan)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        Plan.open(golden_plan).close()
        times.append(time.perf_counter() - start)
    assert min(times) < 0.1
