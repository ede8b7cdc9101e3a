"""Plans of kind "saliency": every field of their manifest, and what takes them for a CGN's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cgnrt import Generator
from cgnrt.cli.inspect import describe, to_json
from cgnrt.errors import PlanError
from cgnrt.plan import Plan, SaliencyManifest, SaliencyPlan, open_any, write_plan

REMOVE = object()
IMAGE = {"name": "image", "shape": ["n", 3, 8, 8], "dtype": "float32"}

CASES: list[tuple[str, Any, str]] = [
    ("format_version", 5, r"format version is 5, expected <= 4\. Upgrade cgnrt"),
    (
        "format_version",
        1,
        r"stream_version is missing",
    ),
    ("kind", "cgn", r"stream_version is missing|manifest field is 'saliency'"),
    (
        "stream_version",
        1,
        r"manifest field is 'stream_version', expected one of format_version, kind, family",
    ),
    ("noise_mode", "shared", r"manifest field is 'noise_mode'"),
    ("family", REMOVE, r"family is missing, expected a field of the manifest"),
    ("resolution", [8, 0], r"resolution\[1\] is 0, expected an integer in 1\.\.8192"),
    ("resolution", [8, 9], r"saliency\.inputs\[0\]\.shape is \[.*\], expected \['n', 3, 8, 9\]"),
    ("precision", "int8", r"precision is 'int8', expected 'fp32' or 'bf16' or 'fp16'"),
    ("sources", {}, r"sources is an object, expected a list"),
    ("parity", None, r"parity is null, expected an object"),
    ("training_data", 3, r"training_data is 3, expected a string"),
    ("saliency", [], r"saliency is a list, expected an object"),
    ("saliency.graph", "x.onnx", r"saliency\.graph is 'x\.onnx', expected mechanisms/<stem>\.onnx"),
    ("saliency.graph", "mechanisms/none.onnx", r"saliency\.weights is .*expected .* or null"),
    ("saliency.weights", None, r"member 'mechanisms/saliency\.weights' is used by no mechanism"),
    ("saliency.classes", [], r"saliency field is 'classes', expected one of graph, weights"),
    ("saliency.inputs", [], r"length of saliency\.inputs is 0, expected 1"),
    ("saliency.inputs", [IMAGE, IMAGE], r"length of saliency\.inputs is 2, expected 1"),
    ("saliency.inputs.0.name", "noise", r"saliency\.inputs\[0\]\.name is 'noise', expected 'image'"),
    ("saliency.inputs.0.dtype", "uint8", r"inputs\[0\]\.dtype is 'uint8', expected 'float32'"),
    ("saliency.inputs.0.shape", ["n", 4, 8, 8], r"inputs\[0\]\.shape is \[.*\], expected \['n', 3, 8, 8\]"),
    ("saliency.outputs.0.name", "picture", r"saliency\.outputs\[0\]\.name is 'picture', expected 'mask'"),
    ("saliency.outputs.0.shape", ["n", 3, 8, 8], r"outputs\[0\]\.shape is \[.*\], expected \['n', 1, 8, 8\]"),
    ("saliency.divide_by", "mean", r"saliency\.divide_by is 'mean', expected 'maximum' or 'range'"),
    ("saliency.mean", [0.5, 0.5], r"length of saliency\.mean is 2, expected 3"),
    ("saliency.mean.1", "x", r"saliency\.mean\[1\] is 'x', expected a number"),
    ("saliency.std", [0.5, 0, 0.5], r"saliency\.std is \[0\.5, 0\.0, 0\.5\], expected positive numbers"),
    ("saliency.stretch", 1, r"saliency\.stretch is 1, expected true or false"),
    *(
        (f"saliency.{name}", REMOVE, rf"saliency\.{name} is missing, expected a field of the manifest")
        for name in ("graph", "weights", "inputs", "outputs", "divide_by", "mean", "std", "stretch")
    ),
]


@pytest.mark.parametrize(
    ("path", "value", "message"), CASES, ids=[f"{path}-{n}" for n, (path, _, _) in enumerate(CASES)]
)
def test_a_wrong_field_is_named(
    saliency_parts: Any, path: str, value: Any, message: str, tmp_path: Path
) -> None:
    *parents, last = (int(part) if part.isdigit() else part for part in path.split("."))
    place: Any = saliency_parts.manifest
    for part in parents:
        place = place[part]
    if value is REMOVE:
        del place[last]
    else:
        place[last] = value
    assert re.search(message, saliency_parts.refusal())
    with pytest.raises(PlanError, match=message):
        write_plan(tmp_path / "new.plan", saliency_parts.manifest, saliency_parts.members)
    assert not (tmp_path / "new.plan").exists()


def test_members_are_used_and_right(saliency_parts: Any) -> None:
    other = saliency_parts.copy()
    other.members["extra"] = b"x"
    assert "member 'extra' is used by no mechanism" in other.refusal()
    del saliency_parts.members["mechanisms/saliency.weights"]
    assert "saliency.weights is 'mechanisms/saliency.weights', expected one of" in saliency_parts.refusal()


def test_a_wrong_graph_is_named(saliency_parts: Any) -> None:
    model = saliency_parts.graph("saliency")
    model.graph.input[0].name = "photo"
    model.graph.node[0].input[0] = "photo"
    saliency_parts.set_graph(model, "saliency")
    assert "saliency: graph: " in saliency_parts.refusal()


def test_round_trip(saliency_parts: Any, tmp_path: Path) -> None:
    saliency_parts.members["engines/any.bin"] = b"\0" * 100
    saliency_parts.manifest["saliency"]["divide_by"] = "range"
    digest = write_plan(tmp_path / "a.plan", saliency_parts.manifest, saliency_parts.members)
    with SaliencyPlan.open(tmp_path / "a.plan") as plan:
        found = plan.manifest.to_dict()
        del found["members"]
        assert found == saliency_parts.manifest
        assert isinstance(plan.manifest, SaliencyManifest)
        views = {name: plan.member(name) for name in plan.members}
        assert write_plan(tmp_path / "b.plan", plan.manifest, views) == digest
    assert (tmp_path / "a.plan").read_bytes() == (tmp_path / "b.plan").read_bytes()


def test_kinds_are_not_taken_for_each_other(golden_plan: Path, golden_saliency_plan: Path) -> None:
    for opens in (Plan.open, Generator):
        with pytest.raises(PlanError) as caught:
            opens(golden_saliency_plan)
        assert str(caught.value) == (
            f"load '{golden_saliency_plan}': kind is 'saliency', expected 'cgn'. "
            "It finds the objects of photos: open it with cgnrt.real.Saliency."
        )
    with pytest.raises(PlanError) as caught:
        SaliencyPlan.open(golden_plan)
    assert str(caught.value) == (
        f"load '{golden_plan}': kind is 'cgn', expected 'saliency'. "
        "It generates pictures: open it with cgnrt.Generator."
    )
    with open_any(golden_plan) as plan, open_any(golden_saliency_plan) as other:
        assert (plan.manifest.kind, other.manifest.kind) == ("cgn", "saliency")


def test_a_closed_plan_says_so(golden_saliency_plan: Path) -> None:
    plan = SaliencyPlan.open(golden_saliency_plan)
    assert "golden" in repr(plan)
    weights = plan.network.weights
    assert weights is not None
    expected = bytes(weights)
    plan.close()
    with pytest.raises(ValueError, match="is closed"):
        _ = plan.network
    assert bytes(weights) == expected


def test_inspect(golden_saliency_plan: Path) -> None:
    with open_any(golden_saliency_plan) as plan:
        text = describe(plan)
        for expected in [
            "kind          saliency",
            "8 x 8 px",
            "saliency  (graph ",
            "image (n, 3, 8, 8) float32",
            "mask (n, 1, 8, 8) float32",
            "photos        / their maximum, - 0.485 0.456 0.406, / 0.229 0.224 0.225",
            "masks         stretched to 0 .. 1",
            "members (3, ",
        ]:
            assert expected in text
        value = to_json(plan)
        assert value["manifest"]["kind"] == "saliency"
        assert value["weights"]["saliency"] == [
            {"name": "weight", "dtype": "float32", "shape": [1, 3, 3, 3], "bytes": 108, "stored": "float32"}
        ]


@pytest.mark.parametrize("verify", [True, False])
def test_flipped_bytes_are_refused_or_change_nothing(
    golden_saliency_plan: Path, tmp_path: Path, verify: bool
) -> None:
    raw = golden_saliency_plan.read_bytes()
    rng = np.random.default_rng(0)
    for number in range(150):
        damaged = bytearray(raw)
        damaged[rng.integers(len(raw))] ^= 1 << int(rng.integers(8))
        path = tmp_path / f"{number}.plan"
        path.write_bytes(damaged)
        message = ""
        try:
            with open_any(path, verify=verify) as plan:
                content = {name: bytes(plan.member(name)) for name in plan.members}
                assert {len(data) for data in content.values()}
        except PlanError as error:
            message = str(error)
        assert message.startswith(f"load '{path}': ") or not (message or verify)
