"""The size of every tensor is known before an engine sees a graph: giants and malformed nodes are refused.

The nodes come between `logits` and the end of the golden shape graph.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from cgnrt.plan import Plan

FLOAT, INT = np.float32, np.int64


def i(*values: int) -> NDArray[Any]:
    return np.array(values, INT)


def giant(parts: Any, *nodes: onnx.NodeProto, **constants: NDArray[Any]) -> str:
    model = parts.graph()
    for name, array in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    for index, node in enumerate(nodes):
        model.graph.node.insert(3 + index, node)
    parts.set_graph(model)
    assert "mechanism 'shape': graph: " in parts.refusal(verify=False)
    return str(parts.refusal())


def node(op: str, *inputs: str, out: str = "big", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, list(inputs), [out], **attributes)


HUGE = i(2**20, 2**20)


@pytest.mark.parametrize(
    ("nodes", "constants", "message"),
    [
        (
            [node("ConstantOfShape", "s")],
            {"s": HUGE},
            r"\[1048576, 1048576\], 1099511627776 elements, expected <= 134217728",
        ),
        (
            [node("ConstantOfShape", "s")],
            {"s": i(2**62, 2**62)},
            r"input 0 is .*, expected integers of 32 bits",
        ),
        ([node("ConstantOfShape", "s")], {"s": i(-1)}, r"shape is \[-1\], expected sizes >= 0"),
        (
            [node("ConstantOfShape", "s")],
            {"s": np.array([1.5], FLOAT)},
            r"input 0 is \[1\.5\], expected integers",
        ),
        (
            [node("ConstantOfShape", "s")],
            {"s": np.zeros(65, INT)},
            r"input 0 \(which sets the size\) is unknown",
        ),
        ([node("ConstantOfShape", "s")], {"s": np.ones(9, INT)}, r"rank of the result is 9, expected <= 8"),
        ([node("Expand", "logits", "s")], {"s": i(2**30, 1, 1, 1, 1)}, r"elements, expected <= 134217728"),
        ([node("Expand", "s", "s")], {"s": i(2**27, 2)}, r"elements, expected <= 134217728"),
        ([node("Tile", "logits", "s")], {"s": i(1, 1, 2**20, 2**20)}, r"elements, expected <= 134217728"),
        ([node("Tile", "logits", "s")], {"s": i(1, 1, -1, 1)}, r"repeats is \[1, 1, -1, 1\]"),
        (
            [node("Range", "a", "b", "c")],
            {"a": np.array(0), "b": np.array(2**62), "c": np.array(1)},
            r"bounds is 0, 4611686018427387904, 1, expected integers of 32 bits",
        ),
        (
            [node("Range", "a", "b", "a")],
            {"a": np.array(0), "b": np.array(1)},
            r"step is 0, expected a number, not 0",
        ),
        (
            [node("Range", "a", "b", "c")],
            {"a": np.array(0, FLOAT), "b": np.array(np.inf, FLOAT), "c": np.array(1, FLOAT)},
            r"bounds is .*inf.*expected integers",
        ),
        (
            [node("Resize", "logits", "", "s")],
            {"s": np.array([1, 1, 1e5, 1e5], FLOAT)},
            r"scaled size is 8 x 100000\.0, expected no such near-integer \(or sizes instead",
        ),
        (
            [node("Resize", "logits", "", "s")],
            {"s": np.array([1, 1, np.nan, 1], FLOAT)},
            r"scale is nan, expected 0 < scale",
        ),
        (
            [node("Resize", "logits", "", "s")],
            {"s": np.array([1, 1, np.inf, 1], FLOAT)},
            r"scale is inf, expected 0 < scale",
        ),
        (
            [
                node("Shape", "noise", out="a"),
                node("Slice", "a", "zero", "one", out="b"),
                node("Concat", "b", "rest", out="s", axis=0),
                node("Resize", "logits", "", "", "s"),
            ],
            {"zero": i(0), "one": i(1), "rest": i(1, 2**28, 1)},
            r"elements, expected <= 134217728",
        ),
        (
            [node("Pad", "logits", "s")],
            {"s": i(0, 0, 0, 2**30, 0, 0, 0, 0)},
            r"elements, expected <= 134217728",
        ),
        (
            [node("Pad", "logits", "s")],
            {"s": i(0, 0, 0, -9, 0, 0, 0, 0)},
            r"\[n, 1, 8, -1\], expected sizes >= 1",
        ),
        (
            [node("OneHot", "a", "b", "v")],
            {"a": i(0), "b": np.array(2**30), "v": np.array([0, 1], FLOAT)},
            r"elements, expected",
        ),
        (
            [node("MatMul", "a", "b")],
            {"a": np.ones((40000, 1), FLOAT), "b": np.ones((1, 40000), FLOAT)},
            r"1600000000 elements",
        ),
        (
            [node("Einsum", "a", "a", equation="i,j->ij")],
            {"a": np.ones(40000, FLOAT)},
            r"operands|size of|equation|elements",
        ),
        (
            [node("Einsum", "a", "b", equation="i,j->ij")],
            {"a": np.ones(40000, FLOAT), "b": np.ones(40000, FLOAT)},
            r"1600000000 el",
        ),
        (
            [node("Add", "a", "b")],
            {"a": np.ones((40000, 1), FLOAT), "b": np.ones((1, 40000), FLOAT)},
            r"1600000000 elements",
        ),
        (
            [node("ConvTranspose", "logits", "w", strides=[2**15, 2**15])],
            {"w": np.ones((1, 1, 1, 1), FLOAT)},
            r"elements, expected <= 134217728",
        ),
        (
            [node("ConvTranspose", "logits", "w", output_shape=[2**20, 2**20])],
            {"w": np.ones((1, 1, 1, 1), FLOAT)},
            r"output_shape is \[1048576, 1048576\], expected 2 numbers up to \[8, 8\], without pads",
        ),
        (
            [node("Conv", "logits", "w", pads=[2**20] * 4)],
            {"w": np.ones((1, 1, 1, 1), FLOAT)},
            r"pads is .*, expected 4 numbers 0\.\.32768",
        ),
        (
            [node("Conv", "logits", "w", pads=[-1] * 4)],
            {"w": np.ones((1, 1, 1, 1), FLOAT)},
            r"pads is .*, expected 4 numbers 0\.\.",
        ),
        (
            [node("Conv", "logits", "w", strides=[0, 0])],
            {"w": np.ones((1, 1, 1, 1), FLOAT)},
            r"strides is .*, expected 2 numbers 1\.\.",
        ),
        (
            [node("Conv", "logits", "w")],
            {"w": np.ones((1, 2, 1, 1), FLOAT)},
            r"expected channels that fit 1 groups",
        ),
        (
            [node("DepthToSpace", "logits", blocksize=2**40)],
            {},
            r"blocksize is 1099511627776, expected 1\.\.1024",
        ),
        (
            [node("ReduceMean", "noise", out="s", keepdims=0, axes=[0]), node("Reshape", "logits", "s")],
            {},
            r"input 1 \(which sets the size\) is unknown, expected up to 64 const",
        ),
        (
            [node("Mul", "a", "a", out="b"), node("ConstantOfShape", "b")],
            {"a": HUGE},
            r"input 0 \(which sets the size\) is unknown",
        ),
        (
            [node("Shape", "noise", out="a"), node("Mul", "a", "b", out="c"), node("ConstantOfShape", "c")],
            {"b": i(2**14, 2**14)},
            r"node 5 \('ConstantOfShape'\): shape of the result is \[16384n, 65536\]",
        ),
        (
            [node("Concat", *["logits"] * 4000, axis=3, out="a"), node("Concat", *["a"] * 4000, axis=2)],
            {},
            r"node 4 \('Concat'\): shape of the result",
        ),
    ],
)
def test_giants_are_refused(
    parts: Any, nodes: list[onnx.NodeProto], constants: dict[str, NDArray[Any]], message: str
) -> None:
    found = giant(parts, *nodes, **constants)
    assert re.search(message, found), found


def test_a_chain_of_doublings(parts: Any) -> None:
    nodes = [
        node("Concat", *["logits" if n == 0 else f"c{n}"] * 2, axis=0, out=f"c{n + 1}") for n in range(40)
    ]
    assert "elements, expected <= 134217728" in giant(parts, *nodes)


def test_constants_are_bounded_together(parts: Any) -> None:
    nodes = [node("ConstantOfShape", "s", out=f"c{n}") for n in range(5)]
    found = giant(parts, *nodes, s=i(2**25))
    assert (
        "node 7 ('ConstantOfShape'): constants computed so far is 167772160 elements, expected <= 134217728"
        in found
    )


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            {"op_type": "Dropout", "input": ["logits", "", "t"]},
            r"training_mode is set, expected an inference graph",
        ),
        ({"op_type": "Squeeze", "input": ["logits", "x"]}, r"axis is 9, expected -4\.\.3"),
        ({"op_type": "Gemm", "input": ["logits", "weight"]}, r"expected two matrices"),
        ({"op_type": "Add", "input": ["logits", "weight"]}, r"expected ones that broadcast together"),
        ({"op_type": "Add", "input": ["logits", ""]}, r"input 1 is missing, expected an operand of Add"),
        ({"op_type": "Add", "input": []}, r"number of inputs is 0, expected 2"),
        ({"op_type": "Gather", "input": ["x", "x"]}, r"operands is malformed"),
        (
            {"op_type": "GatherElements", "input": ["logits", "one_by_one"]},
            r"shape of the indices is \[1, 1\], expected \[n, 1, 8, 8\] except for axis 0",
        ),
        (
            {"op_type": "ScatterElements", "input": ["logits", "one_by_one", "logits"]},
            r"shape of the indices is \[1, 1\], expected \[n, 1, 8, 8\] except for axis 0",
        ),
        ({"op_type": "Conv", "input": ["logits"]}, r"number of inputs is 1, expected 2\.\.3"),
        ({"op_type": "Transpose", "input": ["logits"]}, r"graph output 'mask': computed shape"),
        (
            {"op_type": "Relu", "input": ["flat"]},
            r"computed shape is \[n, 64\], expected \[n, 1, 8, 8\]",
        ),
        (
            {"op_type": "Relu", "input": ["logits"], "output": ["mask", "more"]},
            r"number of outputs is 2, expected <= 1",
        ),
    ],
)
def test_operands_that_do_not_fit(parts: Any, edit: dict[str, Any], message: str) -> None:
    model = parts.graph()
    model.graph.initializer.append(numpy_helper.from_array(i(9), "x"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "t"))
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((1, 1), INT), "one_by_one"))
    last = model.graph.node[3]
    last.op_type = edit["op_type"]
    for name in ("input", "output"):
        if name in edit:
            del getattr(last, name)[:]
            getattr(last, name).extend(edit[name])
    found = parts.set_graph(model).refusal()
    assert re.search(message, found), found


def test_attributes_of_the_wrong_type(parts: Any) -> None:
    for attributes, message in [
        ({"axis": [1]}, r"attribute axis is \[1\], expected of kind int"),
        ({"axis": 1.0}, r"attribute axis is 1\.0, expected of kind int"),
        ({"axis": "1"}, r"attribute axis is '1', expected of kind int"),
        ({"axis": 7}, r"axis is 7, expected -2\.\.1"),
    ]:
        model = parts.graph()
        model.graph.node[0].CopyFrom(
            helper.make_node("Concat", ["noise", "class_embedding"], ["joined"], **attributes)
        )
        found = parts.set_graph(model).refusal()
        assert re.search(message, found), found


def test_a_batch_that_is_baked_in(parts: Any) -> None:
    model = parts.graph()
    model.graph.initializer[2].int64_data[:] = [2, 1, 8, 8]
    assert "shape is [2, 1, 8, 8], expected 64n elements" in parts.set_graph(model).refusal()


def test_sizes_from_shapes_are_followed(parts: Any) -> None:
    """How exporters write a Reshape with a dynamic batch, and an Expand to the batch."""
    model = parts.graph()
    nodes = [
        node("Shape", "noise", out="a"),
        node("Gather", "a", "zero", out="n"),
        node("Unsqueeze", "n", "axes", out="n1"),
        node("Concat", "n1", "rest", out="size", axis=0),
        node("Reshape", "flat", "size", out="again"),
        node("ConstantOfShape", "four", out="ones", value=numpy_helper.from_array(i(1))),
        node("Equal", "size", "minus", out="is"),
        node("Where", "is", "ones", "size", out="to"),
        node("Expand", "again", "to", out="wide"),
    ]
    for index, item in enumerate(nodes):
        model.graph.node.insert(3 + index, item)
    model.graph.node[-1].input[0] = "wide"
    for name, array in {
        "zero": np.array(0),
        "axes": i(0),
        "rest": i(1, 8, 8),
        "four": i(4),
        "minus": i(-1),
    }.items():
        model.graph.initializer.append(numpy_helper.from_array(array, name))

    Plan.open(parts.set_graph(model).save()).close()
