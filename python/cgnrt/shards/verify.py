"""`verify`: whether a data set on disk is what its manifest says."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cgnrt.sampling import MECHANISMS
from cgnrt.shards import journal, npz, parquet, webdataset
from cgnrt.shards.encode import decode, decode_mask
from cgnrt.shards.job import SUFFIXES
from cgnrt.shards.maker import checksum
from cgnrt.shards.manifest import Manifest, ShardRecord

_READERS: dict[str, Callable[[Path, dict[str, Any]], Iterator[dict[str, Any]]]] = {
    "webdataset": webdataset.read,
    "parquet": parquet.read,
    "npz": npz.read,
}


def verify(
    folder: str | os.PathLike[str], *, deep: bool = False, progress: Callable[[int], object] | None = None
) -> list[str]:
    """What is wrong with a data set; nothing, if the list is empty.

    Every shard is there with the size and checksum of the manifest, and holds the samples that it should in order,
    with labels of the plan's classes; no other shards lie beside them.

    Args:
      deep: decode every picture, too.
      progress: called with the number of samples of each shard that is checked.
    Raises:
      CgnrtError: there is neither manifest nor journal, or it is damaged.
    """
    where = Path(folder)
    begun = journal.read(where)
    if begun is not None:
        done = f"{len(begun.shards)} of {begun.expected} shards"
        return [f"the run is not finished ({done} are); the command that began it goes on with it"]
    manifest = Manifest.read(where)
    if manifest.header["storage"]["format"] == "parquet":
        parquet.check()
    problems = _structure(where, manifest)
    for record in manifest.shards:
        problems += [f"{record.name}: {text}" for text in _shard(where, manifest.header, record, deep)]
        if progress is not None:
            progress(record.count)
    return problems


def _structure(folder: Path, manifest: Manifest) -> list[str]:
    """The shards of the manifest, against what it says of the whole, and against the files that are there."""
    samples, storage = manifest.header["samples"], manifest.header["storage"]
    problems = []
    names = manifest.names()
    if [record.name for record in manifest.shards] != names:
        problems.append(f"the manifest has {len(manifest.shards)} shards, expected {len(names)} in order")
    first = samples["start"]
    for record in manifest.shards:
        count = min(storage["shard_size"], samples["start"] + samples["n"] - first)
        if (record.first, record.count) != (first, count):
            problems.append(
                f"{record.name}: samples are {record.first}..{record.first + record.count - 1}, "
                f"expected {first}..{first + count - 1}"
            )
        first += count
    listed = {record.name for record in manifest.shards}
    suffix = SUFFIXES[storage["format"]]
    others = sorted(p.name for p in folder.iterdir() if p.suffix == suffix and p.name not in listed)
    return problems + [f"{name}: not in the manifest, and a loader may read it" for name in others]


def _shard(folder: Path, header: Mapping[str, Any], record: ShardRecord, deep: bool) -> list[str]:
    path = folder / record.name
    try:
        size, digest = checksum(path)
    except OSError as error:
        return [f"unreadable ({error.strerror or error})"]
    if size != record.size_bytes:
        return [f"size is {size} bytes, expected {record.size_bytes}"]
    if digest != record.sha256:
        return [f"SHA-256 is {digest[:12]}, expected {record.sha256[:12]}"]
    read = _READERS[header["storage"]["format"]]
    count = 0
    try:
        for sample in read(path, dict(header["storage"])):
            wrong = _sample(header, record.first + count, sample, deep)
            if wrong is not None:
                return [f"sample {count}: {wrong}"]
            count += 1
    except ValueError as error:
        return [str(error)]
    return [] if count == record.count else [f"samples are {count}, expected {record.count}"]


def _sample(header: Mapping[str, Any], index: int, sample: Mapping[str, Any], deep: bool) -> str | None:
    """What is wrong with one sample."""
    if sample.get("index") != index:
        return f"index is {sample.get('index')!r}, expected {index}"
    if sample.get("seed") != header["samples"]["seed"]:
        return f"seed is {sample.get('seed')!r}, expected {header['samples']['seed']}"
    for mechanism in MECHANISMS:
        names, label = header["classes"][mechanism], sample.get(mechanism)
        if not isinstance(label, int) or not 0 <= label < len(names):
            return f"{mechanism} is {label!r}, expected 0..{len(names) - 1}"
        if sample.get(f"{mechanism}_name") != names[label]:
            return f"{mechanism}_name is {sample.get(f'{mechanism}_name')!r}, expected {names[label]!r}"
    return _pictures(header, sample) if deep else None


def _pictures(header: Mapping[str, Any], sample: Mapping[str, Any]) -> str | None:
    image, masks = header["storage"]["image"], header["storage"]["masks"]
    height, width = header["plan"]["resolution"]
    expected = {"picture": (height, width, 3)} | ({"mask": (height, width)} if masks else {})
    for name, shape in expected.items():
        found = sample[name]
        if isinstance(found, bytes):
            try:
                found = decode(found, image) if name == "picture" else decode_mask(found, image)
            except ValueError as error:
                return f"{name}: {error}"
        if found.shape != shape or found.dtype != np.uint8:
            return f"{name} is {found.dtype} {found.shape}, expected uint8 {shape}"
    return None
