"""The shape rules of operators, against ONNX Runtime; `test_giants` has graphs that they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from cgnrt.errors import PlanError
from cgnrt.plan.onnx.model import parse_model
from cgnrt.plan.onnx.rules import RULES
from cgnrt.plan.onnx.shapes import Effort, Info, Operands, tensor_info
from cgnrt.plan.onnx.signatures import check_signature

FLOAT, INT = np.float32, np.int64


def f(*dims: int) -> NDArray[Any]:
    return np.zeros(dims, FLOAT)


def i(*values: int) -> NDArray[Any]:
    return np.array(values, INT)


def one_node(
    op: str, inputs: list[Any], outputs: int, opset: int, attributes: dict[str, Any]
) -> onnx.ModelProto:
    """A model of one node: 32-bit floats that are all zero come in as inputs, anything else is a constant."""
    names = ["" if array is None else f"x{index}" for index, array in enumerate(inputs)]
    made = [f"y{index}" for index in range(outputs)]
    given = [(name, array) for name, array in zip(names, inputs, strict=True) if array is not None]
    graph = helper.make_graph(
        [helper.make_node(op, names, made, **attributes)],
        "g",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, a.shape) for n, a in given if is_data(a)],
        [helper.make_empty_tensor_value_info(name) for name in made],
        [numpy_helper.from_array(a, n) for n, a in given if not is_data(a)],
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", opset)])


def is_data(array: NDArray[Any]) -> bool:
    return array.dtype == FLOAT and not array.any() and array.size > 0


CASES: list[tuple[str, list[Any], int, dict[str, Any]]] = [
    ("Relu", [f(2, 3)], 1, {}),
    ("Softmax", [f(2, 3)], 1, {"axis": 1}),
    ("Clip", [f(2, 3), np.array(0.1, FLOAT), np.array(1, FLOAT)], 1, {}),
    ("Add", [f(2, 1, 4), f(3, 1)], 1, {}),
    ("Where", [np.ones((2, 1), bool), f(1, 3), f(2, 1)], 1, {}),
    ("Sum", [f(2, 3), f(3), f(1, 1)], 1, {}),
    ("PRelu", [f(2, 3, 4, 4), f(3, 1, 1)], 1, {}),
    ("Cast", [f(2, 3)], 1, {"to": 7}),
    ("MatMul", [f(2, 3), f(3, 4)], 1, {}),
    ("MatMul", [f(5, 1, 2, 3), f(6, 3, 4)], 1, {}),
    ("MatMul", [f(3), f(3, 4)], 1, {}),
    ("MatMul", [f(2, 3), f(3)], 1, {}),
    ("MatMul", [f(3), f(3)], 1, {}),
    ("MatMul", [f(3), f(5, 3, 4)], 1, {}),
    ("Gemm", [f(2, 3), f(4, 3), f(4)], 1, {"transB": 1}),
    ("Gemm", [f(3, 2), f(3, 4)], 1, {"transA": 1}),
    ("Einsum", [f(2, 3, 4), f(2, 4, 5)], 1, {"equation": "bij, bjk -> bik"}),
    ("Reshape", [f(2, 3, 4), i(0, -1)], 1, {}),
    ("Reshape", [f(2, 3, 4), i(4, 6)], 1, {}),
    ("Flatten", [f(2, 3, 4)], 1, {"axis": 2}),
    ("Flatten", [f(2, 3, 4)], 1, {"axis": -1}),
    ("Flatten", [f(2, 3, 4)], 1, {"axis": 0}),
    ("Squeeze", [f(2, 1, 3, 1), i(1)], 1, {}),
    ("Squeeze", [f(2, 1, 3, 1)], 1, {}),
    ("Unsqueeze", [f(2, 3), i(0, -1)], 1, {}),
    ("Transpose", [f(2, 3, 4)], 1, {"perm": [2, 0, 1]}),
    ("Transpose", [f(2, 3, 4)], 1, {}),
    ("Concat", [f(2, 3), f(2, 5)], 1, {"axis": -1}),
    ("Split", [f(2, 6), i(1, 2, 3)], 3, {"axis": 1}),
    ("Split", [f(2, 7)], 3, {"axis": 1, "num_outputs": 3}),
    ("Slice", [f(5, 6), i(1, -3), i(4, 2**62)], 1, {}),
    ("Slice", [f(5, 6), i(-1), i(-(2**63)), i(1), i(-2)], 1, {}),
    ("Slice", [f(5, 6), i(0), i(5), i(-1), i(2)], 1, {}),
    ("Slice", [f(5, 6), i(4), i(-1), i(0), i(-1)], 1, {}),
    ("Gather", [f(5, 6), i(1, 2, 0)], 1, {"axis": 1}),
    ("Gather", [f(5, 6), np.array(1)], 1, {"axis": 0}),
    ("GatherElements", [f(5, 6), np.zeros((2, 6), INT)], 1, {"axis": 0}),
    ("GatherND", [f(5, 6, 7), np.zeros((3, 2), INT)], 1, {}),
    ("Expand", [f(3, 1), i(2, 1, 6)], 1, {}),
    ("Tile", [f(3, 2), i(2, 3)], 1, {}),
    ("Pad", [f(3, 4), i(1, 0, 2, -1)], 1, {}),
    ("Pad", [f(3, 4), i(1, 2), None, i(-1)], 1, {}),
    ("Shape", [f(3, 4, 5)], 1, {"start": 1}),
    ("Shape", [f(3, 4, 5)], 1, {"start": -2, "end": -1}),
    ("Size", [f(3, 4, 5)], 1, {}),
    ("ConstantOfShape", [i(2, 3)], 1, {}),
    ("Range", [np.array(1), np.array(10), np.array(4)], 1, {}),
    ("ReduceMean", [f(2, 3, 4), i(1, -1)], 1, {"keepdims": 0}),
    ("ReduceMean", [f(2, 3, 4)], 1, {}),
    ("ReduceSum", [f(2, 3, 4), np.array([], INT)], 1, {"noop_with_empty_axes": 1}),
    ("ReduceL2", [f(2, 3, 4), i(0)], 1, {}),
    ("ArgMax", [f(2, 3, 4)], 1, {"axis": 1, "keepdims": 0}),
    ("TopK", [f(2, 5), i(3)], 2, {}),
    ("OneHot", [i(1, 2), np.array(5), np.array([0, 1], FLOAT)], 1, {}),
    ("CumSum", [f(2, 3), np.array(1)], 1, {}),
    ("BatchNormalization", [f(2, 3, 4, 4), *[f(3)] * 4], 1, {}),
    ("InstanceNormalization", [f(2, 3, 4, 4), f(3), f(3)], 1, {}),
    ("LayerNormalization", [f(2, 3, 4), f(4), f(4)], 1, {}),
    ("Conv", [f(2, 4, 9, 8), f(6, 4, 3, 3)], 1, {"pads": [1, 0, 1, 0], "strides": [2, 1]}),
    ("Conv", [f(2, 4, 9, 8), f(6, 2, 3, 3)], 1, {"group": 2, "dilations": [2, 2]}),
    ("Conv", [f(2, 4, 9, 8), f(6, 4, 3, 3)], 1, {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ("Conv", [f(2, 4, 9, 8), f(6, 4, 3, 3)], 1, {"auto_pad": "VALID", "strides": [2, 2]}),
    ("Conv", [f(2, 4, 9), f(6, 4, 1)], 1, {"kernel_shape": [1]}),
    ("ConvTranspose", [f(2, 4, 8, 8), f(4, 3, 4, 4)], 1, {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ("ConvTranspose", [f(2, 4, 8, 8), f(4, 3, 3, 3)], 1, {"strides": [2, 2], "output_padding": [1, 1]}),
    ("ConvTranspose", [f(2, 4, 8, 8), f(4, 3, 3, 3)], 1, {"group": 2, "dilations": [2, 1]}),
    ("ConvTranspose", [f(2, 4, 8, 8), f(4, 3, 3, 3)], 1, {"strides": [2, 2], "output_shape": [16, 16]}),
    ("ConvTranspose", [f(2, 4, 8, 8), f(4, 3, 3, 3)], 1, {"strides": [2, 2], "auto_pad": "VALID"}),
    ("MaxPool", [f(2, 3, 9, 9)], 1, {"kernel_shape": [2, 2], "strides": [2, 2]}),
    ("MaxPool", [f(2, 3, 9, 9)], 1, {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
    ("MaxPool", [f(2, 3, 8, 9)], 2, {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ("AveragePool", [f(2, 3, 9, 9)], 1, {"kernel_shape": [3, 3]}),
    ("GlobalAveragePool", [f(2, 3, 9, 9)], 1, {}),
    ("Resize", [f(2, 3, 5, 4), None, np.array([1, 1, 2, 2.5], FLOAT)], 1, {"mode": "linear"}),
    ("Resize", [f(2, 3, 5, 4), None, None, i(2, 3, 10, 9)], 1, {}),
    ("Resize", [f(2, 3, 5, 4), None, None, i(10, 9)], 1, {"axes": [2, 3]}),
    ("Resize", [f(2, 3, 5, 4), None, np.array([2, 2], FLOAT)], 1, {"axes": [-2, -1], "mode": "cubic"}),
    ("DepthToSpace", [f(2, 12, 3, 4)], 1, {"blocksize": 2}),
    ("SpaceToDepth", [f(2, 3, 4, 6)], 1, {"blocksize": 2}),
    ("GridSample", [f(2, 3, 4, 5), f(2, 6, 7, 2)], 1, {}),
    ("Dropout", [f(2, 3)], 1, {}),
    ("Trilu", [f(3, 3)], 1, {}),
]


def infer(model: onnx.ModelProto) -> list[Info]:
    raw = model.SerializeToString()
    graph = onnx.ModelProto.FromString(raw).graph
    known: dict[str, Info | None] = {"": None}
    for value in graph.input:
        known[value.name] = Info(tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim))
    # Outputs of the bare node have no type, which a plan would not pass: only the node is read.
    model.graph.ClearField("output")
    raw = model.SerializeToString()
    parsed = parse_model(raw)
    for name, tensor in parsed.initializers.items():
        known[name] = tensor_info(tensor, raw, None)
    node = parsed.nodes[0]
    check_signature(node, parsed.opset)
    return RULES[node.op](Operands(node, [known[name] for name in node.inputs], raw, parsed.opset, Effort()))


@pytest.mark.parametrize(
    ("op", "inputs", "outputs", "attributes"), CASES, ids=[f"{case[0]}-{n}" for n, case in enumerate(CASES)]
)
def test_rules_agree_with_onnx_runtime(
    op: str, inputs: list[Any], outputs: int, attributes: dict[str, Any]
) -> None:
    model = one_node(op, inputs, outputs, 18, attributes)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feeds = {f"x{n}": a for n, a in enumerate(inputs) if a is not None and is_data(a)}
    expected = session.run(None, feeds)
    found = infer(model)
    assert [info.dims for info in found[: len(expected)]] == [array.shape for array in expected]
    for info, array in zip(found, expected, strict=False):
        if info.values is not None:  # values that sizes are computed with are exact
            np.testing.assert_array_equal(info.values.astype(np.float64), array.astype(np.float64))


VALUE_CASES: list[tuple[str, list[Any], dict[str, Any]]] = [
    ("Add", [i(1, 2), i(3)], {}),
    ("Sub", [i(1, 2), i(3)], {}),
    ("Mul", [i(-1, 2), i(3)], {}),
    ("Div", [i(7, -8, 9), i(2, -2, 3)], {}),
    ("Div", [np.array([7, 1], FLOAT), np.array([2, 4], FLOAT)], {}),
    ("Mod", [i(-7, 7), i(3, -3)], {}),
    ("Max", [i(1, 5), i(3), i(2, 9)], {}),
    ("Min", [i(1, 5), i(3)], {}),
    ("Neg", [i(1, -5)], {}),
    ("Abs", [i(1, -5)], {}),
    ("Floor", [np.array([1.5, -1.5], FLOAT)], {}),
    ("Ceil", [np.array([1.5, -1.5], FLOAT)], {}),
    ("Equal", [i(1, -1), i(-1)], {}),
    ("Less", [i(1, 3), i(2)], {}),
    ("GreaterOrEqual", [i(1, 3), i(3)], {}),
    ("Not", [np.array([True, False])], {}),
    ("And", [np.array([True, False]), np.array([True, True])], {}),
    ("Where", [np.array([True, False]), i(1, 2), i(3, 4)], {}),
    ("Cast", [np.array([1.5, -1.5], FLOAT)], {"to": 7}),
    ("Cast", [i(0, 2)], {"to": 9}),
    ("Concat", [i(1, 2), i(3)], {"axis": 0}),
    ("Gather", [i(4, 5, 6), i(-1, 0)], {}),
    ("Slice", [i(1, 2, 3, 4), i(-1), i(-(2**63)), i(0), i(-2)], {}),
    ("Squeeze", [i(4), i(0)], {}),
    ("Unsqueeze", [np.array(4), i(0)], {}),
    ("Reshape", [i(1, 2, 3, 4), i(2, 2)], {}),
    ("Transpose", [np.arange(1, 5).reshape(2, 2)], {}),
    ("Expand", [i(3), i(4)], {}),
    ("Range", [np.array(1), np.array(8), np.array(3)], {}),
    ("Range", [np.array(8), np.array(1), np.array(-3)], {}),
    ("ReduceProd", [i(2, 3, 4)], {"keepdims": 0}),
    ("ReduceSum", [i(2, 3, 4), i(0)], {}),
    ("ReduceMax", [i(2, 3, 4), i(0)], {}),
    ("Split", [i(1, 2, 3), i(1, 2)], {}),
    ("ConstantOfShape", [i(3)], {"value": numpy_helper.from_array(i(-1))}),
    ("Constant", [], {"value_ints": [3, 4]}),
    ("Constant", [], {"value_float": 2.5}),
    ("Constant", [], {"value": numpy_helper.from_array(i(7, 8))}),
    ("Identity", [i(1, 2)], {}),
]


@pytest.mark.parametrize(
    ("op", "inputs", "attributes"), VALUE_CASES, ids=[f"{case[0]}-{n}" for n, case in enumerate(VALUE_CASES)]
)
def test_values_agree_with_onnx_runtime(op: str, inputs: list[Any], attributes: dict[str, Any]) -> None:
    outputs = 2 if op == "Split" else 1
    model = one_node(op, inputs, outputs, 18, attributes)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for info, array in zip(infer(model), session.run(None, {}), strict=True):
        assert info.values is not None
        assert info.dims == info.values.shape == array.shape
        np.testing.assert_array_equal(info.values.astype(np.float64), array.astype(np.float64))


@pytest.mark.parametrize(
    ("op", "inputs", "attributes"),
    [
        ("Div", [i(-7), i(2)], {}),
        ("Div", [i(7), i(0)], {}),
        ("Div", [np.array([1], FLOAT), np.array([0], FLOAT)], {}),
        ("Mod", [i(7), i(0)], {}),
        ("Mod", [i(-7), i(3)], {"fmod": 1}),
        ("Mul", [i(2**16), i(2**15)], {}),
        ("Add", [np.array([2**31 - 1], np.int32), np.array([1], np.int32)], {}),
        ("Mul", [np.array([3e38], FLOAT), np.array([3e38], FLOAT)], {}),
        ("Max", [np.array([np.nan], FLOAT), np.array([1], FLOAT)], {}),
        ("Cast", [i(300)], {"to": 2}),
        ("Cast", [i(2**40)], {"to": 6}),
        ("Cast", [np.array([np.inf], FLOAT)], {"to": 7}),
        ("Cast", [np.array([1e10], FLOAT)], {"to": 7}),
        ("Identity", [np.array([3], np.uint8)], {}),
        ("Identity", [np.array([3], np.float64)], {}),
        ("ReduceSum", [np.array([1, 2], FLOAT), i(0)], {}),
    ],
)
def test_values_that_engines_could_compute_otherwise_are_unknown(
    op: str, inputs: list[Any], attributes: dict[str, Any]
) -> None:
    (info,) = infer(one_node(op, inputs, 1, 18, attributes))
    assert info.values is None


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "message"),
    [
        (
            "Range",
            [np.array(2, FLOAT), np.array(1, FLOAT), np.array(-0.1, FLOAT)],
            {},
            "bounds is .* expected integers",
        ),
        ("Resize", [f(1, 1, 10), None, np.array([1, 1, 0.1], FLOAT)], {}, "scaled size is 10 x 0.1"),
        ("ConvTranspose", [f(1, 1, 8), f(1, 1, 3)], {"auto_pad": "SAME_UPPER"}, "auto_pad is 'SAME_UPPER'"),
        (
            "Conv",
            [f(1, 1, 8), f(1, 1, 3)],
            {"auto_pad": "VALID", "pads": [1, 1]},
            "pads is .*expected no pads beside",
        ),
        ("Conv", [f(1, 1, 8), f(1, 1, 3)], {"auto_pad": "OTHER"}, "auto_pad is 'OTHER'"),
        (
            "MaxPool",
            [f(1, 1, 2)],
            {"kernel_shape": [1], "strides": [2], "ceil_mode": 1},
            "last window is one that",
        ),
        ("Cast", [i(3)], {"to": 8}, "attribute to is 8, expected an element type"),
    ],
)
def test_sizes_that_engines_could_compute_otherwise_are_refused(
    op: str, inputs: list[Any], attributes: dict[str, Any], message: str
) -> None:
    with pytest.raises(PlanError, match=message):
        infer(one_node(op, inputs, 1, 18, attributes))


def test_values_beyond_the_cap_are_forgotten() -> None:
    model = one_node("Range", [np.array(0), np.array(100), np.array(1)], 1, 18, {})
    assert infer(model) == [Info((100,), None)]
    with pytest.raises(PlanError, match="unknown"):
        infer(one_node("ConstantOfShape", [np.ones(100, INT)], 1, 18, {}))
