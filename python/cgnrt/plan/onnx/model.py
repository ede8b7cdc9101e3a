"""An ONNX model file as plain Python objects, read without the onnx and protobuf packages.

A plan may come from a stranger, and what is checked must be exactly what an engine reads. protobuf accepts what two
readers can understand differently (a field that comes twice, groups, over-long numbers), keeps fields that it does
not know, and allocates before a limit can be checked; the runtime would also need two more packages. So the part of
the format that a feed-forward network needs is read here: nodes, initializers, typed inputs and outputs. Anything
that could carry code, a path or a second meaning (subgraphs, functions, sparse tensors, training information, other
operator domains, external data outside initializers) is refused by name. `graph` checks the rest.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from cgnrt.errors import EXPORT_AGAIN, PlanError, refuse, show, within
from cgnrt.plan.limits import (
    MAX_ATTRIBUTES,
    MAX_GRAPH_BYTES,
    MAX_LINKS,
    MAX_NODE_LINKS,
    MAX_NODES,
    MAX_NUMBERS,
    MAX_OPSET,
    MAX_RANK,
    MAX_TENSORS,
    MIN_OPSET,
)
from cgnrt.plan.onnx import wire
from cgnrt.plan.onnx.wire import (
    BYTES,
    DATA_TYPES,
    FIXED32,
    VARINT,
    DataType,
    Field,
    Once,
    Tensor,
    floats,
    parse_tensor,
)

# Numbers of fields in onnx.proto.
_MODEL_GRAPH, _MODEL_OPSET, _MODEL_TRAINING, _MODEL_FUNCTIONS = 7, 8, 20, 25
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT, _GRAPH_VALUE_INFO, _GRAPH_SPARSE = (
    1,
    5,
    11,
    12,
    13,
    15,
)

_SUBGRAPH_STEP = "Export a feed-forward network without control flow."


Attribute = int | float | str | list[int] | list[float] | list[str] | Tensor


class Node(NamedTuple):
    """One operator of the graph."""

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute]


class Value(NamedTuple):
    """A graph input or output: dimensions are sizes, names of sizes, or None where nothing is said."""

    name: str
    dtype: DataType
    dims: tuple[int | str | None, ...]


@dataclass(slots=True)
class Model:
    """What a graph member says. `data` are its bytes, `graph` is the span of its GraphProto in them."""

    data: bytes = field(repr=False)
    opset: int = 0
    graph: tuple[int, int] = (0, 0)
    graph_tag: int = 0
    nodes: list[Node] = field(default_factory=list)
    initializers: dict[str, Tensor] = field(default_factory=dict)
    inputs: list[Value] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)


def parse_model(data: bytes) -> Model:
    """Read a graph member.

    Raises:
      PlanError: not an ONNX model, beyond a limit, or with something that plans do not allow.
    """
    if len(data) > MAX_GRAPH_BYTES:
        raise refuse("graph size", f"{len(data)} bytes", f"<= {MAX_GRAPH_BYTES}")
    model = Model(data)
    once = Once("model", (_MODEL_OPSET, 14), (1, 2, 3, 4, 5, 6, 7, 8, 14), 14)
    opsets: dict[str, int] = {}
    for item in wire.fields(data, 0, len(data)):
        if item.number == _MODEL_TRAINING:
            raise refuse("model", "one with training information", "an inference graph")
        if item.number == _MODEL_FUNCTIONS:
            raise refuse("model", "one with functions of its own", "standard operators only", "Inline them.")
        once.check(item.number)
        if item.number == 1:
            wire.want(item, VARINT, "IR version")
            if not 4 <= item.value <= 13:
                raise refuse("IR version", item.value, "4..13")
        elif item.number == _MODEL_GRAPH:
            wire.want(item, BYTES, "graph")
            model.graph, model.graph_tag = (item.value, item.end), item.tag
        elif item.number == _MODEL_OPSET:
            domain, version = _parse_opset(data, item)
            if domain in opsets:
                raise refuse(f"operator set {domain!r}", "present twice", "each domain once")
            opsets[domain] = version
    if model.graph == (0, 0):
        raise refuse("graph member", "without a graph", "an ONNX model")
    if "" not in opsets:
        raise refuse("operator sets", "without the default one", f"ai.onnx {MIN_OPSET}..{MAX_OPSET}")
    model.opset = opsets[""]
    if not MIN_OPSET <= model.opset <= MAX_OPSET:
        raise refuse("operator set", f"ai.onnx {model.opset}", f"ai.onnx {MIN_OPSET}..{MAX_OPSET}")
    _parse_graph(data, *model.graph, model)
    return model


def _parse_opset(data: bytes, item: Field) -> tuple[str, int]:
    wire.want(item, BYTES, "operator set")
    once = Once("operator set", (), (1, 2))
    domain, version = "", 0
    for part in wire.fields(data, item.value, item.end):
        once.check(part.number)
        if part.number == 1:
            domain = wire.text(data, part, "operator set domain")
        else:
            wire.want(part, VARINT, "operator set version")
            version = part.value
    domain = check_domain(domain)
    return domain, version


def check_domain(domain: str) -> str:
    """The default operator domain, under either of its names."""
    if domain not in ("", "ai.onnx"):
        raise refuse(
            "operator domain", show(domain), "the default one (ai.onnx)", "Export with standard operators."
        )
    return ""


def _parse_graph(data: bytes, start: int, end: int, model: Model) -> None:
    repeated = (_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT, _GRAPH_VALUE_INFO, 16)
    once = Once("graph", repeated, (1, 2, 5, 10, 11, 12, 13, 16), 16)
    infos = links = numbers = 0
    for item in wire.fields(data, start, end):
        if item.number == _GRAPH_SPARSE:
            raise refuse("graph", "one with sparse initializers", "dense ones")
        if item.number == 14:
            raise refuse("graph", "one with quantization annotations", "one without")
        once.check(item.number)
        wire.want(item, BYTES, f"graph field {item.number}")
        if item.number == _GRAPH_NODE:
            if len(model.nodes) >= MAX_NODES:
                raise refuse("number of nodes", f"over {MAX_NODES}", f"<= {MAX_NODES}")
            node = _parse_node(data, item, len(model.nodes))
            model.nodes.append(node)
            links += len(node.inputs) + len(node.outputs)
            numbers += sum(map(_count, node.attributes.values()))
            if links > MAX_LINKS:
                raise refuse("inputs and outputs of all nodes", f"over {MAX_LINKS}", f"<= {MAX_LINKS}")
        elif item.number == _GRAPH_INITIALIZER:
            if len(model.initializers) >= MAX_TENSORS:
                raise refuse("number of initializers", f"over {MAX_TENSORS}", f"<= {MAX_TENSORS}")
            tensor = parse_tensor(data, item, "initializer")
            if tensor.name in model.initializers:
                raise refuse(f"initializer {show(tensor.name)}", "present twice", "each name once")
            model.initializers[tensor.name] = tensor
            numbers += _count(tensor)
        elif item.number == _GRAPH_INPUT:
            model.inputs.append(_parse_value(data, item, "input"))
        elif item.number == _GRAPH_OUTPUT:
            model.outputs.append(_parse_value(data, item, "output"))
        elif item.number == _GRAPH_VALUE_INFO:
            infos += 1
            if infos > MAX_NODES * 2:
                raise refuse("number of value infos", f"over {MAX_NODES * 2}", f"<= {MAX_NODES * 2}")
            _parse_value(data, item, "value info")
        if numbers > MAX_NUMBERS:
            raise refuse("numbers in attributes and typed data", f"over {MAX_NUMBERS}", f"<= {MAX_NUMBERS}")
        if len(model.inputs) + len(model.outputs) > 16:
            raise refuse("number of graph inputs and outputs", "over 16", "those of the manifest")


def _count(value: Attribute) -> int:
    """The numbers that were read one by one."""
    if isinstance(value, Tensor):
        return len(value.numbers or ())
    return len(value) if isinstance(value, list) else 1


def _parse_node(data: bytes, item: Field, index: int) -> Node:
    once = Once("node", (1, 2, 5, 9), (1, 2, 3, 4, 5, 6, 7, 9), 9)
    inputs: list[str] = []
    outputs: list[str] = []
    attributes: dict[str, Attribute] = {}
    op = name = ""
    links = 0
    try:
        for part in wire.fields(data, item.value, item.end):
            once.check(part.number)
            if part.number in (1, 2):
                links += 1
                if links > MAX_NODE_LINKS:
                    raise refuse("links", f"over {MAX_NODE_LINKS}", f"<= {MAX_NODE_LINKS}")
            if part.number == 1:
                inputs.append(wire.text(data, part, "input name"))
            elif part.number == 2:
                outputs.append(wire.text(data, part, "output name"))
            elif part.number == 3:
                name = wire.text(data, part, "name")
            elif part.number == 4:
                op = wire.text(data, part, "operator")
            elif part.number == 5:
                key, value = _parse_attribute(data, part)
                if key in attributes:
                    raise refuse(f"attribute {show(key)}", "present twice", "each name once")
                attributes[key] = value
                if len(attributes) > MAX_ATTRIBUTES:
                    raise refuse("attributes", f"over {MAX_ATTRIBUTES}", f"<= {MAX_ATTRIBUTES}")
            elif part.number == 7:
                check_domain(wire.text(data, part, "operator domain"))
            else:
                wire.want(part, BYTES, f"field {part.number}")
    except PlanError as error:
        raise within(f"node {index}{f' ({show(op)})' if op else ''}", error) from None
    return Node(op, name, tuple(inputs), tuple(outputs), attributes)


# AttributeProto: type number -> number of the field with the value.
_ATTRIBUTE_FIELDS = {1: 2, 2: 3, 3: 4, 4: 5, 6: 7, 7: 8, 8: 9}


def _parse_attribute(data: bytes, item: Field) -> tuple[str, Attribute]:
    wire.want(item, BYTES, "attribute")
    once = Once("attribute", (7, 8, 9), (1, 2, 3, 4, 5, 7, 8, 9, 13, 20))
    name, kind = "", 0
    numbers: list[float] = []
    ints: list[int] = []
    strings: list[str] = []
    single: Attribute | None = None
    found: set[int] = set()
    for part in wire.fields(data, item.value, item.end):
        if part.number in (6, 11):
            raise refuse("node", "one with a subgraph", "no control flow (If, Loop, Scan)", _SUBGRAPH_STEP)
        once.check(part.number)
        if 2 <= part.number <= 9:
            found.add(part.number)
        if part.number == 1:
            name = wire.text(data, part, "attribute name")
        elif part.number == 2:
            wire.want(part, FIXED32, "float attribute")
            single = float(struct.unpack("<f", part.value.to_bytes(4, "little"))[0])
        elif part.number == 3:
            wire.want(part, VARINT, "int attribute")
            single = wire.signed(part.value)
        elif part.number == 4:
            single = wire.text(data, part, "string attribute")
        elif part.number == 5:
            single = parse_tensor(data, part, "tensor attribute")
            if single.external is not None:
                raise refuse("tensor attribute", "external data", "external data in initializers only")
        elif part.number == 7:
            numbers += floats(data, part, "floats attribute")
        elif part.number == 8:
            ints += wire.signed_list(data, part, "ints attribute", MAX_NODE_LINKS)
        elif part.number == 9:
            strings.append(wire.text(data, part, "strings attribute"))
        elif part.number == 20:
            wire.want(part, VARINT, "attribute type")
            kind = part.value
        if max(len(numbers), len(ints), len(strings)) > MAX_NODE_LINKS:
            raise refuse("attribute length", f"over {MAX_NODE_LINKS}", f"<= {MAX_NODE_LINKS}")
    if kind not in _ATTRIBUTE_FIELDS:
        raise refuse(f"attribute {show(name)}", f"of type {kind}", "numbers, strings or a dense tensor")
    if not found <= {_ATTRIBUTE_FIELDS[kind]}:
        raise refuse(f"attribute {show(name)}", "with values of two types", "the type that it declares")
    lists: dict[int, Attribute] = {6: numbers, 7: ints, 8: strings}
    defaults: dict[int, Attribute] = {1: 0.0, 2: 0, 3: ""}
    value = lists.get(kind, single if single is not None else defaults.get(kind))
    if value is None:
        raise refuse(f"attribute {show(name)}", "empty", "a tensor")
    return name, value


def _parse_value(data: bytes, item: Field, what: str) -> Value:
    once = Once(what, (4,), (1, 2, 3, 4), 4)
    name = ""
    dtype: DataType | None = None
    dims: tuple[int | str | None, ...] | None = None
    for part in wire.fields(data, item.value, item.end):
        once.check(part.number)
        if part.number == 1:
            name = wire.text(data, part, f"{what} name")
        elif part.number == 2:
            dtype, dims = _parse_type(data, part, what)
    if dtype is None or dims is None:
        raise refuse(f"{what} {show(name)}", "without type or shape", "a tensor of known rank", EXPORT_AGAIN)
    return Value(name, dtype, dims)


def _parse_type(
    data: bytes, item: Field, what: str
) -> tuple[DataType | None, tuple[int | str | None, ...] | None]:
    wire.want(item, BYTES, f"{what} type")
    once = Once(f"{what} type", (), (1, 6))
    dtype: DataType | None = None
    dims: tuple[int | str | None, ...] | None = None
    for part in wire.fields(data, item.value, item.end):
        if part.number in (4, 5, 7, 8, 9):
            raise refuse(f"{what} type", "a sequence, map, opaque, sparse or optional", "a tensor")
        once.check(part.number)
        wire.want(part, BYTES, f"{what} type")
        if part.number == 6:
            continue
        tensor_once = Once(f"{what} tensor type", (), (1, 2))
        for entry in wire.fields(data, part.value, part.end):
            tensor_once.check(entry.number)
            if entry.number == 1:
                wire.want(entry, VARINT, f"{what} element type")
                if entry.value not in DATA_TYPES:
                    raise refuse(f"{what} element type", entry.value, "a type that plans use")
                dtype = DATA_TYPES[entry.value]
            else:
                wire.want(entry, BYTES, f"{what} shape")
                dims = _parse_shape(data, entry, what)
    return dtype, dims


def _parse_shape(data: bytes, item: Field, what: str) -> tuple[int | str | None, ...]:
    dims: list[int | str | None] = []
    for part in wire.fields(data, item.value, item.end):
        if part.number != 1 or part.wire != BYTES or len(dims) >= MAX_RANK:
            raise refuse(f"{what} shape", "not a list of dimensions", f"up to {MAX_RANK} dimensions")
        once = Once(f"{what} dimension", (), (1, 2, 3))
        dim: int | str | None = None
        for entry in wire.fields(data, part.value, part.end):
            once.check(entry.number)
            if entry.number == 3:
                continue
            if dim is not None:
                raise refuse(f"{what} dimension", "both a size and a name", "one of them")
            if entry.number == 1:
                wire.want(entry, VARINT, f"{what} dimension")
                dim = wire.signed(entry.value)
            else:
                dim = wire.text(data, entry, f"{what} dimension")
        dims.append(dim)
    return tuple(dims)
