"""Hostile models, in plans whose hashes are right: nodes, operators, inputs and outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper

from cgnrt.plan import Plan

Edit = Callable[[onnx.ModelProto], None]


def subgraph(*outputs: str) -> onnx.GraphProto:
    nodes = [helper.make_node("Identity", ["logits"], [name]) for name in outputs]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1, 8, 8]) for name in outputs]
    return helper.make_graph(nodes, "sub", [], values)


def add_if(model: onnx.ModelProto) -> None:
    node = helper.make_node("If", ["c"], ["x"], then_branch=subgraph("a"), else_branch=subgraph("b"))
    model.graph.node.append(node)


def add_nested_graphs(model: onnx.ModelProto) -> None:
    graph = subgraph("a")
    for _ in range(15):
        outer = onnx.GraphProto()
        outer.node.append(helper.make_node("If", ["c"], ["x"], then_branch=graph))
        graph = outer
    model.graph.node.append(helper.make_node("Loop", ["c"], ["x"], body=graph))


def add_sparse_attribute(model: onnx.ModelProto) -> None:
    node = model.graph.node.add(op_type="Constant", output=["x"])
    attribute = node.attribute.add(name="sparse_value", type=AttributeProto.SPARSE_TENSOR)
    attribute.sparse_tensor.dims.append(1)


def add_reference(model: onnx.ModelProto) -> None:
    model.graph.node[0].attribute.add(name="x", ref_attr_name="y", type=AttributeProto.INT)


def set_input_type(model: onnx.ModelProto) -> None:
    value = model.graph.input[0]
    value.type.sequence_type.elem_type.tensor_type.elem_type = 1


def two_kinds(model: onnx.ModelProto) -> None:
    attribute = model.graph.node[0].attribute[0]
    attribute.s = b"x"


def edit(statement: str) -> Edit:
    """An edit in one line; `m` is the model, `g` its graph."""

    def run(model: onnx.ModelProto) -> None:
        exec(statement, {"m": model, "g": model.graph, "helper": helper, "TensorProto": TensorProto})

    return run


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            add_if,
            r"node 4 \('If'\): node is one with a subgraph, expected no control flow \(If, Loop, Scan\)",
        ),
        (add_nested_graphs, r"node is one with a subgraph"),
        (add_sparse_attribute, r"attribute field is 22, expected a field of ONNX"),
        (add_reference, r"attribute field is 21, expected a field of ONNX"),
        (two_kinds, r"attribute 'axis' is with values of two types"),
        (set_input_type, r"input type is a sequence, map, opaque, sparse or optional, expected a tensor"),
        (edit("m.functions.add(name='f', domain='x')"), r"model is one with functions of its own"),
        (edit("m.training_info.add()"), r"model is one with training information"),
        (edit("g.sparse_initializer.add()"), r"graph is one with sparse initializers"),
        (edit("g.quantization_annotation.add()"), r"graph is one with quantization annotations"),
        (
            edit("g.node[0].domain = 'com.microsoft'"),
            r"operator domain is 'com\.microsoft', expected the default",
        ),
        (edit("m.opset_import.add(domain='evil', version=1)"), r"operator domain is 'evil'"),
        (edit("m.opset_import.add(domain='ai.onnx', version=17)"), r"operator set '' is present twice"),
        (edit("m.opset_import[0].version = 12"), r"operator set is ai\.onnx 12, expected ai\.onnx 13\.\.24"),
        (edit("m.opset_import[0].version = 99"), r"operator set is ai\.onnx 99"),
        (edit("m.opset_import[0].version = -1"), r"operator set is ai\.onnx 18446744073709551615"),
        (edit("del m.opset_import[:]"), r"operator sets is without the default one"),
        (edit("m.ir_version = 99"), r"IR version is 99, expected 4\.\.13"),
        (edit("m.ClearField('graph')"), r"graph member is without a graph"),
        (
            edit("g.node[3].op_type = 'RandomNormalLike'"),
            r"operator is 'RandomNormalLike', expected one that docs",
        ),
        (edit("g.node[3].op_type = ''"), r"node 3 \(''\): operator is ''"),
        (
            edit("g.node[3].input[0] = 'nothing'"),
            r"node 3 \('Sigmoid'\): input is 'nothing', expected a value made",
        ),
        (edit("g.node.reverse()"), r"node 0 \('Sigmoid'\): input is 'logits', expected a value made before"),
        (edit("g.node[1].output[0] = 'joined'"), r"node 1 \('Gemm'\): output is 'joined' again"),
        (edit("g.node[1].output[0] = 'weight'"), r"node 1 \('Gemm'\): output is 'weight' again"),
        (edit("del g.node[1].output[:]"), r"node 1 \('Gemm'\): outputs is 0"),
        (edit("del g.node[:]"), r"graph is without nodes"),
        (edit("del g.node[3]"), r"graph output 'mask' is made by no node"),
        (
            edit("g.input[0].name = 'z'"),
            r"graph inputs is \['z', 'class_embedding'\], expected \['class_embedding', 'n",
        ),
        (
            edit("g.input.add().CopyFrom(g.input[0])"),
            r"graph inputs is \['noise', 'class_embedding', 'noise'\]",
        ),
        (edit("del g.input[1]"), r"graph inputs is \['noise'\]"),
        (edit("g.output[0].name = 'foreground'"), r"graph outputs is \['foreground'\], expected \['mask'\]"),
        (edit("g.output.add().CopyFrom(g.output[0])"), r"graph outputs is \['mask', 'mask'\]"),
        (edit("[g.output.add() for _ in range(20)]"), r"output '' is without type or shape"),
        (
            edit("g.input[0].type.tensor_type.elem_type = 10"),
            r"graph input 'noise': element type is float16, expected fl",
        ),
        (edit("g.input[0].type.tensor_type.elem_type = 8"), r"input element type is 8"),
        (
            edit("g.input[0].type.tensor_type.shape.dim[1].dim_value = 5"),
            r"graph input 'noise': shape is \['n', 5\]",
        ),
        (
            edit("g.input[0].type.tensor_type.shape.dim[1].dim_param = 'z'"),
            r"graph input 'noise': shape is \['n', 'z'\]",
        ),
        (
            edit("g.input[0].type.tensor_type.shape.dim[0].dim_value = 1"),
            r"batch is 1, expected a named dimension",
        ),
        (
            edit("g.input[0].type.tensor_type.shape.dim.add()"),
            r"graph input 'noise': shape is \['n', 4, None\]",
        ),
        (edit("g.input[0].type.tensor_type.ClearField('shape')"), r"input 'noise' is without type or shape"),
        (
            edit("g.output[0].type.tensor_type.shape.dim[1].dim_value = 3"),
            r"graph output 'mask': shape is \['n', 3, 8",
        ),
        (
            edit("g.initializer[2].int64_data[0] = 1"),
            r"node 2 \('Reshape'\): shape is \[1, 1, 8, 8\], expected 64n ele",
        ),
        (edit("g.node[0].attribute[0].type = 0"), r"attribute 'axis' is of type 0"),
        (
            edit("g.node[0].attribute.add().CopyFrom(g.node[0].attribute[0])"),
            r"attribute 'axis' is present twice",
        ),
        (edit("g.node[1].name = 'x' * 2000"), r"name is 2000 bytes long, expected <= 1024"),
    ],
    ids=range(46),
)
def test_models(parts: Any, change: Edit, message: str) -> None:
    model = parts.graph()
    change(model)
    parts.refuses_graph(model, message)


def test_metadata_is_ignored(parts: Any) -> None:
    model = parts.graph()
    model.doc_string = "words"
    model.metadata_props.add(key="k", value="v")
    model.graph.metadata_props.add(key="k", value="v")
    model.graph.node[0].metadata_props.add(key="k", value="v")
    model.graph.node[0].doc_string = "words"
    model.graph.value_info.append(helper.make_tensor_value_info("flat", TensorProto.FLOAT, ["n", 64]))
    Plan.open(parts.set_graph(model).save()).close()
