"""The small part of a graph, evaluated by NumPy and by torch: one operator after the other against ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper

from cgnrt.backends.native.deep.vectors import OPERATORS, evaluate
from cgnrt.backends.native.graph import Graph, UnsupportedGraphError

from .onnx_graphs import mechanism, node, run_onnx_runtime, torch_engine

N = 3
RNG = np.random.default_rng(0)
END = np.iinfo(np.int64).max


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


# Of inputs a (3, 4), b (3, 4) and q (3, 2, 3, 2) to y; `i` is 3 x 4 whole numbers from -4 to 4.
CASES: dict[str, list[Any]] = {
    "Abs": [node("Abs", "a", "y")],
    "Add": [node("Add", "a b", "y")],
    "Add row": [node("Add", "a row", "y")],
    "Cast to int64": [node("Mul", "a seven", "m"), node("Cast", "m", "c", to=7), node("Cast", "c", "y", to=1)],
    "Cast to bool": [node("Relu", "a", "r"), node("Cast", "r", "c", to=9), node("Cast", "c", "y", to=1)],
    "Cast to float64": [node("Cast", "a", "c", to=11), node("Exp", "c", "e"), node("Cast", "e", "y", to=1)],
    "Clip": [node("Clip", "a low high", "y")],
    "Clip below": [node("Clip", "a low", "y")],
    "Clip above": [node("Clip", "a - high", "y")],
    "Clip nothing": [node("Clip", "a", "y")],
    "Clip the other way round": [node("Clip", "a high low", "y")],
    "Concat": [node("Concat", "a b a", "y", axis=1)],
    "Concat -1": [node("Concat", "q q", "y", axis=-1)],
    "Constant": [
        helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(floats(4))),
        node("Add", "a k", "y"),
    ],
    "Div": [node("Div", "a b", "y")],
    "Div by nothing": [node("Sub", "b b", "zero"), node("Div", "a zero", "y")],
    "Equal": [node("Cast", "a", "i", to=7), node("Equal", "i zero", "e"), node("Cast", "e", "y", to=1)],
    "Exp": [node("Exp", "a", "y")],
    "Expand": [node("Unsqueeze", "a k12", "u"), node("Expand", "u to", "y")],
    "Expand to more axes": [node("Expand", "row to_2", "e"), node("Add", "a e", "y")],
    "Expand choices": [
        node("Greater", "a low", "g"),
        node("Unsqueeze", "g k1", "u"),
        node("Expand", "u to3", "e"),
        node("Cast", "e", "y", to=1),
    ],
    "Flatten": [node("Flatten", "q", "y")],
    "Floor": [node("Mul", "a seven", "m"), node("Floor", "m", "y")],
    "Gather rows": [node("Gather", "table indices", "y")],
    "Gather columns": [node("Gather", "a columns", "y", axis=1)],
    "Gather -1": [node("Gather", "q pair", "y", axis=-1)],
    "Gather one": [node("Gather", "a one", "g", axis=1), node("Unsqueeze", "g k1", "y")],
    "Gemm": [node("Gemm", "a square", "y")],
    "Gemm with all": [node("Gemm", "a square row", "y", transB=1, alpha=0.5, beta=-2.0)],
    "Gemm transA": [node("Gemm", "a b", "y", transA=1)],
    "Greater": [node("Greater", "a b", "g"), node("Cast", "g", "y", to=1)],
    "GreaterOrEqual": [node("GreaterOrEqual", "a a", "g"), node("Cast", "g", "y", to=1)],
    "Identity": [node("Identity", "a", "y")],
    "Less": [node("Less", "a b", "g"), node("Cast", "g", "y", to=1)],
    "LessOrEqual": [node("LessOrEqual", "a a", "g"), node("Cast", "g", "y", to=1)],
    "MatMul": [node("MatMul", "a square", "y")],
    "MatMul in four axes": [node("MatMul", "q turn", "y")],
    "Mul": [node("Mul", "a low", "y")],
    "Neg": [node("Neg", "a", "y")],
    "Reciprocal": [node("Reciprocal", "a", "y")],
    "Relu": [node("Relu", "a", "y")],
    "Reshape": [node("Reshape", "q back", "y")],
    "Reshape with a copy": [node("Reshape", "q copy", "y")],
    "Reshape allowing zero": [node("Reshape", "q back", "y", allowzero=1)],
    "Round": [node("Mul", "a seven", "m"), node("Round", "m", "y")],
    "Round halves": [node("Floor", "a", "f"), node("Div", "f two", "h"), node("Round", "h", "y")],
    "Shape": [node("Shape", "q", "s"), node("Cast", "s", "y", to=1)],
    "Shape in part": [node("Shape", "q", "s", start=1, end=-1), node("Cast", "s", "y", to=1)],
    "Slice": [node("Slice", "q k1 k2", "y")],
    "Slice along axes": [node("Slice", "q k01 k2end axes", "y")],
    "Slice in steps": [node("Slice", "a k1 kend k1 k2", "y")],
    "Slice from the end": [node("Slice", "a minus3 minus1 k1", "y")],
    "Sqrt": [node("Abs", "a", "p"), node("Sqrt", "p", "y")],
    "Sqrt of less": [node("Sqrt", "a", "y")],
    "Squeeze": [node("Unsqueeze", "a k02", "u"), node("Squeeze", "u k02", "y")],
    "Squeeze all": [node("Unsqueeze", "a k02", "u"), node("Squeeze", "u", "y")],
    "Sub": [node("Sub", "row a", "y")],
    "Tanh": [node("Tanh", "a", "y")],
    "Transpose": [node("Transpose", "q", "y", perm=[0, 2, 3, 1])],
    "Transpose all": [node("Transpose", "q", "y")],
    "Unsqueeze from the end": [node("Unsqueeze", "a minus13", "y")],
    "Where": [node("Greater", "a b", "g"), node("Where", "g a row", "y")],
}  # fmt: skip
CONSTANTS = {
    "row": floats(4),
    "low": np.float32(-0.5),
    "high": np.float32(0.75),
    "two": np.float32(2),
    "seven": np.float32(7),
    "zero": np.int64(0),
    "one": np.int64(1),
    "k1": np.array([1]),
    "k2": np.array([2]),
    "k01": np.array([0, 1]),
    "k02": np.array([0, 2]),
    "k12": np.array([1, 2]),
    "kend": np.array([END]),
    "k2end": np.array([2, END]),
    "axes": np.array([-2, 0]),
    "minus1": np.array([-1]),
    "minus3": np.array([-3]),
    "minus13": np.array([-1, -3]),
    "to": np.array([1, 2, 3, 1]),
    "to_2": np.array([1, 1]),
    "to3": np.array([1, 2, 1]),
    "table": floats(5, 4),
    "indices": np.array([[4, -1], [0, -5]]),
    "columns": np.array([3, 0, -2]),
    "pair": np.array([1, 0, 1]),
    "square": floats(4, 4),
    "turn": floats(2, 2, 5),
    "back": np.array([-1, 2, 6]),
    "copy": np.array([0, 0, -1]),
}
INPUTS = {"a": ("n", 4), "b": ("n", 4), "q": ("n", 2, 3, 2)}


def inputs_of(n: int) -> dict[str, np.ndarray]:
    return {"a": floats(n, 4), "b": floats(n, 4), "q": floats(n, 2, 3, 2)}


def made_of(nodes: list[Any], **constants: Any) -> Any:
    given = {**CONSTANTS, **constants}
    used = {name for step in nodes for name in step.input}
    constants = {name: array for name, array in given.items() if name in used}
    if constants.get("zero") is not None and any("zero" in step.output for step in nodes):
        del constants["zero"]
    return mechanism(nodes, INPUTS, {"y": ()}, constants)


def values_of(made: Any, inputs: dict[str, np.ndarray]) -> np.ndarray:
    graph = Graph(made)
    return np.asarray(evaluate(graph, graph.model.nodes, inputs)["y"])


@pytest.mark.parametrize("name", CASES)
def test_operators(name: str) -> None:
    made = made_of(CASES[name])
    inputs = inputs_of(N)
    expected = run_onnx_runtime(made, inputs)["y"]
    for found in (values_of(made, inputs), torch_engine(made).run(inputs)["y"]):
        assert found.dtype == expected.dtype
        # Its exponential and tanh are approximations to about 1e-6.
        np.testing.assert_allclose(found, expected, rtol=3e-6, atol=1e-6)


@pytest.mark.parametrize(
    "name", sorted(CASES.keys() - {"Slice", "Slice along axes"})
)  # which are of the images
def test_shapes_where_there_are_no_images(name: str) -> None:
    """As the compiler asks for them: those of seven, less the images."""
    made = made_of(CASES[name])
    seven = values_of(made, inputs_of(7)).shape
    assert values_of(made, inputs_of(0)).shape == tuple(0 if size == 7 else size for size in seven)


def test_every_operator_has_a_case() -> None:
    assert {step.op_type for nodes in CASES.values() for step in nodes} == set(OPERATORS)


@pytest.mark.parametrize(
    ("message", "nodes"),
    [
        ("Slice with a step below 1", [node("Slice", "a minus1 minus3 k1 minus1", "y")]),
        (
            "Div of integers",
            [node("Shape", "a", "s"), node("Div", "s k2", "d"), node("Cast", "d", "y", to=1)],
        ),
        ("Flatten from another axis than 1", [node("Flatten", "q", "y", axis=2)]),
        ("Cast to type 8", [node("Cast", "a", "y", to=8)]),
        (
            "Constant nodes without a tensor",
            [node("Constant", "", "k", value_float=1.0), node("Add", "a k", "y")],
        ),
        (r"weights that the graph computes \(other\)", [node("Add", "a other", "y")]),
    ],
)
def test_what_is_refused(message: str, nodes: list[Any]) -> None:
    made = made_of(nodes)
    with pytest.raises(UnsupportedGraphError, match=message):
        values_of(made, inputs_of(N))
