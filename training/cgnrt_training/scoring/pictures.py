"""The pictures that are scored, and real photos."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..photos.pack import Photos, open_photos, read_about


class Pictures(NamedTuple):
    """On the CPU, classes in turn."""

    images: Tensor  # (n, 3, h, w) uint8
    labels: Tensor  # (n,) int64


def choose(photos: Photos, n: int, *, seed: int = 0) -> Pictures:
    """At most n different photos at random, classes in turn as long as they have some."""
    random = np.random.default_rng(seed)
    by_class = [random.permutation(np.flatnonzero(photos.labels == k)) for k in range(len(photos.classes))]
    most = max(len(rows) for rows in by_class)
    turns = [rows[turn] for turn in range(most) for rows in by_class if turn < len(rows)][:n]
    rows = np.array(turns, dtype=np.int64)
    return Pictures(
        torch.from_numpy(np.ascontiguousarray(photos.images[rows])),
        torch.from_numpy(np.asarray(photos.labels)[rows].astype(np.int64)),
    )


def held_out_photos(pack: Path) -> Photos:
    """The photos of a pack that are not trained on, if it has such, else all."""
    splits = read_about(pack)["splits"]
    return open_photos(pack, "val" if "val" in splits else "train")
