"""The file of a plan: its bytes, mapped or copied, and the stored ZIP that they are, determined by its members.

`index_members` checks the bytes and says where each member lies; `archive_layout` makes the same headers for writing.
The order of the checks is part of the specification: sizes before offsets, offsets before contents, and nothing is
allocated by a number that was not compared with the file's size first.

Python's zipfile is not used: it does not compare a member's two headers, accepts gaps, overlaps and bytes around the
archive, and cannot place members at aligned offsets, from which engines read them in the mapped file.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import stat
import weakref
import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from cgnrt.errors import COPY_AGAIN, refuse, show
from cgnrt.plan.large import Member, check_large, is_large, large_layout, read_large
from cgnrt.plan.limits import (
    ALIGNMENT,
    MAX_FILE_BYTES,
    MAX_MEMBERS,
    MAX_NAME_BYTES,
    MAX_SMALL_FILE_BYTES,
    MEMBER_NAME,
)
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

_IN_MEMORY_BYTES = 64 << 20  # a larger private copy is a temporary file
_COPY_STEP = 8 << 20

_VERSION = 10  # "version needed to extract": 1.0, plain stored files
_REWRITTEN = "Plans cannot be repacked by other tools: export it again with cgnrt-export."


class Stamp(NamedTuple):
    """What changes when a file is written to: the kernel sets the times, and nobody can set the last one back."""

    size: int
    modified_ns: int
    changed_ns: int


class Content:
    """A plan file's bytes. Use `open_content`.

    Args:
      file: a descriptor of the mapped file, which is closed with this; None for a private copy.

    Attributes:
      data: all of the bytes, read-only.
    """

    def __init__(self, mapping: mmap.mmap, file: int | None) -> None:
        self.data = memoryview(mapping).toreadonly()
        self._mapping: mmap.mmap | None = mapping
        self._file = file
        self._accepted = self.stamp()
        self._close_file = weakref.finalize(self, _close, file)
        self._close_file.atexit = False

    def release_pages(self) -> None:
        """Take what was read off this process's resident memory; it stays in the system's file cache."""
        # Safe only for a read-only mapping of a file: memory would lose its content.
        if self._mapping is not None and self._file is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._mapping.madvise(mmap.MADV_DONTNEED)

    def stamp(self) -> Stamp | None:
        """What the file looks like now; None for a private copy."""
        if self._file is None:
            return None
        status = os.fstat(self._file)
        return Stamp(status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    def accept(self, stamp: Stamp | None) -> None:
        """The bytes were compared after the file looked like this, and are right."""
        self._accepted = stamp

    def was_touched(self, stamp: Stamp | None) -> bool:
        """Whether the file may have been written to since its bytes were right."""
        return stamp != self._accepted

    def is_cut_short(self, stamp: Stamp | None) -> bool:
        """Whether the file ends before the mapping does: reading what is missing would kill the process."""
        return stamp is not None and stamp.size < self.data.nbytes

    def close(self) -> None:
        """Let go of the bytes. The memory itself lives as long as any view of it does."""
        mapping, self._mapping = self._mapping, None
        self.data = memoryview(b"")
        self._close_file()
        if mapping is not None:
            # BufferError: someone still holds a view; the last one to go unmaps the file.
            with contextlib.suppress(BufferError):
                mapping.close()


def _close(file: int | None) -> None:
    if file is not None:
        os.close(file)


def open_content(path: str, private: bool) -> Content:
    """Map a regular file, read-only, or a copy of it.

    Raises:
      PlanError: it is missing, not a file, or empty; there is no room for the copy.
    """
    try:
        # Non-blocking: a FIFO must be refused, not waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise refuse("file", "missing", "a plan", "Check the path, or make one with cgnrt-export.") from None
    except ValueError as error:  # a NUL in the path
        raise refuse("path", str(error), "a file name", "Check the path.") from None
    except OSError as error:
        raise refuse(
            "file", f"unreadable ({error.strerror})", "a plan", "Check the path and its rights."
        ) from error
    kept = False
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise refuse("file", "a directory", "a plan", "Give the plan file itself.")
        if not stat.S_ISREG(status.st_mode):
            raise refuse("file", "not a regular file", "a plan", "Give the plan file itself.")
        if status.st_size == 0:
            raise refuse("file", "empty", "a plan", COPY_AGAIN)
        if private:
            return Content(_copy(descriptor, status.st_size), None)
        content = Content(mmap.mmap(descriptor, status.st_size, access=mmap.ACCESS_READ), descriptor)
        kept = True
        return content
    except (OSError, ValueError) as error:
        raise refuse("file", f"not mappable ({error})", "a plan on a local disk", COPY_AGAIN) from error
    finally:
        if not kept:
            os.close(descriptor)


def _copy(descriptor: int, size: int) -> mmap.mmap:
    """A copy of a file in memory, or in a file without a name; zeros for what was cut off meanwhile."""
    if size <= _IN_MEMORY_BYTES:
        memory = mmap.mmap(-1, size)
        position = 0
        while position < size and (piece := os.pread(descriptor, min(_COPY_STEP, size - position), position)):
            memory[position : position + len(piece)] = piece
            position += len(piece)
        return memory
    import tempfile  # few plans are copied, and it imports much

    folder = tempfile.gettempdir()
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.truncate(size)
            position = 0
            while piece := os.pread(descriptor, min(_COPY_STEP, size - position), position):
                file.write(piece)
                position += len(piece)
            file.flush()
            return mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
    except OSError as error:
        raise refuse(
            "private copy",
            f"not written to '{folder}' ({error.strerror or error})",
            f"room for {size} bytes there",
            "Set TMPDIR to a folder with room for it.",
        ) from error


class Entry(NamedTuple):
    """Where a member lies in the file."""

    name: str
    header: int  # offset of its local header
    start: int  # offset of its data, a multiple of ALIGNMENT
    size: int
    crc: int


def _padding(offset: int, name: bytes) -> bytes:
    """The extra field of a local header at `offset`, so that the data after it is aligned."""
    zeros = -(offset + LOCAL.size + len(name) + PADDING.size) % ALIGNMENT
    return PADDING.pack(PADDING_ID, zeros) + bytes(zeros)


def archive_layout(members: Sequence[tuple[str, memoryview]]) -> tuple[list[bytes], bytes]:
    """The local headers (padding included) and the closing directory for members in this order.

    Raises:
      PlanError: a name or the number or size of the members is beyond the format's limits.
    """
    if len(members) > MAX_MEMBERS:
        raise refuse("number of members", len(members), f"<= {MAX_MEMBERS}", "Leave some out.")
    for name, _ in members:
        check_name(name)
    if sum(data.nbytes for _, data in members) > MAX_FILE_BYTES:
        rule = f"<= {MAX_FILE_BYTES}"
        raise refuse("file size", f"over {MAX_FILE_BYTES} bytes", rule, "Leave members out.")
    known = [Member(name, data.nbytes, zlib.crc32(data)) for name, data in members]
    if _small_size(known) > MAX_SMALL_FILE_BYTES:
        layout = large_layout(known)
        return layout.headers, layout.ending
    headers: list[bytes] = []
    directory = bytearray()
    offset = 0
    for name, size, crc in known:
        raw = name.encode("ascii")
        extra = _padding(offset, raw)
        sizes = (crc, size, size)
        headers.append(
            LOCAL.pack(LOCAL_SIGNATURE, _VERSION, 0, 0, 0, DATE, *sizes, len(raw), len(extra)) + raw + extra
        )
        directory += CENTRAL.pack(
            CENTRAL_SIGNATURE, _VERSION, _VERSION, 0, 0, 0, DATE, *sizes, len(raw), 0, 0, 0, 0, 0, offset
        )
        directory += raw
        offset += len(headers[-1]) + size
    end = END.pack(END_SIGNATURE, 0, 0, len(members), len(members), len(directory), offset, 0)
    return headers, bytes(directory) + end


def _small_size(members: Sequence[Member]) -> int:
    """The size of the archive with 32-bit sizes and offsets."""
    offset = directory = 0
    for name, size, _ in members:
        offset += LOCAL.size + len(name) + len(_padding(offset, name.encode("ascii"))) + size
        directory += CENTRAL.size + len(name)
    return offset + directory + END.size


def check_name(name: str) -> None:
    """Refuse a member name that is not a short, relative, plain ASCII path."""
    if len(name) > MAX_NAME_BYTES or MEMBER_NAME.fullmatch(name) is None:
        rule = (
            f"up to {MAX_NAME_BYTES} of A-Z a-z 0-9 _ . - in parts joined by '/', none starting with . or -"
        )
        raise refuse("member name", show(name), rule)


def index_members(data: memoryview) -> dict[str, Entry]:
    """Check the archive around the members and say where each lies, in the order of the file.

    Args:
      data: the whole file.

    Raises:
      PlanError: any byte outside the members' data is not what `archive_layout` would have written.
    """
    size = data.nbytes
    if size > MAX_FILE_BYTES:
        raise refuse("file size", f"{size} bytes", f"<= {MAX_FILE_BYTES}")
    if size < END.size:
        raise refuse("file size", f"{size} bytes", f">= {END.size} (a ZIP end record)", COPY_AGAIN)
    if is_large(data):
        return _index_large(data)
    if size > MAX_SMALL_FILE_BYTES:
        raise refuse(
            "ZIP end record", "that of a small archive", "a zip64 one in a file of this size", COPY_AGAIN
        )
    count, directory_start, directory_size = _read_end(data)
    entries: dict[str, Entry] = {}
    position, expected = directory_start, 0
    for _ in range(count):
        entry, position = _read_central(data, position, directory_start + directory_size)
        if entry.name in entries:
            raise refuse(f"member {entry.name!r}", "present twice", "each name once")
        expected = _check_local(data, entry, expected, directory_start)
        entries[entry.name] = entry
    if position != directory_start + directory_size:
        raise refuse(
            "ZIP directory size",
            directory_size,
            f"{position - directory_start} (its {count} entries)",
            COPY_AGAIN,
        )
    if expected != directory_start:
        raise refuse(
            "ZIP directory offset", directory_start, f"{expected} (the end of the last member)", COPY_AGAIN
        )
    return entries


def _index_large(data: memoryview) -> dict[str, Entry]:
    """`index_members` of an archive with 64-bit sizes and offsets."""
    members = read_large(data)
    names: set[str] = set()
    for name, _, _ in members:
        check_name(name)
        if name in names:
            raise refuse(f"member {name!r}", "present twice", "each name once")
        names.add(name)
    if (size := _small_size(members)) <= MAX_SMALL_FILE_BYTES:
        raise refuse(
            "zip64", f"used for {size} bytes", f"used for more than {MAX_SMALL_FILE_BYTES}", _REWRITTEN
        )
    layout = large_layout(members)
    check_large(data, members, layout, _REWRITTEN)
    return {
        name: Entry(name, offset, offset + len(header), size, crc)
        for (name, size, crc), offset, header in zip(members, layout.offsets, layout.headers, strict=True)
    }


def _read_end(data: memoryview) -> tuple[int, int, int]:
    """The end record, which must be the last 22 bytes: number of members, directory's offset and size."""
    position = data.nbytes - END.size
    signature, disk, directory_disk, here, count, size, start, comment = END.unpack_from(data, position)
    if signature != END_SIGNATURE:
        raise refuse(
            "end of the file",
            show(signature),
            f"a ZIP end record ({END_SIGNATURE!r}...)",
            COPY_AGAIN,
        )
    if (disk, directory_disk) != (0, 0) or here != count:
        raise refuse("ZIP end record", "that of a split archive", "one disk", _REWRITTEN)
    if comment:
        raise refuse("ZIP comment length", comment, "0", _REWRITTEN)
    if not 1 <= count <= MAX_MEMBERS:
        raise refuse("number of members", count, f"1..{MAX_MEMBERS}")
    if start + size != position:
        raise refuse(
            "ZIP directory", f"bytes {start}..{start + size}", f"one that ends at byte {position}", COPY_AGAIN
        )
    return count, start, size


