"""The formats of shard files. A new one is a module here and a line in `FORMATS`."""

from __future__ import annotations

from cgnrt._support.encode import DEFAULT_QUALITY, QUALITY_BOUNDS
from cgnrt._support.suggest import did_you_mean
from cgnrt._support.values import is_int
from cgnrt.shards.formats.base import Format, ShardContent, Storage, StoredBatch
from cgnrt.shards.formats.npz import Npz
from cgnrt.shards.formats.parquet import Parquet
from cgnrt.shards.formats.webdataset import WebDataset

__all__ = ["FORMATS", "Format", "ShardContent", "Storage", "StoredBatch", "check_positive", "choose_storage"]

FORMATS: dict[str, Format] = {found.name: found for found in (WebDataset(), Parquet(), Npz())}


def choose_storage(
    format: str, image: str | None, quality: int | None, *, masks: bool, shard_size: int
) -> Storage:
    """Check the storage options; None is the format's or the image's default.

    Raises:
      ValueError: an option is out of range.
    """
    if format not in FORMATS:
        raise ValueError(
            f"generate: format is {format!r}, expected one of {', '.join(FORMATS)}.{did_you_mean(format, FORMATS)}"
        )
    images = FORMATS[format].images
    if image is None:
        image = images[0]
    if image not in images:
        rule = images[0] if len(images) == 1 else f"one of {', '.join(images)}"
        raise ValueError(f"generate: image is {image!r}, expected {rule} for format {format}.")
    if quality is None:
        quality = DEFAULT_QUALITY[image]
    elif image not in QUALITY_BOUNDS:
        raise ValueError(f"generate: quality is {quality!r}, expected None: {image} is lossless.")
    else:
        low, high = QUALITY_BOUNDS[image]
        if not is_int(quality) or not low <= quality <= high:
            raise ValueError(f"generate: quality is {quality!r}, expected {low}..{high} for {image}.")
        quality = int(quality)
    return Storage(format, image, quality, bool(masks), check_positive("shard_size", shard_size))


def check_positive(name: str, value: object) -> int:
    if not is_int(value) or value < 1:
        raise ValueError(f"generate: {name} is {value!r}, expected an int of at least 1.")
    return int(value)
