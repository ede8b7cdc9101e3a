"""WebDataset shards: a tar with two or three members for each sample, in the order of the stream.

    000000000042.webp   the picture
    000000000042.mask.png   its mask, if masks are stored
    000000000042.json   index, seed, labels and their names, and the place of the object if there is one

The headers are POSIX ustar without time or user, so that the same samples give the same bytes. They are written here
because Python's `tarfile` takes longer for a header than a pool takes for a picture.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from cgnrt._support.encode import EXTENSIONS, IMAGES, encode, mask_image
from cgnrt.shards.formats.base import Format, ShardContent, Storage, StoredBatch

_BLOCK = 512
_ZEROS = bytes(_BLOCK)
# A header is, in order: name, _OWNER (mode, uid, gid), size, _TIME, checksum (summed as spaces), _KIND (type, no link,
# ustar, nothing else).
_OWNER = b"0000644\0" + b"0000000\0" * 2
_TIME = b"00000000000\0"
_KIND = (b"0" + bytes(100) + b"ustar\x0000").ljust(_BLOCK - 156, b"\0")
_HEADER_SUM = sum(_OWNER + _TIME + b" " * 8 + _KIND)


class WebDataset(Format):
    name = "webdataset"
    suffix = ".tar"
    images = IMAGES
    description = "tar files"

    def write(self, path: Path, content: ShardContent, batches: Iterable[StoredBatch]) -> None:
        image, quality = content.storage.image, content.storage.quality
        picture_end, mask_end = _extensions(content.storage)
        with path.open("wb", buffering=1 << 20) as file:
            for batch in batches:
                for k, row in enumerate(batch.rows(content)):
                    key = f"{row['index']:012d}"
                    _add(file, f"{key}.{picture_end}", encode(batch.images[k], image, quality))
                    if batch.masks is not None:
                        _add(file, f"{key}.{mask_end}", encode(batch.masks[k], mask_image(image), None))
                    _add(file, f"{key}.json", json.dumps(row, ensure_ascii=False).encode())
            file.write(_ZEROS * 2)

    def read(self, path: Path, storage: Storage) -> Iterator[dict[str, Any]]:
        picture_end, mask_end = _extensions(storage)
        parts: dict[str, bytes] = {}
        try:
            with tarfile.open(path, "r:") as archive:
                for member in archive:
                    key, _, end = member.name.partition(".")
                    file = archive.extractfile(member)
                    if file is None:
                        raise ValueError(f"member {member.name!r} is not a file")
                    parts[end] = file.read()
                    if end != "json":
                        continue
                    row = json.loads(parts["json"])
                    own = isinstance(row, dict) and key == f"{row.get('index', -1):012d}"
                    if not own or picture_end not in parts:
                        raise ValueError(f"member {member.name!r} does not belong to the picture before it")
                    found = {**row, "picture": parts[picture_end]}
                    if storage.masks:
                        found["mask"] = parts[mask_end]
                    yield found
                    parts.clear()
        except (tarfile.TarError, EOFError, KeyError, TypeError) as error:
            raise ValueError(f"not a WebDataset shard ({error})") from error
        if parts:
            raise ValueError("the last sample has no json")


def _extensions(storage: Storage) -> tuple[str, str]:
    """What follows the key in the names of a picture and of a mask."""
    return EXTENSIONS[storage.image], f"mask.{EXTENSIONS[mask_image(storage.image)]}"


def _add(file: BinaryIO, name: str, content: bytes) -> None:
    size = b"%011o\0" % len(content)
    path = name.encode()
    checksum = b"%06o\0 " % (_HEADER_SUM + sum(path) + sum(size))
    file.write(path.ljust(100, b"\0") + _OWNER + size + _TIME + checksum + _KIND)
    file.write(content)
    file.write(_ZEROS[: -len(content) % _BLOCK])
