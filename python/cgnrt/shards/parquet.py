"""Parquet shards: a row for each sample, a row group for each cut.

Encoded pictures are a binary column; raw ones a fixed-shape tensor, (h, w, 3) uint8, which Arrow gives out without a
copy a row. Class names are dictionary-encoded.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cgnrt.errors import MissingDependencyError
from cgnrt.sampling import MECHANISMS
from cgnrt.shards.cuts import Cut
from cgnrt.shards.encode import encode, encode_mask
from cgnrt.shards.job import Job


def check() -> None:
    """Refuse before long work.

    Raises:
      MissingDependencyError: pyarrow is not installed.
    """
    try:
        import pyarrow  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "pyarrow":
            raise
        raise MissingDependencyError(
            "generate: pyarrow is not installed, which --format parquet needs. Run: pip install 'cgnrt[parquet]'"
        ) from error


def write(path: Path, job: Job, cuts: Iterable[Cut]) -> None:
    """Write a shard's samples."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema(job)
    names = {m: pa.array(job.names[m], pa.string()) for m in MECHANISMS}
    plain = [field.name for field in schema if field.name in ("index", "image", "mask")]
    dictionary = [field.name for field in schema if field.name not in plain]
    if job.storage.image == "raw":  # of a dictionary a value takes one byte, plain it would take four
        dictionary += [f"{name}.list.element" for name in ("image", "mask") if name in plain]
    with (
        path.open("wb") as file,
        pq.ParquetWriter(
            file, schema, compression="none", use_dictionary=dictionary, write_statistics=["index"]
        ) as writer,
    ):
        for cut in cuts:
            columns: dict[str, Any] = {
                "index": pa.array(cut.indices),
                "seed": pa.array(np.full(len(cut), job.samples.seed, np.uint64)),
            }
            for mechanism, labels in zip(MECHANISMS, cut.labels.T, strict=True):
                found = pa.array(labels.astype(np.int32))
                columns[mechanism] = found
                columns[f"{mechanism}_name"] = pa.DictionaryArray.from_arrays(found, names[mechanism])
            columns["image"] = _pictures(cut.images, job)
            if cut.masks is not None:
                columns["mask"] = _masks(cut.masks, job)
            table = pa.table([columns[field.name] for field in schema], schema=schema)
            writer.write_table(table, row_group_size=max(1, len(cut)))


def read(path: Path, storage: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The samples of a shard, as `webdataset.read` gives them; of raw pictures the array.

    Raises:
      ValueError: the file is no such shard.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group)
                pictures = {"picture": "image", "mask": "mask"} if storage["masks"] else {"picture": "image"}
                columns = {
                    key: _values(table.column(name).combine_chunks()) for key, name in pictures.items()
                }
                for k, row in enumerate(table.drop_columns(list(pictures.values())).to_pylist()):
                    yield row | {key: values[k] for key, values in columns.items()}
    except (pa.ArrowException, OSError, KeyError) as error:
        raise ValueError(f"no Parquet shard ({error})") from error


def _values(column: Any) -> Any:
    import pyarrow as pa

    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    return (
        column.to_numpy_ndarray() if isinstance(column.type, pa.FixedShapeTensorType) else column.to_pylist()
    )


def _schema(job: Job) -> Any:
    import pyarrow as pa

    raw = job.storage.image == "raw"
    height, width = job.resolution
    fields = [("index", pa.int64()), ("seed", pa.uint64())]
    for mechanism in MECHANISMS:
        fields += [(mechanism, pa.int32()), (f"{mechanism}_name", pa.dictionary(pa.int32(), pa.string()))]
    fields.append(("image", pa.fixed_shape_tensor(pa.uint8(), (height, width, 3)) if raw else pa.binary()))
    if job.storage.masks:
        fields.append(("mask", pa.fixed_shape_tensor(pa.uint8(), (height, width)) if raw else pa.binary()))
    about = {"plan": job.digest, "image": job.storage.image}
    return pa.schema(
        [pa.field(name, kind, nullable=False) for name, kind in fields], {"cgnrt": json.dumps(about)}
    )


def _pictures(images: np.ndarray, job: Job) -> Any:
    import pyarrow as pa

    if job.storage.image == "raw":
        return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(images))
    return pa.array([encode(image, job.storage.image, job.storage.quality) for image in images], pa.binary())


def _masks(masks: np.ndarray, job: Job) -> Any:
    import pyarrow as pa

    if job.storage.image == "raw":
        return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(masks))
    return pa.array([encode_mask(mask, job.storage.image) for mask in masks], pa.binary())
