"""Parquet shards: a row for each sample, a row group for each batch.

Encoded pictures are a binary column. Raw ones are a fixed-shape tensor, (h, w, 3) uint8, which Arrow reads without
copying row by row. Class names are dictionary-encoded.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cgnrt._support.encode import IMAGES, encode, mask_image
from cgnrt.sampling import MECHANISMS
from cgnrt.shards.formats.base import Format, ShardContent, Storage, StoredBatch

_PLACE = {"dy": "int32", "dx": "int32", "scale": "float32", "flip": "bool"}  # the columns of a place


class Parquet(Format):
    name = "parquet"
    suffix = ".parquet"
    images = IMAGES
    description = "Parquet tables"
    manifest = ".manifest.json"  # Arrow skips names with a dot or underscore before them, and Hugging Face only a dot
    package = "pyarrow"

    def write(self, path: Path, content: ShardContent, batches: Iterable[StoredBatch]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        storage, schema = content.storage, _schema(content)
        names = {m: pa.array(content.names[m], pa.string()) for m in MECHANISMS}
        plain = [field.name for field in schema if field.name in ("index", "image", "mask", "scale", "flip")]
        dictionary = [field.name for field in schema if field.name not in plain]
        if storage.image == "raw":  # a value takes one byte with a dictionary, four without
            dictionary += [f"{name}.list.element" for name in ("image", "mask") if name in plain]
        options = {"compression": "none", "use_dictionary": dictionary, "write_statistics": ["index"]}
        with path.open("wb") as file, pq.ParquetWriter(file, schema, **options) as writer:
            for batch in batches:
                columns: dict[str, Any] = {
                    "index": pa.array(batch.indices),
                    "seed": pa.array(np.full(len(batch), content.seed, np.uint64)),
                }
                for mechanism, labels in zip(MECHANISMS, batch.labels.T, strict=True):
                    found = pa.array(labels.astype(np.int32))
                    columns[mechanism] = found
                    columns[f"{mechanism}_name"] = pa.DictionaryArray.from_arrays(found, names[mechanism])
                if batch.place is not None:
                    for name, column in zip(_PLACE, batch.place.T, strict=True):
                        columns[name] = pa.array(column.astype(_PLACE[name]))
                encoded = (encode(image, storage.image, storage.quality) for image in batch.images)
                columns["image"] = _pictures(batch.images, encoded, storage)
                if batch.masks is not None:
                    encoded = (encode(mask, mask_image(storage.image), None) for mask in batch.masks)
                    columns["mask"] = _pictures(batch.masks, encoded, storage)
                table = pa.table([columns[field.name] for field in schema], schema=schema)
                writer.write_table(table, row_group_size=max(1, len(batch)))

    def read(self, path: Path, storage: Storage) -> Iterator[dict[str, Any]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pictures = {"picture": "image", "mask": "mask"} if storage.masks else {"picture": "image"}
        try:
            with pq.ParquetFile(path) as file:
                for group in range(file.num_row_groups):
                    table = file.read_row_group(group)
                    columns = {key: _values(table.column(name)) for key, name in pictures.items()}
                    for k, row in enumerate(table.drop_columns(list(pictures.values())).to_pylist()):
                        yield row | {key: values[k] for key, values in columns.items()}
        except (pa.ArrowException, OSError, KeyError) as error:
            raise ValueError(f"not a Parquet shard ({error})") from error


def _values(column: Any) -> Any:
    """A column's pictures: an array of raw ones, a list of encoded ones."""
    import pyarrow as pa

    column = column.combine_chunks()
    raw = isinstance(column.type, pa.FixedShapeTensorType)
    return column.to_numpy_ndarray() if raw else column.to_pylist()


def _schema(content: ShardContent) -> Any:
    import pyarrow as pa

    height, width = content.resolution

    def pictures(*shape: int) -> Any:
        return pa.fixed_shape_tensor(pa.uint8(), shape) if content.storage.image == "raw" else pa.binary()

    fields = [("index", pa.int64()), ("seed", pa.uint64())]
    for mechanism in MECHANISMS:
        fields += [(mechanism, pa.int32()), (f"{mechanism}_name", pa.dictionary(pa.int32(), pa.string()))]
    if content.placed:
        fields += [(name, pa.from_numpy_dtype(dtype)) for name, dtype in _PLACE.items()]
    fields.append(("image", pictures(height, width, 3)))
    if content.storage.masks:
        fields.append(("mask", pictures(height, width)))
    about = {"plan": content.plan_digest, "image": content.storage.image}
    return pa.schema(
        [pa.field(name, kind, nullable=False) for name, kind in fields], {"cgnrt": json.dumps(about)}
    )


def _pictures(arrays: np.ndarray, encoded: Iterable[bytes], storage: Storage) -> Any:
    """A column of raw pictures, or of encoded ones."""
    import pyarrow as pa

    if storage.image == "raw":
        return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(arrays))
    return pa.array(list(encoded), pa.binary())
