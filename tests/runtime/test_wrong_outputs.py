"""A network whose output has another shape than the plan says is refused on every path, never broadcast."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import cgnrt.plan.onnx.graph
from cgnrt import BackendError, Generator
from cgnrt.backends.base import deliver
from cgnrt.plan import write_plan
from cgnrt.real import Saliency
from cgnrt.sampling import MECHANISMS

PICTURES = {"shape": "mask", "texture": "foreground", "background": "background", "saliency": "mask"}

# Axes of (n, c, h, w) that the network leaves at 1: one picture for all images, one channel for all, one column.
CASES = [
    (name, axis) for name in MECHANISMS for axis in (0, 1, 3) if (name, axis) != ("shape", 1)
]  # one channel


def shrink(graph: bytes, picture: str, axis: int) -> bytes:
    """One row of an axis, whatever the sizes."""
    model = onnx.load_model_from_string(graph)
    for node in model.graph.node:
        node.output[:] = ["made" if output == picture else output for output in node.output]
    for label, value in {"first": 0, "end": 1, "axis": axis}.items():
        model.graph.initializer.append(helper.make_tensor(label, TensorProto.INT64, [1], [value]))
    model.graph.node.append(helper.make_node("Slice", ["made", "first", "end", "axis"], [picture]))
    changed: bytes = model.SerializeToString(deterministic=True)
    return changed


Make = Callable[[str, int], Path]


@pytest.fixture
def make(make_golden: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    # A plan's sizes are checked by rules when it is opened: here an engine disagrees with them.
    monkeypatch.setattr(cgnrt.plan.onnx.graph, "_check_shapes", lambda *_: None)

    def run(name: str, axis: int) -> Path:
        saliency = name == "saliency"
        manifest, members = make_golden.make_saliency_plan() if saliency else make_golden.make_plan()
        graph = f"mechanisms/{name}.onnx"
        members[graph] = shrink(members[graph], PICTURES[name], axis)
        write_plan(tmp_path / "wrong.plan", manifest, members)
        return tmp_path / "wrong.plan"

    return run


PATHS: dict[str, Callable[[Generator], Any]] = {
    "plain": lambda gen: gen.sample(4, seed=0),
    "parts": lambda gen: gen.sample(4, seed=0, parts=True),
    "batches": lambda gen: list(gen.batches(4, 2, seed=0)),
    "pool": lambda gen: gen.sample(4, seed=0, pool=3),
    "pool with parts": lambda gen: gen.sample(4, seed=0, pool=3, parts=True),
    "renewing pool": lambda gen: gen.sample(4, seed=0, pool=3, refresh=1),
    "variants": lambda gen: gen.related(seed=0, indices=[0, 1, 2, 3]).render(
        [gen.sample(4, seed=0, labels="shared").labels, gen.sample(4, seed=1, labels="shared").labels]
    ),
    "interpolation": lambda gen: gen.interpolate(4, seed=0),
}


@pytest.mark.parametrize(("name", "axis"), CASES)
@pytest.mark.parametrize("path", list(PATHS))
def test_every_path(make: Make, backend: str, name: str, axis: int, path: str) -> None:
    gen = Generator(make(name, axis), backend=backend)
    with pytest.raises(BackendError, match=rf"output '{PICTURES[name]}' is float32 .*, expected float32 "):
        PATHS[path](gen)


@pytest.mark.parametrize("axis", [0, 2])
def test_saliency(make: Make, backend: str, axis: int) -> None:
    saliency = Saliency(make("saliency", axis), backend=backend)
    with pytest.raises(BackendError, match=r"output 'mask' is float32 .*, expected float32 "):
        saliency(np.random.default_rng(0).random((3, 3, 8, 8), np.float32))


def test_delivery() -> None:
    target = {"x": np.zeros((2, 3), np.float32)}
    for produced, message in (
        ({"x": np.ones((1, 3), np.float32)}, r"output 'x' is float32 \(1, 3\), expected float32 \(2, 3\)"),
        ({"x": np.ones((), np.float32)}, r"output 'x' is float32 \(\), expected"),
        ({"x": np.ones((2, 3))}, r"output 'x' is float64 \(2, 3\), expected"),
        ({}, "output 'x' is missing"),
    ):
        with pytest.raises(BackendError, match=message):
            deliver(produced, target)
        assert not target["x"].any()
    assert deliver({"x": np.ones((2, 3), np.float32)}, target)["x"] is target["x"]
    assert target["x"].all()
