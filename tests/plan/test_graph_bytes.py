"""Graphs whose bytes are hostile, in plans whose hashes are right: counts, sizes and the protobuf encoding."""

from __future__ import annotations

from typing import Any

import pytest
from onnx import helper

from cgnrt.plan.onnx import wire


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
        parts.refuses_graph(model.SerializeToString() + wire.message(7, raw), message)


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
        parts.refuses_graph(data, message)


def test_a_graph_beyond_the_cap(parts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cgnrt.plan.network.MAX_GRAPH_BYTES", 100)
    parts.set_graph(parts.graph())
    assert "graph size is 466 bytes, expected <= 100" in parts.refusal()
