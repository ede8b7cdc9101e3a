"""The protobuf wire format, read in place; `model` says why not by the protobuf package.

Strict where protobuf is lenient: groups and over-long numbers are refused here, and the callers refuse a singular
field that comes twice, because two readers could understand these differently.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from cgnrt.errors import COPY_AGAIN, refuse, show

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
