"""One run in a folder at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from cgnrt.errors import CgnrtError

LOCK = ".cgnrt-lock"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock file, which says who does. The kernel lets go of it with the process, however that ends.

    Raises:
      CgnrtError: another run holds it, or it cannot be made.
    """
    path = folder / LOCK
    try:
        handle = _acquire(path)
    except BlockingIOError:
        with contextlib.suppress(OSError):
            who = path.read_text(encoding="utf-8").strip()
            raise CgnrtError(
                f"generate '{folder}': the folder is in use by another run ({who}), expected one run at a time. "
                "Wait for it, or stop it."
            ) from None
        raise CgnrtError(f"generate '{folder}': the folder is in use by another run. Try again.") from None
    except OSError as error:
        raise CgnrtError(
            f"generate '{folder}': {error.strerror or error}, expected a writable folder."
        ) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)
        os.close(handle)


def _acquire(path: Path) -> int:
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is(path, handle):  # and not what its last holder unlinked meanwhile
                os.ftruncate(handle, 0)
                os.write(handle, f"pid {os.getpid()} on {socket.gethostname()}\n".encode())
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _is(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False
