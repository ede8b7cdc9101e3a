"""Hostile graphs in plans whose hashes are right."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from cgnrt.plan import Plan
from cgnrt.plan.onnx import wire

Edit = Callable[[onnx.ModelProto], None]


def refused(parts: Any, model: onnx.ModelProto | bytes, message: str) -> None:
    """The plan is refused with these words, whether hashes are compared or not."""
    parts.set_graph(model)
    for verify in (True, False):
        found = parts.refusal(verify=verify)
        assert "mechanism 'shape': graph: " in found
        assert re.search(message, found), found


def external(model: onnx.ModelProto, **pairs: str | None) -> None:
    """Change the external data of the first initializer (`weight`, 64 x 7 float32 at offset 0)."""
    tensor = model.graph.initializer[0]
    kept = {pair.key: pair.value for pair in tensor.external_data}
    kept |= {key: value for key, value in pairs.items() if value is not None}
    del tensor.external_data[:]
    for key, value in kept.items():
        if pairs.get(key, "") is not None:
            tensor.external_data.add(key=key, value=value)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (
            {"location": "/etc/passwd"},
            r"location is '/etc/passwd', expected 'shape\.weights', the graph's own weights",
        ),
        ({"location": "../shape.weights"}, r"location is '\.\./shape\.weights'"),
        ({"location": "mechanisms/shape.weights"}, r"location is 'mechanisms/shape\.weights'"),
        ({"location": "texture.weights"}, r"location is 'texture\.weights', expected 'shape\.weights'"),
        ({"location": "./shape.weights"}, r"location is '\./shape\.weights'"),
        ({"location": "shape.weights\0"}, r"location is 'shape\.weights\\x00'"),
        ({"location": ""}, r"location is ''"),
        ({"location": "*/_ORT_MEM_ADDR_/*", "offset": "4096"}, r"location is '\*/_ORT_MEM_ADDR_/\*'"),
        ({"location": "http://example.com/x"}, r"location is 'http:"),
        ({"location": None}, r"external_data location is missing, expected all of location, offset, length"),
        ({"offset": None}, r"external_data offset is missing"),
        ({"length": None}, r"external_data length is missing"),
        ({"offset": "-64"}, r"external_data offset is '-64', expected a plain decimal number"),
        ({"offset": "+64"}, r"external_data offset is '\+64'"),
        ({"offset": " 64"}, r"external_data offset is ' 64'"),
        ({"offset": "064"}, r"external_data offset is '064'"),
        ({"offset": "0x40"}, r"external_data offset is '0x40'"),
        ({"offset": "\u0664"}, r"external_data offset is '\u0664'"),
        ({"offset": "9" * 400}, r"external_data offset is '9{10,}\.\.\.'|external_data offset is '9+"),
        ({"offset": "32"}, r"external data offset is 32, expected a multiple of 64"),
        ({"offset": "320"}, r"external data is bytes 320\.\.2112, expected a part of the 2048 bytes"),
        ({"offset": str(2**62)}, r"external data is bytes 4611686018427387904\.\."),
        ({"length": "1791"}, r"bytes of data is 1791, expected 1792 \(float32 \[64, 7\]\)"),
        ({"length": "0"}, r"bytes of data is 0, expected 1792"),
        ({"checksum": "0"}, r"external_data is over three keys|external_data key is 'checksum'"),
    ],
)
def test_external_data(parts: Any, pairs: dict[str, str | None], message: str) -> None:
    model = parts.graph()
    external(model, **pairs)
    refused(parts, model, message)


def test_an_unknown_key_of_external_data(parts: Any) -> None:
    model = parts.graph()
    external(model, basepath="/etc", length=None)
    refused(parts, model, r"external_data key is 'basepath', expected location, offset, length")


def test_a_doubled_key_of_external_data(parts: Any) -> None:
    model = parts.graph()
    model.graph.initializer[0].external_data.add(key="location", value="/etc/passwd")
    refused(parts, model, r"external_data 'location' is present twice")


def test_external_data_without_a_weights_member(parts: Any) -> None:
    model = parts.graph()
    parts.inline()
    refused(
        parts, model, r"location is 'shape\.weights', expected none \(the mechanism has no weights member\)"
    )


def test_external_data_that_is_not_declared(parts: Any) -> None:
    model = parts.graph()
    model.graph.initializer[0].ClearField("data_location")
    refused(
        parts, model, r"external_data is \['length', 'location', 'offset'\], expected entries exactly where"
    )


def test_an_unknown_place_of_data(parts: Any) -> None:
    raw = parts.graph().SerializeToString()
    refused(
        parts,
        raw.replace(b"\x70\x01", b"\x70\x02", 1),
        r"data_location is 2, expected 0 \(inline\) or 1 \(ext",
    )


def test_overlapping_weights(parts: Any) -> None:
    model = parts.graph()
    model.graph.initializer[1].external_data[1].value = "1728"
    refused(parts, model, r"external data is overlapping at byte 1728, expected separate or identical pieces")


def test_external_data_in_a_constant(parts: Any) -> None:
    model = parts.graph()
    tensor = TensorProto()
    tensor.CopyFrom(model.graph.initializer[0])
    model.graph.node.insert(0, helper.make_node("Constant", [], ["c"], value=tensor))
    refused(parts, model, r"tensor attribute is external data, expected external data in initializers only")


@pytest.mark.parametrize("extra", [b"\0" * 64, b"#!/bin/sh" * 10])
def test_weights_that_nothing_uses(parts: Any, extra: bytes) -> None:
    parts.members["mechanisms/shape.weights"] += extra
    refused(parts, parts.graph(), r"weights bytes 2048\.\.\d+ is used by no initializer, expected no gaps")


def test_a_gap_between_weights(parts: Any) -> None:
    weights = parts.members["mechanisms/shape.weights"]
    parts.members["mechanisms/shape.weights"] = weights[:1792] + bytes(64) + weights[1792:]
    model = parts.graph()
    model.graph.initializer[1].external_data[1].value = "1856"
    refused(parts, model, r"weights bytes 1792\.\.1856 is used by no initializer")


def test_tied_weights_are_fine(parts: Any) -> None:
    model = parts.graph()
    twin = model.graph.initializer.add()
    twin.CopyFrom(model.graph.initializer[1])
    twin.name = "twin"
    Plan.open(parts.set_graph(model).save()).close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"dims": [2**31, 2**31, 2**31]},
            r"dims is \[2147483648, .*, \d+ elements, expected <= 134217728 elements",
        ),
        ({"dims": [2**62, 4]}, r"dims is .* expected <= 134217728 elements"),
        ({"dims": [2**63 - 1]}, r"dims is .* expected <= 134217728 elements"),
        ({"dims": [0, 2**40]}, r"dims is \[0, 1099511627776\], 0 elements, expected <= 134217728"),
        ({"dims": [-4]}, r"dims is \[-4\], expected sizes >= 0"),
        ({"dims": [1] * 9}, r"rank is over 8"),
        ({"dims": [5]}, r"bytes of data is 32, expected 40 \(int64 \[5\]\)"),
        ({"dims": []}, r"bytes of data is 32, expected 8 \(int64 \[\]\)"),
        ({"data_type": 8}, r"data type is string \(8\), expected one of float32"),
        ({"data_type": 0}, r"data type is 0, expected one of"),
        ({"data_type": 14}, r"data type is 14, expected one of"),
        ({"data_type": 99}, r"data type is 99, expected one of"),
        ({"raw_data": b"x" * 31}, r"bytes of data is 31|data is present twice"),
        ({"string_data": [b"x"]}, r"initializer field is 6, expected a field of ONNX"),
        ({"double_data": [1.0]}, r"initializer field is 10, expected a field of ONNX"),
        ({"name": ""}, r"initializer '' is an input or without a name"),
        ({"name": "noise"}, r"initializer 'noise' is an input or without a name"),
        ({"name": "weight"}, r"initializer 'weight' is present twice"),
        (
            {"float_data": [1.0]},
            r"data is present twice, expected one of raw_data, typed data, external_data",
        ),
    ],
)
def test_inline_tensors(parts: Any, change: dict[str, Any], message: str) -> None:
    model = parts.graph()
    tensor = model.graph.initializer[2]
    tensor.CopyFrom(numpy_helper.from_array(np.array([-1, 1, 8, 8]), "picture_shape"))
    for name, value in change.items():
        if isinstance(value, list):
            tensor.ClearField(name)
            getattr(tensor, name).extend(value)
        else:
            setattr(tensor, name, value)
    refused(parts, model, message)


def test_typed_data_of_another_type(parts: Any) -> None:
    model = parts.graph()
    tensor = model.graph.initializer[2]
    tensor.ClearField("int64_data")
    tensor.float_data.extend([1, 1, 8, 8])
    refused(parts, model, r"typed data is field 4, expected raw_data or int64's own field")


def test_a_tensor_without_data(parts: Any) -> None:
    model = parts.graph()
    model.graph.initializer[2].ClearField("int64_data")
    refused(parts, model, r"bytes of data is 0, expected 32 \(int64 \[4\]\)")


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
        (edit("del g.node[1].output[:]"), r"node 1 \('Gemm'\): outputs is none"),
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
    refused(parts, model, message)


def attribute(name: str, ints: list[int]) -> bytes:
    """A node's field with an attribute."""
    return wire.message(5, helper.make_attribute(name, ints).SerializeToString())


