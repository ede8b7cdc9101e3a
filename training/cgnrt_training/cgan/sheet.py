"""Sheets of what a cGAN draws, a row for each class: from the same noise at every call, and from codes of photos."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from ..imagenet.biggan import BigGAN
from ..imagenet.classes import names_of
from ..natural.draws import given, held_out
from ..runs.pictures import Sheet

_MOST_ROWS = 20


def shown_classes(classes: int) -> list[int]:
    """All of them; of many, 20 that lie evenly."""
    return [round(k) for k in np.linspace(0, classes - 1, min(classes, _MOST_ROWS)).tolist()]


@torch.no_grad()
def sheet(model: BigGAN, columns: int, *, seed: int, truncation: float) -> Sheet:
    """Draw from noise that was not trained on; on the CPU."""
    size = model.config
    rows = []
    for label in shown_classes(size.num_classes):
        drawn, noise, truncations = given(
            seed,
            held_out(columns),
            np.full(columns, label),
            noise_size=size.z_dim,
            truncation=truncation,
            device=model.embedding_table.device,
        )
        rows.append(_row(model(noise, model.embedding_table[drawn], truncations)))
    return Sheet([_joined(rows)], side=_names(model))


def reconstructions(model: BigGAN, classes: Iterable[tuple[Tensor, Tensor]]) -> Sheet:
    """Each photo with what is drawn from its code beside it, a row for each of `shown_classes`.

    Args:
      classes: photos and pictures (n, 3, h, w) of each class; n may differ.
    """
    pairs = [(photos, drawn) for photos, drawn in classes]
    n = min(len(photos) for photos, _ in pairs)
    columns = [
        _joined([picture[k].float().cpu() for picture in pictures])
        for k in range(n)
        for pictures in zip(*pairs, strict=True)
    ]
    return Sheet(columns, side=_names(model), head=["photo", "drawn"] * n)


def _names(model: BigGAN) -> list[str]:
    names = names_of(model.config)
    return [names[label] for label in shown_classes(model.config.num_classes)]


def _row(pictures: Tensor) -> Tensor:
    return torch.cat(list(pictures.float().cpu()), dim=2)


def _joined(rows: list[Tensor]) -> Tensor:
    return torch.cat(rows, dim=1).clamp(-1, 1) / 2 + 0.5
