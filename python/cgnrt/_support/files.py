"""Files that appear complete or not at all."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import signal
import stat
import threading
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import FrameType

import numpy as np

from cgnrt.errors import CgnrtError


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Within the block SIGTERM raises KeyboardInterrupt, as Ctrl-C does, so that unfinished files are removed.

    If an interrupted call raises another error instead (an extension module whose import was interrupted), that error
    becomes KeyboardInterrupt, too. Outside the main thread nothing changes, since only it may set handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []

    def interrupt(signum: int, frame: FrameType | None) -> None:
        received.append(signum)
        raise KeyboardInterrupt

    before = {signum: signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)}
    # A signal that is ignored, as in a background job, stays ignored. None means that C code set the handler.
    before = {signum: old for signum, old in before.items() if old not in (signal.SIG_IGN, None)}
    try:
        for signum in before:
            signal.signal(signum, interrupt)
        yield
    except Exception as error:
        if received:
            raise KeyboardInterrupt from error
        raise
    finally:
        for signum, old in before.items():
            signal.signal(signum, old)


def open_own(path: Path, flags: int) -> int:
    """Open a file of a fixed name, in a folder where others may have put something else of that name.

    Returns:
      A descriptor of a regular file, which is not inherited.
    Raises:
      OSError: it is a symbolic link, or not a file; the system's own reasons.
    """
    try:
        handle = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o644)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(
                errno.ELOOP, f"{path.name} is a symbolic link, expected a file", str(path)
            ) from None
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, f"{path.name} is not a regular file", str(path))
    return handle


@contextlib.contextmanager
def held_folder(folder: Path) -> Iterator[None]:
    """Hold a lock on the folder itself, which ends with the process, so that no other run writes to it.

    Raises:
      CgnrtError: another run holds it.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CgnrtError(
                f"write '{folder}': the folder is in use by another run, expected one run at a time. "
                "Wait for it, or stop it."
            ) from None
        except OSError:  # a network file system that locks no folders
            pass
        yield
    finally:
        os.close(handle)


def cache_folder(name: str) -> Path:
    """Where one kind of thing is kept for later processes: in `CGNRT_CACHE`, or `cgnrt` in the user's cache folder."""
    own = os.environ.get("CGNRT_CACHE")
    shared = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return (Path(own) if own else Path(shared) / "cgnrt") / name


def refuse_existing(target: Path, *, force: bool) -> None:
    """Refuse to replace a file. Called before long work whose result could not be written.

    Raises:
      CgnrtError: the target exists and `force` is off, or it is a device or a FIFO.
    """
    if not force and os.path.lexists(target):
        raise _exists(target)
    with contextlib.suppress(OSError):  # there is nothing, or writing says why not
        mode = os.stat(target).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # /dev/null would become a file
            raise CgnrtError(f"write '{target}': it is not a regular file, expected one or a new name.")


@contextlib.contextmanager
def written_beside(target: Path, *, force: bool, flush_name: bool = True) -> Iterator[Path]:
    """A path beside `target` to write to; the folder is created.

    If the block succeeds, the file is flushed to the disk and renamed to `target`; without `force` even a file that
    was created meanwhile is not replaced. If the block fails, the file is removed.

    Args:
      flush_name: flush the file's name, too; if not, the caller does it for many files (`flush_names`).
    Raises:
      CgnrtError: the target exists and `force` is off, or writing failed (a full disk, no such folder).
    """
    refuse_existing(target, force=force)
    # The name is cut so that it is valid wherever the target's is, also with the suffixes of `write_npz`.
    beside = target.with_name(f".{target.name[:40]}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        _flush(beside)
        try:
            publish(beside, target, force=force)
        except FileExistsError:
            raise _exists(target) from None
        if flush_name:
            flush_names(target.parent)
    except OSError as error:
        raise CgnrtError(
            f"write '{target}': {error.strerror or error}, expected a writable place. Nothing was left behind."
        ) from error
    finally:
        discard(beside)


def discard(path: Path) -> None:
    """Remove a file that is not needed, if that is possible: a clean-up must not hide the error that came before it."""
    with contextlib.suppress(OSError):
        path.unlink()


def publish(beside: Path, target: Path, *, force: bool) -> None:
    """Rename a finished file; without `force`, its old name stays until it is discarded.

    Raises:
      FileExistsError: `force` is off, and the target was created meanwhile.
    """
    if force:
        os.replace(beside, target)
        return
    try:
        os.link(beside, target)  # unlike a rename, fails if the target exists
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links: all that remains is another check
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from None
        os.replace(beside, target)


def flush_names(folder: Path) -> None:
    """Flush the names of a folder's files to the disk. On a file system that cannot, they are there nevertheless."""
    with contextlib.suppress(OSError):
        _flush(folder)


def _flush(path: Path) -> None:
    """Flush a file's content, or a folder's names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _exists(target: Path) -> CgnrtError:
    return CgnrtError(f"write '{target}': the file exists, expected a new one. Pass --force to replace it.")


def write_npz(
    path: Path,
    columns: Mapping[str, tuple[tuple[int, ...], str]],
    batches: Iterable[Mapping[str, np.ndarray]],
) -> None:
    """Write an uncompressed .npz without holding it in memory.

    Args:
      path: where to write.
      columns: array name -> (shape of the whole, dtype).
      batches: arrays of some rows each, of all columns or some, in order, that make up the whole. They go to a
        temporary file for each column beside `path` first, since a member of a ZIP must be written at once.
    """
    spools = {name: path.with_name(f"{path.name}.{name}") for name in columns}
    try:
        with contextlib.ExitStack() as stack:
            handles = {name: stack.enter_context(spool.open("wb")) for name, spool in spools.items()}
            for batch in batches:
                for name, rows in batch.items():
                    handles[name].write(np.ascontiguousarray(rows, columns[name][1]).data)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for name, (shape, dtype) in columns.items():
                with (
                    # This entry has no time in it, in any version of Python: the same arrays give the same bytes.
                    archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member,
                    spools[name].open("rb") as spool,
                ):
                    header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_1_0(member, header)
                    while block := spool.read(1 << 20):
                        member.write(block)
    finally:
        for path_beside in spools.values():
            discard(path_beside)
