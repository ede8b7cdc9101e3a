"""The archive around the members: every byte is checked, every rejection names what it found."""

from __future__ import annotations

import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cgnrt.errors import PlanError
from cgnrt.plan import Plan, write_plan
from cgnrt.plan.zip_records import CENTRAL, END, LOCAL

Pack = Callable[[dict[str, bytes]], bytes]


class Layout:
    """Offsets inside a packed plan, and patches at them."""

    def __init__(self, raw: bytes) -> None:
        self.raw = bytearray(raw)
        self.end = len(raw) - END.size
        self.count, self.size, self.directory = struct.unpack_from("<HII", raw, self.end + 10)
        self.entries: dict[str, tuple[int, int]] = {}  # name -> (directory entry, local header)
        position = self.directory
        for _ in range(self.count):
            (length,) = struct.unpack_from("<H", raw, position + 28)
            (header,) = struct.unpack_from("<I", raw, position + 42)
            name = raw[position + CENTRAL.size : position + CENTRAL.size + length].decode()
            self.entries[name] = (position, header)
            position += CENTRAL.size + length

    def patch(self, offset: int, form: str, value: Any) -> Layout:
        struct.pack_into(form, self.raw, offset, value)
        return self

    def central(self, name: str, offset: int, form: str, value: Any) -> Layout:
        return self.patch(self.entries[name][0] + offset, form, value)

    def local(self, name: str, offset: int, form: str, value: Any) -> Layout:
        return self.patch(self.entries[name][1] + offset, form, value)

    def bytes(self) -> bytes:
        return bytes(self.raw)


SHAPE = "mechanisms/shape.onnx"
TEXTURE = "mechanisms/texture.onnx"

# offset and struct form of a field in the directory entry, in the local header (None: not there), bad value,
# and what the message says
FIELDS = [
    ("flags", 8, 6, "<H", 1, r"flags is 1, expected 0 \(not encrypted, no descriptor\)"),
    ("data descriptor", 8, 6, "<H", 8, r"flags is 8, expected 0"),
    ("utf-8", 8, 6, "<H", 0x800, r"flags is 2048, expected 0"),
    ("compression", 10, 8, "<H", 8, r"compression method is 8, expected 0 \(stored\)"),
    ("version needed", 6, 4, "<H", 45, r"version needed is 45, expected 10"),
    ("time", 12, 10, "<H", 1, r"time is 1, expected 0"),
    ("date", 14, 12, "<H", 0, r"date is 0, expected 33"),
    ("stored size", 20, 18, "<I", 1, r"stored size is 1, expected 466"),
]


@pytest.mark.parametrize(
    ("offset", "form", "value", "message"), [(o, f, v, m) for _, o, _, f, v, m in FIELDS]
)
def test_directory_entry_fields(parts: Any, offset: int, form: str, value: int, message: str) -> None:
    raw = Layout(parts.pack()).central(SHAPE, offset, form, value).bytes()
    found = parts.refusal(raw)
    assert f"directory entry '{SHAPE}'" in found
    assert re.search(message, found)


@pytest.mark.parametrize(
    ("offset", "form", "value", "message"), [(o, f, v, m) for _, _, o, f, v, m in FIELDS]
)
def test_local_header_fields(parts: Any, offset: int, form: str, value: int, message: str) -> None:
    raw = Layout(parts.pack()).local(SHAPE, offset, form, value).bytes()
    found = parts.refusal(raw)
    assert f"local header '{SHAPE}'" in found
    assert re.search(message, found)


@pytest.mark.parametrize(
    ("offset", "form", "value", "message"),
    [
        (4, "<H", 3 << 8 | 10, "version made by is 778"),
        (30, "<H", 4, "extra field length is 4, expected 0"),
        (32, "<H", 4, "comment length is 4, expected 0"),
        (34, "<H", 1, "disk is 1, expected 0"),
        (36, "<H", 1, "internal attributes is 1"),
        (38, "<I", 0x81A40000, "external attributes is"),
        (28, "<H", 0, r"member name length is 0, expected 1\.\.128"),
        (28, "<H", 129, r"member name length is 129, expected 1\.\.128"),
        (0, "<I", 0, "ZIP directory at byte"),
    ],
)
def test_other_directory_fields(parts: Any, offset: int, form: str, value: int, message: str) -> None:
    raw = Layout(parts.pack()).central(SHAPE, offset, form, value).bytes()
    with pytest.raises(PlanError, match=message):
        Plan.open(parts.save(raw))


