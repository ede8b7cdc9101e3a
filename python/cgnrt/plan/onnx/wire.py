"""The protobuf wire format, read in place, and ONNX's tensors in it; `model` says why not by the protobuf package.

Strict where protobuf is lenient: groups, over-long numbers and a singular field that comes twice are refused, because
two readers could understand these differently.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from cgnrt.errors import COPY_AGAIN, PlanError, refuse, show, within
from cgnrt.plan.limits import MAX_ELEMENTS, MAX_METADATA, MAX_NODE_LINKS, MAX_RANK

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_WIRE_NAMES = {VARINT: "varint", FIXED64: "fixed64", BYTES: "bytes", FIXED32: "fixed32"}


class Field(NamedTuple):
    """One field of a message. For BYTES the value is the offset where its `end - value` bytes begin."""

    number: int
    wire: int
    value: int
    end: int
    tag: int  # offset of the field's tag


def read_varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    """An unsigned 64-bit number at `position`, and the position after it."""
    if position >= end:
        raise _cut(position)
    byte = data[position]
    if byte < 0x80:  # nearly all tags and lengths
        return byte, position + 1
    value = byte & 0x7F
    for shift in range(7, 70, 7):
        position += 1
        if position >= end:
            raise _cut(position)
        byte = data[position]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >= 1 << 64 or byte == 0:
                break
            return value, position + 1
    raise refuse(f"protobuf number at byte {position}", "over-long", "a canonical 64-bit varint", COPY_AGAIN)


def fields(data: bytes, start: int, end: int) -> Iterator[Field]:
    """The fields of the message in `data[start:end]`, every length checked against `end`.

    Raises:
      PlanError: the bytes are not a protobuf message.
    """
    position = start
    while position < end:
        tag = position
        key = data[position]
        position += 1
        if key >= 0x80:
            key, position = read_varint(data, tag, end)
        number, wire = key >> 3, key & 7
        if not 1 <= number < 1 << 29:
            raise refuse(f"protobuf field at byte {tag}", f"number {number}", "1..536870911", COPY_AGAIN)
        if wire in (BYTES, VARINT):
            # Nearly all numbers take one byte: reading those here doubles the speed of opening a plan.
            if position < end and data[position] < 0x80:
                value = data[position]
                position += 1
            else:
                value, position = read_varint(data, position, end)
            if wire == VARINT:
                yield Field(number, wire, value, position, tag)
                continue
            if value > end - position:
                found = f"{value} bytes long"
                raise refuse(f"protobuf field at byte {tag}", found, f"<= {end - position} left", COPY_AGAIN)
            yield Field(number, wire, position, position + value, tag)
            position += value
        elif wire in (FIXED64, FIXED32):
            size = 8 if wire == FIXED64 else 4
            if size > end - position:
                raise _cut(end)
            value = int.from_bytes(data[position : position + size], "little")
            position += size
            yield Field(number, wire, value, position, tag)
        else:
            raise refuse(f"protobuf field at byte {tag}", f"wire type {wire}", "0, 1, 2 or 5", COPY_AGAIN)


def want(field: Field, wire: int, what: str) -> None:
    """Refuse a field whose wire type is not that of the schema."""
    if field.wire != wire:
        raise refuse(what, f"a {_WIRE_NAMES[field.wire]}", f"a {_WIRE_NAMES[wire]}", COPY_AGAIN)


def text(data: bytes, field: Field, what: str, limit: int = 1024) -> str:
    """A string field."""
    want(field, BYTES, what)
    if field.end - field.value > limit:
        raise refuse(what, f"{field.end - field.value} bytes long", f"<= {limit}")
    raw = data[field.value : field.end]
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise refuse(what, show(raw), "UTF-8") from None


def signed(value: int) -> int:
    """An int32 or int64 field's varint as a Python int."""
    return value - (1 << 64) if value >= 1 << 63 else value


def signed_list(data: bytes, field: Field, what: str, limit: int) -> list[int]:
    """A repeated int field's part: one number, or packed ones."""
    if field.wire == VARINT:
        return [signed(field.value)]
    want(field, BYTES, what)
    values: list[int] = []
    position = field.value
    while position < field.end:
        if len(values) >= limit:
            raise refuse(f"length of {what}", f"over {limit}", f"<= {limit}")
        value, position = read_varint(data, position, field.end)
        values.append(signed(value))
    return values


def varint(value: int) -> bytes:
    """Encode an unsigned 64-bit number."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def message(number: int, body: bytes) -> bytes:
    """Encode a length-delimited field."""
    return varint(number << 3 | BYTES) + varint(len(body)) + body


def _cut(position: int) -> Exception:
    return refuse(f"protobuf at byte {position}", "cut short", "a whole message", COPY_AGAIN)


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
    """Refuses a singular field that comes twice: protobuf would merge the two, other readers take one.

    And more entries of the field `metadata` than exporters write.
    """

    def __init__(
        self, what: str, repeated: tuple[int, ...], known: tuple[int, ...], metadata: int = 0
    ) -> None:
        self.what, self.repeated, self.known, self.metadata = what, repeated, known, metadata
        self.seen = self.entries = 0

    def check(self, number: int) -> None:
        if number not in self.known:
            raise refuse(f"{self.what} field", number, "a field of ONNX IR version 4..13 that plans use")
        if number == self.metadata:
            self.entries += 1
            if self.entries > MAX_METADATA:
                raise refuse(f"metadata of {self.what}", f"over {MAX_METADATA} entries", f"<= {MAX_METADATA}")
        if number not in self.repeated:
            if self.seen >> number & 1:
                raise refuse(f"{self.what} field {number}", "present twice", "a singular field")
            self.seen |= 1 << number


def floats(data: bytes, part: Field, what: str) -> list[float]:
    """A repeated float field's part."""
    if part.wire == FIXED32:
        return [struct.unpack("<f", part.value.to_bytes(4, "little"))[0]]
    want(part, BYTES, what)
    size = part.end - part.value
    if size % 4 or size > 4 * MAX_NODE_LINKS:
        raise refuse(f"size of {what}", f"{size} bytes", f"a multiple of 4, <= {4 * MAX_NODE_LINKS}")
    return list(struct.unpack_from(f"<{size // 4}f", data, part.value))


