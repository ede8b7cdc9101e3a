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


def shrink(graph: bytes, name: str, picture: str, axis: int) -> bytes:
    """One row of an axis, but for batches of 11, for which the check of a plan computes the shapes."""
    model = onnx.load_model_from_string(graph)
    for node in model.graph.node:
        node.output[:] = ["made" if output == picture else output for output in node.output]
    size = 11 if axis == 0 else model.graph.output[0].type.tensor_type.shape.dim[axis].dim_value
    numbers = {"first": 0, "check": 11, "rest": size - 1, "one": 1, "axis": axis}
    for label, value in numbers.items():
        model.graph.initializer.append(helper.make_tensor(label, TensorProto.INT64, [1], [value]))
    model.graph.node.extend(
        [
            helper.make_node("Shape", ["made"], ["sizes"]),
            helper.make_node("Gather", ["sizes", "first"], ["batch"]),
            helper.make_node("Div", ["batch", "check"], ["is_check"]),
            helper.make_node("Mul", ["is_check", "rest"], ["more"]),
            helper.make_node("Add", ["more", "one"], ["end"]),
            helper.make_node("Slice", ["made", "first", "end", "axis"], [picture]),
        ]
    )
    changed: bytes = model.SerializeToString(deterministic=True)
    return changed


Make = Callable[[str, int], Path]


@pytest.fixture
def make(make_golden: ModuleType, tmp_path: Path) -> Make:
    def run(name: str, axis: int) -> Path:
        saliency = name == "saliency"
        manifest, members = make_golden.make_saliency_plan() if saliency else make_golden.make_plan()
        graph = f"mechanisms/{name}.onnx"
        members[graph] = shrink(members[graph], name, PICTURES[name], axis)
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
