"""What a cGAN or a CGN draws, for scores."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from ..checkpoints import load_weights
from ..imagenet.biggan import BigGAN
from ..imagenet.checkpoints import build_biggan, load_biggan
from ..imagenet.classes import names_of
from ..scoring.pictures import Pictures
from .checkpoints import FORMAT, build_natural
from .draws import given, held_out
from .model import NaturalCGN

_BATCH = 32


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