def _read_central(data: memoryview, position: int, end: int) -> tuple[Entry, int]:
    """One entry of the directory at `position`, and where the next begins."""
    if end - position < CENTRAL.size:
        raise refuse(
            "ZIP directory", f"cut short at byte {position}", "one entry for each member", COPY_AGAIN
        )
    fields = CENTRAL.unpack_from(data, position)
    signature, made_by, version, flags, method, time, date, crc, stored, size = fields[:10]
    name_size, extra_size, comment_size, disk, internal, external, header = fields[10:]
    if signature != CENTRAL_SIGNATURE:
        raise refuse(
            f"ZIP directory at byte {position}", show(signature), f"{CENTRAL_SIGNATURE!r}", COPY_AGAIN
        )
    position += CENTRAL.size
    if not 1 <= name_size <= MAX_NAME_BYTES or end - position < name_size:
        raise refuse(
            "member name length", name_size, f"1..{MAX_NAME_BYTES}, within the ZIP directory", COPY_AGAIN
        )
    name = bytes(data[position : position + name_size]).decode("latin-1")
    check_name(name)
    _check_fields(
        f"directory entry {name!r}",
        {
            "flags": (flags, 0),
            "compression method": (method, 0),
            "version made by": (made_by, _VERSION),
            "version needed": (version, _VERSION),
            "time": (time, 0),
            "date": (date, DATE),
            "extra field length": (extra_size, 0),
            "comment length": (comment_size, 0),
            "disk": (disk, 0),
            "internal attributes": (internal, 0),
            "external attributes": (external, 0),
            "stored size": (stored, size),
        },
    )
    entry = Entry(name, header, header + LOCAL.size + name_size, size, crc)
    extra = len(_padding(header, name.encode("ascii")))
    return Entry(name, header, entry.start + extra, size, crc), position + name_size


