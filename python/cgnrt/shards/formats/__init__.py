"""The formats of shard files. A new one is a module here and a line in `FORMATS`."""

from __future__ import annotations

from cgnrt.shards.formats.base import Format, ShardContent, Storage, StoredBatch
from cgnrt.shards.formats.npz import Npz
from cgnrt.shards.formats.parquet import Parquet
from cgnrt.shards.formats.webdataset import WebDataset

__all__ = ["FORMATS", "Format", "ShardContent", "Storage", "StoredBatch"]

FORMATS: dict[str, Format] = {found.name: found for found in (WebDataset(), Parquet(), Npz())}
