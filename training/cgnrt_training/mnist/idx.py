"""Read IDX, the format of the original MNIST files, plain or gzip-compressed."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cgnrt._support.reading import open_file

LARGEST_BYTES = 1 << 30  # MNIST's largest file has 47 MB; no header can ask for more than this
_UNSIGNED_BYTE = 0x08


def read_idx(path: str | os.PathLike[str], axes: int) -> NDArray[np.uint8]:
    """Read an array of unsigned bytes with the given number of axes.

    Raises:
      ValueError: the file is unreadable, truncated, too long, or no such IDX file.
    """
    path = Path(path)
    try:
        with open_file(path) as raw:
            if raw.read(2) == b"\x1f\x8b":
                raw.seek(0)
                with gzip.open(raw, "rb") as packed:
                    content = packed.read(LARGEST_BYTES + 1)
            else:
                raw.seek(0)
                content = raw.read(LARGEST_BYTES + 1)
    except EOFError as error:
        raise ValueError(
            f"load '{path}': gzip stream is truncated, expected its end. Get the file again."
        ) from error
    except (OSError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(
            f"load '{path}': file is unreadable ({reason}), expected IDX. Get the file again."
        ) from error
    if len(content) > LARGEST_BYTES:
        raise ValueError(f"load '{path}': size is over {LARGEST_BYTES} bytes, expected an MNIST file.")
    magic = bytes([0, 0, _UNSIGNED_BYTE, axes])
    if content[:4] != magic:
        raise ValueError(
            f"load '{path}': magic number is 0x{content[:4].hex() or '(nothing)'}, expected 0x{magic.hex()} "
            f"(unsigned bytes, {axes} axes). Check that it is the right MNIST file."
        )
    start = 4 + 4 * axes
    shape = tuple(int.from_bytes(content[4 + 4 * k : 8 + 4 * k], "big") for k in range(axes))
    size = start + math.prod(shape)
    if len(content) != size:
        state = "truncated" if len(content) < size else "longer than it says"
        raise ValueError(
            f"load '{path}': file is {state}, {len(content)} bytes, expected {size} for {shape}. "
            f"Get the file again."
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
