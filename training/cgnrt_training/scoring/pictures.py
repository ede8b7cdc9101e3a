"""The pictures that are scored: drawn by a cGAN or a CGN, or photos."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..checkpoints import load_weights
from ..imagenet.biggan import BigGAN
from ..imagenet.checkpoints import build_biggan, load_biggan
from ..imagenet.classes import names_of
from ..natural.checkpoints import FORMAT, build_natural
from ..natural.draws import given, held_out
from ..natural.model import NaturalCGN
from ..photos.pack import Photos, open_photos, read_about

_BATCH = 32


class Pictures(NamedTuple):
    """On the CPU, classes in turn."""

    images: Tensor  # (n, 3, h, w) uint8
    labels: Tensor  # (n,) int64


@torch.no_grad()
def draw(model: BigGAN | NaturalCGN, n: int, *, seed: int, truncation: float) -> Pictures:
    """Pictures of noise that was not trained on, each class as often; a CGN's labels are shared by its mechanisms."""
    backbone = model if isinstance(model, BigGAN) else model.f_shape
    size = backbone.config
    labels = np.arange(n, dtype=np.int64) % size.num_classes
    indices = held_out(n)
    images = []
    for start in range(0, n, _BATCH):
        part = slice(start, start + _BATCH)
        label, noise, truncations = given(
            seed,
            indices[part],
            labels[part],
            noise_size=size.z_dim,
            truncation=truncation,
            device=backbone.embedding_table.device,
        )
        if isinstance(model, BigGAN):
            drawn = model(noise, model.embedding_table[label], truncations)
        else:
            drawn = model.composite(model(label, label, label, noise=noise, truncation=truncations))
        images.append(((drawn.clamp(-1, 1) + 1) * 127.5).round().byte().cpu())
    return Pictures(torch.cat(images), torch.from_numpy(labels))


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


def load_model(path: Path) -> BigGAN | NaturalCGN:
    """A cGAN or a CGN from a file of a run, or a BigGAN-deep in any of its forms.

    Raises:
      CheckpointError: it is neither, or damaged.
    """
    if path.is_dir():
        return load_biggan(path)
    content = load_weights(path)
    if isinstance(content, Mapping) and content.get("format") == FORMAT:
        return build_natural(content, str(path)).model
    return build_biggan(content, str(path))


def classes_of(model: BigGAN | NaturalCGN) -> tuple[str, ...]:
    """The names of a model's classes."""
    return names_of((model if isinstance(model, BigGAN) else model.f_shape).config)