@pytest.mark.parametrize(
    ("offset", "form", "value", "message"),
    [
        (0, "<I", 0, r"local header 'mechanisms/shape.onnx': signature"),
        (14, "<I", 0, r"local header 'mechanisms/shape.onnx': CRC is 0, expected"),
        (22, "<I", 0, r"local header 'mechanisms/shape.onnx': size is 0, expected 466"),
        (26, "<H", 3, r"name length is 3, expected 21"),
        (28, "<H", 0, r"extra field length is 0, expected"),
        (30, "<B", ord("M"), r"name and padding is b'Mechanisms"),
        (30 + 21, "<B", 0, r"name and padding"),
        (30 + 21 + 4, "<B", 1, r"name and padding"),
    ],
)
def test_other_local_fields(parts: Any, offset: int, form: str, value: int, message: str) -> None:
    parts.manifest["family"] = "longer, so that padding follows the name"
    raw = Layout(parts.pack()).local(SHAPE, offset, form, value).bytes()
    with pytest.raises(PlanError, match=message):
        Plan.open(parts.save(raw))


@pytest.mark.parametrize(
    ("offset", "form", "value", "message"),
    [
        (0, "<I", 0, r"end of the file is b'\\x00\\x00\\x00\\x00', expected a ZIP end record"),
        (4, "<H", 1, "ZIP end record is that of a split archive"),
        (6, "<H", 1, "ZIP end record is that of a split archive"),
        (8, "<H", 1, "ZIP end record is that of a split archive"),
        (12, "<I", 0, "ZIP directory is bytes"),
        (16, "<I", 0, "ZIP directory is bytes"),
        (16, "<I", 0xFFFFFFFF, "zip64 end record is missing"),
        (20, "<H", 5, "ZIP comment length is 5, expected 0"),
    ],
)
def test_end_record(parts: Any, offset: int, form: str, value: int, message: str) -> None:
    layout = Layout(parts.pack())
    with pytest.raises(PlanError, match=message):
        Plan.open(parts.save(layout.patch(layout.end + offset, form, value).bytes()))


@pytest.mark.parametrize("count", [0, 257, 0xFFFF])
def test_number_of_members_is_capped(parts: Any, count: int) -> None:
    layout = Layout(parts.pack())
    raw = layout.patch(layout.end + 8, "<H", count).patch(layout.end + 10, "<H", count).bytes()
    assert f"number of members is {count}, expected 1..256" in parts.refusal(raw)


def test_more_members_than_the_directory_has(parts: Any) -> None:
    layout = Layout(parts.pack())
    raw = layout.patch(layout.end + 8, "<H", 11).patch(layout.end + 10, "<H", 11).bytes()
    assert "ZIP directory is cut short" in parts.refusal(raw)


def test_fewer_members_than_the_directory_has(parts: Any) -> None:
    layout = Layout(parts.pack())
    raw = layout.patch(layout.end + 8, "<H", 9).patch(layout.end + 10, "<H", 9).bytes()
    assert "ZIP directory size is" in parts.refusal(raw)


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../x",
        "mechanisms/../../x",
        "a//b",
        "a\\b",
        ".x",
        "a/.b",
        "-x",
        "\u00e9",
        "a b",
        "a\0b",
    ],
)
def test_member_names(parts: Any, name: str) -> None:
    """A name of the same length, put into both headers."""
    raw_name = name.encode("latin-1")
    member = "engines/" + "e" * (len(raw_name) - 8) if len(raw_name) > 8 else "e" * len(raw_name)
    parts.members[member] = b""
    layout = Layout(parts.pack())
    directory, header = layout.entries[member]
    for offset in (directory + CENTRAL.size, header + LOCAL.size):
        layout.raw[offset : offset + len(raw_name)] = raw_name
    assert "member name is" in parts.refusal(layout.bytes())


def test_doubled_member(parts: Any) -> None:
    parts.members["mechanisms/shape.onnY"] = parts.members[SHAPE]
    layout = Layout(parts.pack())
    directory, header = layout.entries["mechanisms/shape.onnY"]
    for offset in (directory + CENTRAL.size, header + LOCAL.size):
        layout.raw[offset + 20] = ord("x")
    assert f"member '{SHAPE}' is present twice, expected each name once" in parts.refusal(layout.bytes())


