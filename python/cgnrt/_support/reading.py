"""Reading files whose names come from users, or from files of others: what is not a file is refused at once.

A FIFO would be waited for until somebody writes, a device such as /dev/zero never ends, a socket cannot be opened.
"""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader

AnyPath = str | os.PathLike[str]


def open_file(path: AnyPath) -> BufferedReader:
    """Open a regular file, or a link to one, for reading.

    Raises:
      OSError: it is something else; the system's own reasons.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if error.errno != errno.ENXIO:  # what the system says of a socket: "No such device or address"
            raise
        raise _no_file(path) from None
    try:
        check_regular(handle, path)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def check_regular(handle: int, path: AnyPath) -> None:
    """Refuse a descriptor of anything but a regular file.

    Raises:
      OSError: it is of something else.
    """
    mode = os.fstat(handle).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if not stat.S_ISREG(mode):
        raise _no_file(path)


def read_file(path: AnyPath, limit: int | None = None) -> bytes:
    """The content of a regular file.

    Raises:
      OSError: as `open_file`, or the file has more than `limit` bytes.
    """
    with open_file(path) as file:
        content = file.read() if limit is None else file.read(limit + 1)
    if limit is not None and len(content) > limit:
        raise OSError(errno.EFBIG, f"more than {limit} bytes", os.fspath(path))
    return content


def read_text(path: AnyPath, limit: int | None = None) -> str:
    """The text of a regular file in UTF-8, line ends as `\\n`.

    Raises:
      OSError: as `read_file`.
      UnicodeDecodeError: it is not UTF-8.
    """
    text = read_file(path, limit).decode("utf-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _no_file(path: AnyPath) -> OSError:
    return OSError(errno.EINVAL, "not a regular file", os.fspath(path))