def test_counts_are_capped(parts: Any) -> None:
    node = wire.message(4, b"Relu")
    tensor = parts.graph().graph.initializer[2].SerializeToString()
    for raw, message in [
        (wire.message(1, node) * 20_001, "number of nodes is over 20000"),
        (wire.message(1, wire.message(1, b"x") * 4097), "links is over 4096"),
        (
            wire.message(1, wire.message(1, b"x") * 4000) * 51,
            "inputs and outputs of all nodes is over 200000",
        ),
        (
            wire.message(1, node + b"".join(attribute(f"a{k}", [1]) for k in range(33))),
            "attributes is over 32, expected <= 32",
        ),
        (wire.message(1, node + attribute("a", [1] * 4097)), "is over 4096"),
        (
            wire.message(1, node + attribute("a", [1] * 4000)) * 63,
            "numbers in attributes and typed data is over 250000, expected <= 250000",
        ),
        (wire.message(1, node + wire.message(9, b"") * 17), "metadata of node is over 16 entries"),
        (wire.message(16, b"") * 17, "metadata of graph is over 16 entries, expected <= 16"),
        (
            wire.message(13, b"\x0a\x01x\x12\x08\x0a\x06\x08\x01\x12\x02\x0a\x00") * 40_001,
            "number of value infos is over 40000",
        ),
        (wire.message(13, b"\x0a\x01x\x12\x04\x0a\x02\x08\x01"), "without type or shape"),
        (b"".join(wire.message(5, tensor + wire.message(16, b"")) for _ in range(2)), "is present twice"),
    ]:
        model = parts.graph()
        model.ClearField("graph")
        refused(parts, model.SerializeToString() + wire.message(7, raw), message)