def test_overlapping_members(parts: Any) -> None:
    layout = Layout(parts.pack())
    raw = layout.central(TEXTURE, 42, "<I", layout.entries[SHAPE][1]).bytes()
    assert f"offset of member '{TEXTURE}' is" in parts.refusal(raw)


def test_members_in_another_order_than_the_directory(parts: Any) -> None:
    layout = Layout(parts.pack())
    a, b = layout.entries[SHAPE][0], layout.entries["mechanisms/shape.embedding"][0]
    first = layout.raw[a : a + CENTRAL.size + 21]
    second = layout.raw[b : b + CENTRAL.size + 26]
    between = layout.raw[a + len(first) : b]
    layout.raw[a : b + len(second)] = second + between + first
    assert "follow each other without gap or overlap" in parts.refusal(layout.bytes())


@pytest.mark.parametrize("size", [0x7FFFFFFF, 0xFFFFFFFF, 0xFFFFFFFE])
def test_a_member_larger_than_the_file(parts: Any, size: int) -> None:
    layout = Layout(parts.pack())
    raw = layout.central(SHAPE, 20, "<I", size).central(SHAPE, 24, "<I", size).bytes()
    assert f"data of member '{SHAPE}' is bytes" in parts.refusal(raw)


@pytest.mark.parametrize("where", ["before", "between", "before the directory", "after"])
def test_foreign_bytes_outside_the_members(parts: Any, where: str) -> None:
    raw = parts.pack()
    layout = Layout(raw)
    position = {
        "before": 0,
        "between": layout.entries[SHAPE][1],
        "before the directory": layout.directory,
        "after": len(raw),
    }[where]
    changed = bytearray(raw[:position] + b"\0" * 64 + raw[position:])
    if where == "before the directory":
        struct.pack_into("<I", changed, len(changed) - 6, layout.directory + 64)
    assert "expected" in parts.refusal(bytes(changed))


def test_an_end_record_inside_a_comment(parts: Any) -> None:
    """Two archives in one file: a lenient reader finds either."""
    raw = parts.pack()
    inner = parts.pack()
    outer = bytearray(raw + inner)
    struct.pack_into("<H", outer, len(raw) - 2, len(inner))
    assert "expected" in parts.refusal(bytes(outer))


def test_unaligned_data(parts: Any, pack_members: Pack, tmp_path: Path) -> None:
    """What zipfile writes: right in itself, but headers and alignment are another tool's."""
    path = tmp_path / "repacked.plan"
    with Plan.open(parts.save()) as plan, zipfile.ZipFile(path, "w") as archive:
        for name in ("manifest.json", *plan.members):
            archive.writestr(name, bytes(plan.member(name)))
    with pytest.raises(PlanError, match="Plans cannot be repacked by other tools"):
        Plan.open(path)


def test_a_compressed_plan(parts: Any, tmp_path: Path) -> None:
    path = tmp_path / "compressed.plan"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", b"{}")
    with pytest.raises(PlanError, match=r"compression method is 8, expected 0 \(stored\)"):
        Plan.open(path)


def test_the_manifest_comes_first(parts: Any, pack_members: Pack) -> None:
    members = {SHAPE: parts.members[SHAPE], "manifest.json": b"{}"}
    found = parts.refusal(pack_members(members))
    assert f"file is another ZIP archive (its first member is '{SHAPE}')" in found


def test_truncation_at_every_header(parts: Any) -> None:
    raw = parts.pack()
    layout = Layout(raw)
    cuts = {0, 1, 21, 22, 29, 30, 43, layout.directory, layout.end, len(raw) - 1}
    cuts |= {header for _, header in layout.entries.values()}
    for cut in sorted(cuts):
        assert "expected" in parts.refusal(raw[:cut])


def test_writer_refuses_what_the_format_cannot_hold(parts: Any, tmp_path: Path) -> None:
    target = tmp_path / "new.plan"
    with pytest.raises(PlanError, match=r"write '.*new.plan': .*member name is '\.\./x'"):
        write_plan(target, parts.manifest, {**parts.members, "../x": b""})
    many = {f"engines/{index}": b"" for index in range(256)}
    with pytest.raises(PlanError, match=r"number of members is 266, expected <= 256"):
        write_plan(target, parts.manifest, {**parts.members, **many})
    with pytest.raises(PlanError, match="another member than the manifest"):
        write_plan(target, parts.manifest, {**parts.members, "manifest.json": b""})
    assert list(tmp_path.iterdir()) == []
