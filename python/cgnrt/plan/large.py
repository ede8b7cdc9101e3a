"""Archives of 4 GiB and more: the same members, with 64-bit sizes and offsets (zip64).

What is known of the members (names, sizes, CRCs) determines every other byte here, too. A reader takes these from the
directory, lays out the archive as a writer would, and compares.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from cgnrt.errors import COPY_AGAIN, refuse, show
from cgnrt.plan.limits import ALIGNMENT, MAX_MEMBERS, MAX_NAME_BYTES
from cgnrt.plan.zip_records import (
    CENTRAL,
    CENTRAL_SIGNATURE,
    DATE,
    END,
    END_SIGNATURE,
    LOCAL,
    LOCAL_SIGNATURE,
    PADDING,
    PADDING_ID,
)

_VERSION = 45  # "version needed to extract": 4.5, zip64
_ELSEWHERE = 0xFFFF_FFFF  # a size or offset that an extra field has in 64 bits
_LOCAL_EXTRA = struct.Struct("<HH2Q")
_CENTRAL_EXTRA = struct.Struct("<HH3Q")
_END64 = struct.Struct("<4sQ2H2I4Q")
_END64_SIGNATURE = b"PK\x06\x06"
_LOCATOR = struct.Struct("<4sIQI")
_LOCATOR_SIGNATURE = b"PK\x06\x07"


class Member(NamedTuple):
    """What determines the bytes around a member."""

    name: str
    size: int
    crc: int


class LargeLayout(NamedTuple):
    """The bytes around the members, and where each member begins.

    Attributes:
      headers: local headers, padding included.
      offsets: of the local headers.
      ending: the directory and the end records.
    """

    headers: list[bytes]
    offsets: list[int]
    ending: bytes


def is_large(data: memoryview) -> bool:
    """Whether the end record says that the directory's place is elsewhere, in 64 bits."""
    if data.nbytes < END.size:
        return False
    fields = END.unpack_from(data, data.nbytes - END.size)
    return bool(fields[0] == END_SIGNATURE and fields[6] == _ELSEWHERE)


def large_layout(members: Sequence[Member]) -> LargeLayout:
    """Every byte around members in this order."""
    headers: list[bytes] = []
    offsets: list[int] = []
    directory = bytearray()
    offset = 0
    for name, size, crc in members:
        raw = name.encode("ascii")
        extra = _LOCAL_EXTRA.pack(1, 16, size, size)
        zeros = -(offset + LOCAL.size + len(raw) + len(extra) + PADDING.size) % ALIGNMENT
        extra += PADDING.pack(PADDING_ID, zeros) + bytes(zeros)
        fields = (_VERSION, 0, 0, 0, DATE, crc, _ELSEWHERE, _ELSEWHERE, len(raw))
        headers.append(LOCAL.pack(LOCAL_SIGNATURE, *fields, len(extra)) + raw + extra)
        offsets.append(offset)
        directory += CENTRAL.pack(
            CENTRAL_SIGNATURE, _VERSION, *fields, _CENTRAL_EXTRA.size, 0, 0, 0, 0, _ELSEWHERE
        )
        directory += raw + _CENTRAL_EXTRA.pack(1, 24, size, size, offset)
        offset += len(headers[-1]) + size
    count, size = len(members), len(directory)
    ending = bytes(directory)
    ending += _END64.pack(_END64_SIGNATURE, 44, _VERSION, _VERSION, 0, 0, count, count, size, offset)
    ending += _LOCATOR.pack(_LOCATOR_SIGNATURE, 0, offset + size, 1)
    ending += END.pack(END_SIGNATURE, 0, 0, count, count, _ELSEWHERE, _ELSEWHERE, 0)
    return LargeLayout(headers, offsets, ending)


def read_large(data: memoryview) -> list[Member]:
    """The members in the directory of a large archive. The caller checks the names, then the layout.

    Raises:
      PlanError: the end records or the directory's fields are not those of a directory that fits the file.
    """
    end = data.nbytes - END.size
    count = END.unpack_from(data, end)[4]
    if not 1 <= count <= MAX_MEMBERS:
        raise refuse("number of members", count, f"1..{MAX_MEMBERS}")
    record = end - _LOCATOR.size - _END64.size
    if record < 0 or bytes(data[record : record + 4]) != _END64_SIGNATURE:
        raise refuse("zip64 end record", "missing", "one before the ZIP end record", COPY_AGAIN)
    size, start = _END64.unpack_from(data, record)[8:]
    if start > record or size != record - start:
        found = f"bytes {start}..{start + size}"
        raise refuse("ZIP directory", found, f"one that ends at byte {record}", COPY_AGAIN)
    members: list[Member] = []
    position = start
    for _ in range(count):
        if record - position < CENTRAL.size:
            raise refuse(
                "ZIP directory", f"cut short at byte {position}", "one entry for each member", COPY_AGAIN
            )
        fields = CENTRAL.unpack_from(data, position)
        name_size, position = fields[10], position + CENTRAL.size
        if not 1 <= name_size <= MAX_NAME_BYTES or record - position < name_size + _CENTRAL_EXTRA.size:
            raise refuse(
                "member name length", name_size, f"1..{MAX_NAME_BYTES}, within the ZIP directory", COPY_AGAIN
            )
        name = bytes(data[position : position + name_size]).decode("latin-1")
        member_size = _CENTRAL_EXTRA.unpack_from(data, position + name_size)[2]
        if member_size > start:
            rule = f"<= {start} (the bytes before the ZIP directory)"
            raise refuse(f"size of member {show(name)}", member_size, rule, COPY_AGAIN)
        members.append(Member(name, member_size, fields[7]))
        position += name_size + _CENTRAL_EXTRA.size
    return members


def check_large(data: memoryview, members: Sequence[Member], layout: LargeLayout, rewritten: str) -> None:
    """Compare the bytes around the members with those that the members determine.

    Raises:
      PlanError: one differs.
    """
    begin = data.nbytes - len(layout.ending)
    last = members[-1]
    end = layout.offsets[-1] + len(layout.headers[-1]) + last.size
    if end != begin:
        found = f"{data.nbytes} bytes"
        raise refuse("file size", found, f"{end + len(layout.ending)} (what its members need)", COPY_AGAIN)
    for (name, _, _), offset, header in zip(members, layout.offsets, layout.headers, strict=True):
        if bytes(data[offset : offset + len(header)]) != header:
            found = show(bytes(data[offset : offset + len(header)]))
            raise refuse(f"local header {name!r}", found, "the one that its directory entry says", rewritten)
    if bytes(data[begin:]) != layout.ending:
        raise refuse("ZIP directory", "another", "the one that the members determine", rewritten)
