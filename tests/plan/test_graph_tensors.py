"""Hostile tensors of graphs, in plans whose hashes are right: external data, weights and inline tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cgnrt.plan import Plan


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
    parts.refuses_graph(model, message)


def test_an_unknown_key_of_external_data(parts: Any) -> None:
    model = parts.graph()
    external(model, basepath="/etc", length=None)
    parts.refuses_graph(model, r"external_data key is 'basepath', expected location, offset, length")


def test_a_doubled_key_of_external_data(parts: Any) -> None:
    model = parts.graph()
    model.graph.initializer[0].external_data.add(key="location", value="/etc/passwd")
    parts.refuses_graph(model, r"external_data 'location' is present twice")


def test_external_data_without_a_weights_member(parts: Any) -> None:
    model = parts.graph()
    parts.inline()
    parts.refuses_graph(
        model, r"location is 'shape\.weights', expected no location \(the mechanism has no weights member\)"
    )


def test_external_data_that_is_not_declared(parts: Any) -> None:
    model = parts.graph()
    model.graph.initializer[0].ClearField("data_location")
    parts.refuses_graph(
        model, r"external_data is \['length', 'location', 'offset'\], expected entries exactly where"
    )


def test_an_unknown_place_of_data(parts: Any) -> None:
    raw = parts.graph().SerializeToString()
    parts.refuses_graph(
        raw.replace(b"\x70\x01", b"\x70\x02", 1),
        r"data_location is 2, expected 0 \(inline\) or 1 \(ext",
    )


def test_overlapping_weights(parts: Any) -> None:
    model = parts.graph()
    model.graph.initializer[1].external_data[1].value = "1728"
    parts.refuses_graph(
        model, r"external data is overlapping at byte 1728, expected separate or identical pieces"
    )


def test_external_data_in_a_constant(parts: Any) -> None:
    model = parts.graph()
    tensor = TensorProto()
    tensor.CopyFrom(model.graph.initializer[0])
    model.graph.node.insert(0, helper.make_node("Constant", [], ["c"], value=tensor))
    parts.refuses_graph(
        model, r"tensor attribute is external data, expected external data in initializers only"
    )


@pytest.mark.parametrize("extra", [b"\0" * 64, b"#!/bin/sh" * 10])
def test_weights_that_nothing_uses(parts: Any, extra: bytes) -> None:
    parts.members["mechanisms/shape.weights"] += extra
    parts.refuses_graph(
        parts.graph(), r"weights bytes 2048\.\.\d+ is used by no initializer, expected no gaps"
    )


def test_a_gap_between_weights(parts: Any) -> None:
    weights = parts.members["mechanisms/shape.weights"]
    parts.members["mechanisms/shape.weights"] = weights[:1792] + bytes(64) + weights[1792:]
    model = parts.graph()
    model.graph.initializer[1].external_data[1].value = "1856"
    parts.refuses_graph(model, r"weights bytes 1792\.\.1856 is used by no initializer")


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
    parts.refuses_graph(model, message)


def test_typed_data_of_another_type(parts: Any) -> None:
    model = parts.graph()
    tensor = model.graph.initializer[2]
    tensor.ClearField("int64_data")
    tensor.float_data.extend([1, 1, 8, 8])
    parts.refuses_graph(model, r"typed data is field 4, expected raw_data or int64's own field")


def test_a_tensor_without_data(parts: Any) -> None:
    model = parts.graph()
    model.graph.initializer[2].ClearField("int64_data")
    parts.refuses_graph(model, r"bytes of data is 0, expected 32 \(int64 \[4\]\)")