def parse_tensor(data: bytes, item: Field, what: str) -> Tensor:
    """Read a TensorProto and check that its bytes are exactly those of its dimensions."""
    want(item, BYTES, what)
    once = Once(what, (1, 4, 5, 7, _TENSOR_EXTERNAL, 16), (1, 2, 4, 5, 7, 8, _TENSOR_RAW, 12, 13, 14, 16), 16)
    name, kind, location = "", 0, 0
    dims: list[int] = []
    span: tuple[int, int] | None = None
    typed: dict[int, list[int | float]] = {}
    pairs: dict[str, str] = {}
    for part in fields(data, item.value, item.end):
        once.check(part.number)
        if part.number == 1:
            dims += signed_list(data, part, "dims", MAX_RANK)
            if len(dims) > MAX_RANK:
                raise refuse(f"{what} {show(name)}: rank", f"over {MAX_RANK}", f"<= {MAX_RANK}")
        elif part.number == 2:
            want(part, VARINT, "data type")
            kind = part.value
        elif part.number == 4:
            typed.setdefault(4, []).extend(floats(data, part, "float_data"))
        elif part.number in (5, 7):
            typed.setdefault(part.number, []).extend(
                signed_list(data, part, f"{what} integers", MAX_NODE_LINKS)
            )
        elif part.number == 8:
            name = text(data, part, f"{what} name")
        elif part.number == _TENSOR_RAW:
            want(part, BYTES, "raw_data")
            span = (part.value, part.end)
        elif part.number == _TENSOR_EXTERNAL:
            key, value = parse_pair(data, part, "external_data")
            if key in pairs:
                raise refuse(f"{what} external_data {show(key)}", "present twice", "each key once")
            if len(pairs) >= len(_EXTERNAL_KEYS):
                raise refuse(f"{what} external_data", "over three keys", ", ".join(_EXTERNAL_KEYS))
            pairs[key] = value
        elif part.number == _TENSOR_LOCATION:
            want(part, VARINT, "data_location")
            location = part.value
        if any(len(values) > MAX_NODE_LINKS for values in typed.values()):
            raise refuse(f"length of {what}'s typed data", f"over {MAX_NODE_LINKS}", "raw_data instead")
    try:
        return _tensor(name, kind, location, dims, span, typed, pairs)
    except PlanError as error:
        raise within(f"{what} {show(name)}", error) from None


def _tensor(
    name: str,
    kind: int,
    location: int,
    dims: list[int],
    span: tuple[int, int] | None,
    typed: Mapping[int, list[int | float]],
    pairs: Mapping[str, str],
) -> Tensor:
    """A tensor of the fields that were read, if they fit each other."""
    if kind not in DATA_TYPES:
        names = ", ".join(known.name for known in DATA_TYPES.values())
        raise refuse("data type", "string (8)" if kind == 8 else kind, f"one of {names}")
    dtype = DATA_TYPES[kind]
    elements = count_elements(dims, "dims")
    if location not in (0, 1):
        raise refuse("data_location", location, "0 (inline) or 1 (external)")
    if bool(pairs) != (location == 1):
        raise refuse("external_data", sorted(pairs), "entries exactly where data_location is external")
    stores = (span is not None) + len(typed) + bool(pairs)
    if stores > 1:
        raise refuse("data", "present twice", "one of raw_data, typed data, external_data")
    external = _parse_external(pairs) if pairs else None
    numbers: tuple[int | float, ...] | None = None
    if external is not None:
        size = external.length
    elif typed:
        (number, values), *_ = typed.items()
        if number != dtype.typed_field:
            raise refuse("typed data", f"field {number}", f"raw_data or {dtype.name}'s own field")
        numbers = tuple(values)
        size = len(values) * dtype.size
    else:
        size = span[1] - span[0] if span else 0
    if size != elements * dtype.size:
        raise refuse("bytes of data", size, f"{elements * dtype.size} ({dtype.name} {dims})")
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
    want(item, BYTES, what)
    once = Once(what, (), (1, 2))
    pair = {1: "", 2: ""}
    for part in fields(data, item.value, item.end):
        once.check(part.number)
        pair[part.number] = text(data, part, what)
    return pair[1], pair[2]


def _parse_external(pairs: Mapping[str, str]) -> External:
    for key in pairs:
        if key not in _EXTERNAL_KEYS:
            raise refuse("external_data key", show(key), ", ".join(_EXTERNAL_KEYS))
    for key in _EXTERNAL_KEYS:
        if key not in pairs:
            raise refuse(f"external_data {key}", "missing", "all of " + ", ".join(_EXTERNAL_KEYS))
    return External(
        pairs["location"],
        *(_decimal(pairs[key], f"external_data {key}") for key in ("offset", "length")),
    )


def _decimal(text: str, what: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 19) or (len(text) > 1 and text[0] == "0"):
        raise refuse(what, show(text), "a plain decimal number")
    return int(text)
