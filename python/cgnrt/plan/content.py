"""The bytes of a plan file: mapped, or a private copy that nothing reaches which is done to the file later."""

from __future__ import annotations

import contextlib
import mmap
import os
import stat
import tempfile
import weakref
from typing import NamedTuple

from cgnrt.errors import COPY_AGAIN, refuse

_IN_MEMORY_BYTES = 64 << 20  # a larger private copy is a temporary file
_COPY_STEP = 8 << 20


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
