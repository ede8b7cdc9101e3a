"""A sheet of what a cGAN draws: a row for each class, the same noise in each, and at every call."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..imagenet.biggan import BigGAN
from ..natural.draws import given, held_out

_MOST_ROWS = 20


@torch.no_grad()
def sheet(model: BigGAN, columns: int, *, seed: int, truncation: float) -> Tensor:
    """Draw it; of many classes, 20 that lie evenly.

    Returns:
      (3, height, width) in [0, 1], on the CPU.
    """
    size = model.config
    classes = np.unique(
        np.linspace(0, size.num_classes - 1, min(size.num_classes, _MOST_ROWS)).astype(np.int64)
    )
    rows = []
    for label in classes:
        labels = np.full(columns, label)
        drawn, noise, truncations = given(
            seed,
            held_out(columns),
            labels,
            noise_size=size.z_dim,
            truncation=truncation,
            device=model.embedding_table.device,
        )
        pictures = model(noise, model.embedding_table[drawn], truncations)
        rows.append(torch.cat(list(pictures.float().cpu()), dim=2))
    return torch.cat(rows, dim=1).clamp(-1, 1) / 2 + 0.5