def test_metadata_is_ignored(parts: Any) -> None:
    model = parts.graph()
    model.doc_string = "words"
    model.metadata_props.add(key="k", value="v")
    model.graph.metadata_props.add(key="k", value="v")
    model.graph.node[0].metadata_props.add(key="k", value="v")
    model.graph.node[0].doc_string = "words"
    model.graph.value_info.append(helper.make_tensor_value_info("flat", TensorProto.FLOAT, ["n", 64]))
    Plan.open(parts.set_graph(model).save()).close()


def test_protobuf_that_two_readers_could_understand_differently(parts: Any) -> None:
    raw = parts.members["mechanisms/shape.onnx"]
    model = parts.graph()
    graph = model.graph.SerializeToString()
    tensor = model.graph.initializer[0].SerializeToString()
    start = raw.index(tensor)
    head = raw[: raw.index(graph)]

    def with_graph(body: bytes) -> bytes:
        rest = parts.graph()
        rest.ClearField("graph")
        return rest.SerializeToString() + wire.message(7, body)

    cases = [
        (raw + wire.message(7, graph), r"model field 7 is present twice, expected a singular field"),
        (raw + wire.message(7, b""), r"model field 7 is present twice"),
        (raw + b"\x08\x08", r"model field 1 is present twice"),
        (raw + wire.message(99, b"x"), r"model field is 99, expected a field of ONNX"),
        (raw + b"\x0b", r"wire type 3, expected 0, 1, 2 or 5"),
        (raw + b"\x0f", r"wire type 7"),
        (raw + b"\x00\x00", r"number 0, expected 1\.\."),
        (raw + b"\x28" + b"\xff" * 10 + b"\x01", r"over-long, expected a canonical 64-bit varint"),
        (raw + b"\x28\x80\x00", r"over-long, expected a canonical"),
        (raw + b"\x28\xff", r"cut short"),
        (raw + b"\x3d\x00", r"cut short"),
        (raw + b"\x42\xff\x7f", r"16383 bytes long, expected <= 0 left"),
        (
            raw + b"\x42\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            r"18446744073709551615 bytes long, expected <= 0",
        ),
        (raw[:-1], r"expected"),
        (raw[: len(raw) // 2], r"expected"),
        (b"", r"graph member is without a graph"),
        (b"\x08" + raw, r"expected"),
        (head, r"expected"),
        (with_graph(graph + wire.message(2, b"again")), r"graph field 2 is present twice"),
        (with_graph(graph + b"\x08\x01"), r"graph field 1 is a varint, expected a bytes"),
        (
            with_graph(graph + wire.message(5, tensor + wire.message(8, b"other"))),
            r"initializer field 8 is present twice",
        ),
        (with_graph(graph + wire.message(5, tensor + b"\x10\x01")), r"initializer field 2 is present twice"),
        (
            with_graph(graph + wire.message(1, b"\x0a\x02\xff\xfe")),
            r"input name is b'\\xff\\xfe', expected UTF-8",
        ),
        (
            with_graph(graph + wire.message(1, b"\x0d\x00\x00\x00\x00")),
            r"input name is a fixed32, expected a bytes",
        ),
    ]
    assert start > 0
    for data, message in cases:
        refused(parts, data, message)


def test_a_graph_beyond_the_cap(parts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cgnrt.plan.reader.MAX_GRAPH_BYTES", 100)
    parts.set_graph(parts.graph())
    assert "graph size is 466 bytes, expected <= 100" in parts.refusal()
