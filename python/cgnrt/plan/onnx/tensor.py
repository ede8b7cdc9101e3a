"""The tensors of an ONNX graph, each with exactly the bytes of its dimensions."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import NamedTuple

from cgnrt.errors import refuse, show
from cgnrt.plan.limits import MAX_ELEMENTS, MAX_NODE_LINKS, MAX_RANK
from cgnrt.plan.onnx import wire
from cgnrt.plan.onnx.wire import BYTES, FIXED32, VARINT, Field

# Numbers of fields in TensorProto.
_TENSOR_RAW, _TENSOR_EXTERNAL, _TENSOR_LOCATION = 9, 13, 14
_EXTERNAL_KEYS = ("location", "offset", "length")


class DataType(NamedTuple):
    """An element type that plans may use."""

    name: str
    size: int  # bytes
    numpy: str | None  # little-endian NumPy dtype, where NumPy has one
    typed_field: int | None = None  # the TensorProto field that may hold it instead of raw_data


DATA_TYPES: Mapping[int, DataType] = {
    1: DataType("float32", 4, "<f4", 4),
    2: DataType("uint8", 1, "u1"),
    3: DataType("int8", 1, "i1"),
    6: DataType("int32", 4, "<i4", 5),
    7: DataType("int64", 8, "<i8", 7),
    9: DataType("bool", 1, "?"),
    10: DataType("float16", 2, "<f2"),
    11: DataType("float64", 8, "<f8"),
    16: DataType("bfloat16", 2, None),
}


class External(NamedTuple):
    """A piece of the weights member, as the graph names it."""

    location: str
    offset: int
    length: int


class Tensor(NamedTuple):
    """An initializer or a constant; its data is in one of three places, or it has no elements.

    `span` is where raw bytes lie in the graph, `numbers` are typed values, `external` a piece of the weights.
    """

    name: str
    dtype: DataType
    dims: tuple[int, ...]
    elements: int
    span: tuple[int, int] | None
    numbers: tuple[int | float, ...] | None
    external: External | None

    @property
    def nbytes(self) -> int:
        return self.elements * self.dtype.size


class Once:
    """Refuses a singular field that comes twice: protobuf would merge the two, other readers take one."""

    def __init__(self, what: str, repeated: tuple[int, ...], known: tuple[int, ...]) -> None:
        self.what, self.repeated, self.known = what, repeated, known
        self.seen = 0

    def check(self, number: int) -> None:
        if number not in self.known:
            raise refuse(f"{self.what} field", number, "a field of ONNX IR version 4..13 that plans use")
        if number not in self.repeated:
            if self.seen >> number & 1:
                raise refuse(f"{self.what} field {number}", "present twice", "a singular field")
            self.seen |= 1 << number


def floats(data: bytes, part: Field, what: str) -> list[float]:
    """A repeated float field's part."""
    if part.wire == FIXED32:
        return [struct.unpack("<f", part.value.to_bytes(4, "little"))[0]]
    wire.want(part, BYTES, what)
    size = part.end - part.value
    if size % 4 or size > 4 * MAX_NODE_LINKS:
        raise refuse(f"size of {what}", f"{size} bytes", f"a multiple of 4, <= {4 * MAX_NODE_LINKS}")
    return list(struct.unpack_from(f"<{size // 4}f", data, part.value))


