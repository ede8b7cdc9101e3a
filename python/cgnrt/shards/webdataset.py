"""WebDataset shards: a tar with two or three members a sample, written in the order of the stream.

    000000000042.webp   the picture
    000000000042.mask.png   its mask, if the data set keeps them
    000000000042.json   index, seed, labels and their names

The headers are POSIX ustar with nothing in them that is not the sample's: no time, no user. They are written here
because Python's `tarfile` takes longer over a header than a pool takes over a picture.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from cgnrt.shards.cuts import Cut, rows
from cgnrt.shards.encode import EXTENSIONS, encode, encode_mask
from cgnrt.shards.job import Job

_BLOCK = 512
_ZEROS = bytes(_BLOCK)
# Of a header, in order: name, _OWNER (mode, uid, gid), size, _TIME, checksum (summed as spaces), _KIND (type, no link,
# ustar, nothing else).
_OWNER = b"0000644\0" + b"0000000\0" * 2
_TIME = b"00000000000\0"
_KIND = (b"0" + bytes(100) + b"ustar\x0000").ljust(_BLOCK - 156, b"\0")
_HEADER_SUM = sum(_OWNER + _TIME + b" " * 8 + _KIND)


def write(path: Path, job: Job, cuts: Iterable[Cut]) -> None:
    """Write a shard's samples."""
    image, quality = job.storage.image, job.storage.quality
    extension, mask_extension = EXTENSIONS[image], "npy" if image == "raw" else "png"
    with path.open("wb", buffering=1 << 20) as file:
        for cut in cuts:
            for k, row in enumerate(rows(cut, job)):
                key = f"{row['index']:012d}"
                _add(file, f"{key}.{extension}", encode(cut.images[k], image, quality))
                if cut.masks is not None:
                    _add(file, f"{key}.mask.{mask_extension}", encode_mask(cut.masks[k], image))
                _add(file, f"{key}.json", json.dumps(row, ensure_ascii=False).encode())
        file.write(_ZEROS * 2)


def read(path: Path, storage: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The samples of a shard: what `rows` says, with the encoded `picture`, and `mask` where there is one.

    Raises:
      ValueError: the file is no such shard.
    """
    extension = EXTENSIONS[storage["image"]]
    parts: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                key, _, kind = member.name.partition(".")
                file = archive.extractfile(member)
                if file is None:
                    raise ValueError(f"member {member.name!r} is no file")
                parts[kind] = file.read()
                if kind != "json":
                    continue
                row = json.loads(parts["json"])
                if (
                    not isinstance(row, dict)
                    or key != f"{row.get('index', -1):012d}"
                    or extension not in parts
                ):
                    raise ValueError(f"member {member.name!r} is not of the picture before it")
                found = {**row, "picture": parts[extension]}
                if storage["masks"]:
                    found["mask"] = parts["mask.npy" if storage["image"] == "raw" else "mask.png"]
                yield found
                parts.clear()
    except (tarfile.TarError, EOFError, KeyError, TypeError) as error:
        raise ValueError(f"no WebDataset shard ({error})") from error
    if parts:
        raise ValueError("the last sample has no json")


def _add(file: BinaryIO, name: str, content: bytes) -> None:
    size = b"%011o\0" % len(content)
    path = name.encode()
    checksum = b"%06o\0 " % (_HEADER_SUM + sum(path) + sum(size))
    file.write(path.ljust(100, b"\0") + _OWNER + size + _TIME + checksum + _KIND)
    file.write(content)
    file.write(_ZEROS[: -len(content) % _BLOCK])
