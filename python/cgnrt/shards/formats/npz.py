"""NumPy shards: the arrays that `cgnrt sample` writes, with the class names and, if they are stored, the masks."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cgnrt._support.files import write_npz
from cgnrt.sampling import LABEL_COLUMNS, MECHANISMS
from cgnrt.shards.formats.base import Format, ShardContent, Storage, StoredBatch, place_row


class Npz(Format):
    name = "npz"
    suffix = ".npz"
    images = ("raw",)
    description = "NumPy arrays"

    def write(self, path: Path, content: ShardContent, batches: Iterable[StoredBatch]) -> None:
        count, (height, width) = content.count, content.resolution
        once = {"seed": np.asarray([content.seed], np.uint64)}
        once |= {f"classes_{m}": np.asarray(content.names[m], np.str_) for m in MECHANISMS}
        columns = {"images": ((count, height, width, 3), "uint8"), "indices": ((count,), "int64")}
        columns |= dict.fromkeys(LABEL_COLUMNS, ((count,), "int64"))
        if content.storage.masks:
            columns["masks"] = ((count, height, width), "uint8")
        if content.placed:
            columns["place"] = ((count, 4), "float32")
        columns |= {name: (array.shape, array.dtype.str) for name, array in once.items()}

        def blocks() -> Iterator[dict[str, np.ndarray]]:
            yield once
            for batch in batches:
                block = {"images": batch.images, "indices": batch.indices}
                block |= dict(zip(LABEL_COLUMNS, batch.labels.T, strict=True))
                if batch.masks is not None:
                    block["masks"] = batch.masks
                if batch.place is not None:
                    block["place"] = batch.place
                yield block

        write_npz(path, columns, blocks())

    def read(self, path: Path, storage: Storage) -> Iterator[dict[str, Any]]:
        try:
            with np.load(path, allow_pickle=False) as found:
                arrays = {name: found[name] for name in found.files}
            seed = int(arrays["seed"][0])
            labels = {m: arrays[name].tolist() for m, name in zip(MECHANISMS, LABEL_COLUMNS, strict=True)}
            for k, index in enumerate(arrays["indices"].tolist()):
                row: dict[str, Any] = {"index": index, "seed": seed, "picture": arrays["images"][k]}
                for mechanism in MECHANISMS:
                    row[mechanism] = labels[mechanism][k]
                    row[f"{mechanism}_name"] = str(arrays[f"classes_{mechanism}"][row[mechanism]])
                if "place" in arrays:
                    row |= place_row(arrays["place"][k].tolist())
                if storage.masks:
                    row["mask"] = arrays["masks"][k]
                yield row
        except (OSError, EOFError, KeyError, IndexError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(f"not a NumPy shard ({error})") from error