def parse_tensor(data: bytes, item: Field, what: str) -> Tensor:
    """Read a TensorProto and check that its bytes are exactly those of its dimensions."""
    wire.want(item, BYTES, what)
    once = Once(what, (1, 4, 5, 7, _TENSOR_EXTERNAL, 16), (1, 2, 4, 5, 7, 8, _TENSOR_RAW, 12, 13, 14, 16))
    name, kind, location = "", 0, 0
    dims: list[int] = []
    span: tuple[int, int] | None = None
    typed: dict[int, list[int | float]] = {}
    pairs: dict[str, str] = {}
    for part in wire.fields(data, item.value, item.end):
        once.check(part.number)
        if part.number == 1:
            dims += wire.signed_list(data, part, "dims", MAX_RANK)
            if len(dims) > MAX_RANK:
                raise refuse(f"{what} {show(name)}: rank", f"over {MAX_RANK}", f"<= {MAX_RANK}")
        elif part.number == 2:
            wire.want(part, VARINT, "data type")
            kind = part.value
        elif part.number == 4:
            typed.setdefault(4, []).extend(floats(data, part, "float_data"))
        elif part.number in (5, 7):
            typed.setdefault(part.number, []).extend(
                wire.signed_list(data, part, f"{what} integers", MAX_NODE_LINKS)
            )
        elif part.number == 8:
            name = wire.text(data, part, f"{what} name")
        elif part.number == _TENSOR_RAW:
            wire.want(part, BYTES, "raw_data")
            span = (part.value, part.end)
        elif part.number == _TENSOR_EXTERNAL:
            key, value = parse_pair(data, part, "external_data")
            if key in pairs:
                raise refuse(f"{what} external_data {show(key)}", "present twice", "each key once")
            if len(pairs) >= len(_EXTERNAL_KEYS):
                raise refuse(f"{what} external_data", "over three keys", ", ".join(_EXTERNAL_KEYS))
            pairs[key] = value
        elif part.number == _TENSOR_LOCATION:
            wire.want(part, VARINT, "data_location")
            location = part.value
        if any(len(values) > MAX_NODE_LINKS for values in typed.values()):
            raise refuse(f"length of {what}'s typed data", f"over {MAX_NODE_LINKS}", "raw_data instead")
    subject = f"{what} {show(name)}"
    if kind not in DATA_TYPES:
        names = ", ".join(known.name for known in DATA_TYPES.values())
        raise refuse(f"{subject}: data type", "string (8)" if kind == 8 else kind, f"one of {names}")
    dtype = DATA_TYPES[kind]
    elements = count_elements(dims, f"{subject}: dims")
    if location not in (0, 1):
        raise refuse(f"{subject}: data_location", location, "0 (inline) or 1 (external)")
    if bool(pairs) != (location == 1):
        raise refuse(
            f"{subject}: external_data", sorted(pairs), "entries exactly where data_location is external"
        )
    stores = (span is not None) + len(typed) + bool(pairs)
    if stores > 1:
        raise refuse(f"{subject}: data", "present twice", "one of raw_data, typed data, external_data")
    external = _parse_external(pairs, subject) if pairs else None
    numbers: tuple[int | float, ...] | None = None
    if external is not None:
        size = external.length
    elif typed:
        (number, values), *_ = typed.items()
        if number != dtype.typed_field:
            raise refuse(f"{subject}: typed data", f"field {number}", f"raw_data or {dtype.name}'s own field")
        numbers = tuple(values)
        size = len(values) * dtype.size
    else:
        size = span[1] - span[0] if span else 0
    if size != elements * dtype.size:
        rule = f"{elements * dtype.size} ({dtype.name} {dims})"
        raise refuse(f"{subject}: bytes of data", size, rule)
    return Tensor(name, dtype, tuple(dims), elements, span, numbers, external)


def count_elements(dims: list[int] | tuple[int, ...], what: str) -> int:
    """The product of dimensions, refused before it can overflow anything."""
    elements = 1
    for dim in dims:
        if dim < 0:
            raise refuse(what, show(list(dims)), "sizes >= 0")
        elements *= dim
    if elements > MAX_ELEMENTS or any(dim > MAX_ELEMENTS for dim in dims):
        raise refuse(what, f"{show(list(dims))}, {elements} elements", f"<= {MAX_ELEMENTS} elements")
    return elements


def parse_pair(data: bytes, item: Field, what: str) -> tuple[str, str]:
    """A StringStringEntryProto."""
    wire.want(item, BYTES, what)
    once = Once(what, (), (1, 2))
    pair = {1: "", 2: ""}
    for part in wire.fields(data, item.value, item.end):
        once.check(part.number)
        pair[part.number] = wire.text(data, part, what)
    return pair[1], pair[2]


def _parse_external(pairs: Mapping[str, str], subject: str) -> External:
    for key in pairs:
        if key not in _EXTERNAL_KEYS:
            raise refuse(f"{subject}: external_data key", show(key), ", ".join(_EXTERNAL_KEYS))
    for key in _EXTERNAL_KEYS:
        if key not in pairs:
            raise refuse(f"{subject}: external_data {key}", "missing", "all of " + ", ".join(_EXTERNAL_KEYS))
    return External(
        pairs["location"],
        *(_decimal(pairs[key], f"{subject}: external_data {key}") for key in ("offset", "length")),
    )


def _decimal(text: str, what: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 19) or (len(text) > 1 and text[0] == "0"):
        raise refuse(what, show(text), "a plain decimal number")
    return int(text)
