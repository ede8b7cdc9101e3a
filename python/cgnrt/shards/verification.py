"""`verify`: compares a data set on disk with its manifest."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cgnrt._support.encode import decode, mask_image
from cgnrt.errors import printable
from cgnrt.request.place import Place
from cgnrt.sampling import MECHANISMS
from cgnrt.shards import journal
from cgnrt.shards.formats import FORMATS
from cgnrt.shards.maker import checksum
from cgnrt.shards.manifest import DataSetManifest, ShardRecord


def verify(
    folder: str | os.PathLike[str], *, deep: bool = False, progress: Callable[[int], object] | None = None
) -> list[str]:
    """The problems of a data set; an empty list if it is whole.

    It is whole if every shard exists with the size and checksum of the manifest and holds its samples in order, with
    labels of the plan's classes and places in their ranges, and if the folder has no other shards.

    Args:
      deep: decode every picture too.
      progress: called with the number of samples of each checked shard.
    Raises:
      CgnrtError: both manifest and journal are missing, or one is damaged.
    """
    where = Path(folder)
    begun = journal.read(where)
    if begun is not None:
        done = f"{len(begun.shards)} of {begun.expected} shards"
        return [f"the run is not finished ({done} are); the same command resumes it"]
    manifest = DataSetManifest.read(where)
    FORMATS[manifest.storage.format].check()
    problems = _structure(where, manifest)
    for record in manifest.shards:
        problems += [f"{record.name}: {text}" for text in _shard(where, manifest, record, deep)]
        if progress is not None:
            progress(record.count)
    return [printable(text, keep="") for text in problems]


def _structure(folder: Path, manifest: DataSetManifest) -> list[str]:
    """Compare the shards of the manifest with the options in it, and with the files in the folder."""
    samples, storage = manifest.header["samples"], manifest.storage
    problems = []
    count = len(manifest.shards)
    ordered = all(record.name == manifest.name(k) for k, record in enumerate(manifest.shards))
    if count != manifest.expected or not ordered:
        problems.append(f"the manifest has {count} shards, expected {manifest.expected} in order")
    first = samples["start"]
    for record in manifest.shards:
        count = min(storage.shard_size, samples["start"] + samples["n"] - first)
        if (record.first, record.count) != (first, count):
            problems.append(
                f"{record.name}: samples are {record.first}..{record.first + record.count - 1}, "
                f"expected {first}..{first + count - 1}"
            )
        first += count
    listed = {record.name for record in manifest.shards}
    suffix = FORMATS[storage.format].suffix
    others = sorted(p.name for p in folder.iterdir() if p.suffix == suffix and p.name not in listed)
    return problems + [f"{name}: not in the manifest, but a loader may read it" for name in others]


def _shard(folder: Path, manifest: DataSetManifest, record: ShardRecord, deep: bool) -> list[str]:
    path = folder / record.name
    try:
        size, digest = checksum(path)
    except OSError as error:
        return [f"cannot be read ({error.strerror or error})"]
    if size != record.size_bytes:
        return [f"size is {size} bytes, expected {record.size_bytes}"]
    if digest != record.sha256:
        return [f"SHA-256 is {digest[:12]}, expected {record.sha256[:12]}"]
    storage, count, places = manifest.storage, 0, _place_bounds(manifest.header)
    try:
        for sample in FORMATS[storage.format].read(path, storage):
            wrong = _sample(manifest.header, record.first + count, sample, deep) or _place(places, sample)
            if wrong is not None:
                return [f"sample {count}: {wrong}"]
            count += 1
    except ValueError as error:
        return [str(error)]
    return [] if count == record.count else [f"samples are {count}, expected {record.count}"]


def _sample(header: Mapping[str, Any], index: int, sample: Mapping[str, Any], deep: bool) -> str | None:
    """The first problem of a sample; None if it has none."""
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


def _place_bounds(header: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The least and greatest value of each factor of the place, whose types samples have; empty without a place."""
    if "place" not in header["samples"]:
        return {}
    place = Place.from_dict(header["samples"]["place"])
    height, width = header["plan"]["resolution"]
    drawn = place.draws((height, width))
    least, greatest = place.bounds("scale")
    return {
        "dy": drawn.rows,
        "dx": drawn.columns,
        "scale": (float(np.float32(least)), float(np.float32(greatest))),  # as they are drawn
        "flip": (place.flip == 1, place.flip > 0),
    }


def _place(bounds: Mapping[str, tuple[Any, Any]], sample: Mapping[str, Any]) -> str | None:
    """The first factor of a sample's place that is not within its bounds; None if all are."""
    for name, (low, high) in bounds.items():
        value: Any = sample.get(name)
        if type(value) is not type(low) or not low <= value <= high:
            return f"{name} is {value!r}, expected {low}..{high}"
    return None


def _pictures(header: Mapping[str, Any], sample: Mapping[str, Any]) -> str | None:
    image, masks = header["storage"]["image"], header["storage"]["masks"]
    height, width = header["plan"]["resolution"]
    expected = {"picture": (height, width, 3)} | ({"mask": (height, width)} if masks else {})
    for name, shape in expected.items():
        found = sample[name]
        if isinstance(found, bytes):
            try:
                found = decode(found, image if name == "picture" else mask_image(image))
            except ValueError as error:
                return f"{name}: {error}"
        if found.shape != shape or found.dtype != np.uint8:
            return f"{name} is {found.dtype} {found.shape}, expected uint8 {shape}"
    return None