def _check_local(data: memoryview, entry: Entry, expected: int, limit: int) -> int:
    """Check a member's own header against the directory; return where its data ends."""
    if entry.header != expected:
        rule = f"{expected} (members follow each other without gap or overlap)"
        raise refuse(f"offset of member {entry.name!r}", entry.header, rule, COPY_AGAIN)
    if entry.start > limit or entry.size > limit - entry.start:
        rule = f"one that ends before the ZIP directory at byte {limit}"
        found = f"bytes {entry.start}..{entry.start + entry.size}"
        raise refuse(f"data of member {entry.name!r}", found, rule, COPY_AGAIN)
    fields = LOCAL.unpack_from(data, entry.header)
    signature, version, flags, method, time, date, crc, stored, size, name_size, extra_size = fields
    raw = entry.name.encode("ascii")
    padding = _padding(entry.header, raw)
    _check_fields(
        f"local header {entry.name!r}",
        {
            "signature": (signature, LOCAL_SIGNATURE),
            "flags": (flags, 0),
            "compression method": (method, 0),
            "version needed": (version, _VERSION),
            "time": (time, 0),
            "date": (date, DATE),
            "CRC": (crc, entry.crc),
            "stored size": (stored, entry.size),
            "size": (size, entry.size),
            "name length": (name_size, len(raw)),
            "extra field length": (extra_size, len(padding)),
        },
    )
    written = bytes(data[entry.header + LOCAL.size : entry.start])
    if written != raw + padding:
        raise refuse(
            f"local header {entry.name!r}: name and padding",
            show(written),
            show(raw + padding, 160),
            COPY_AGAIN,
        )
    return entry.start + entry.size


# What the expected value of a field means, for messages.
_MEANINGS = {"flags": " (not encrypted, no descriptor)", "compression method": " (stored)"}


def _check_fields(subject: str, fields: Mapping[str, tuple[object, object]]) -> None:
    for field, (found, rule) in fields.items():
        if found != rule:
            raise refuse(
                f"{subject}: {field}", show(found), f"{rule!r}{_MEANINGS.get(field, '')}", _REWRITTEN
            )
