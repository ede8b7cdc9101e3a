"""Sheets of what the mechanisms draw, at one moment and over training (App. E)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..imagenet.biggan import BigGAN
from ..imagenet.cgn import compose
from .draws import given, held_out
from .model import NaturalCGN

_MOMENTS = 8  # of a sheet over training
_GAP = 4  # pixels between its samples


@torch.no_grad()
def sheet(
    cgn: NaturalCGN, teacher: BigGAN, n: int, *, seed: int, truncation: float, device: torch.device
) -> Tensor:
    """A column for each of n samples, the same at every call.

    From top to bottom: the cGAN's picture, pre-mask, mask, foreground, background, composite and, if the CGN has a
    refinement network, the refined composite.

    Returns:
      (3, height, width) in [0, 1], on the CPU.
    """
    labels = np.arange(n) * teacher.config.num_classes // n  # spread evenly, also if there are fewer classes
    size = teacher.config.z_dim
    columns = []
    for k, index in enumerate(held_out(n)):  # one at a time: memory for training alone is enough
        label, noise, truncations = given(
            seed, np.array([index]), labels[k : k + 1], noise_size=size, truncation=truncation, device=device
        )
        parts = cgn(label, label, label, noise=noise, truncation=truncations)
        rows = [
            teacher(noise, teacher.embedding_table[label], truncations),
            parts.pre_mask,
            parts.mask.expand(-1, 3, -1, -1) * 2 - 1,
            parts.foreground,
            parts.background,
            compose(parts),
        ]
        if cgn.refiner is not None:
            rows.append(cgn.composite(parts))
        columns.append(torch.cat([row[0].float().cpu() for row in rows], dim=1))
    return torch.cat(columns, dim=2).clamp(-1, 1) / 2 + 0.5


def over_training(sheets: Sequence[Path], samples: int) -> Tensor:
    """Sheets of one run put together: sample by sample, its column at up to eight moments from left to right.

    Args:
      sheets: PNGs of `sheet`, in order of time.
      samples: how many columns they have.
    Returns:
      (3, height, width) in [0, 1].
    """
    moments = np.unique(np.linspace(0, len(sheets) - 1, min(len(sheets), _MOMENTS)).round().astype(int))
    pictures = [np.asarray(Image.open(sheets[k]).convert("RGB")) for k in moments]
    width = pictures[0].shape[1] // samples
    gap = np.full((pictures[0].shape[0], _GAP, 3), 255, np.uint8)
    strips: list[np.ndarray] = []
    for k in range(samples):
        strips += [picture[:, k * width : (k + 1) * width] for picture in pictures] + [gap]
    joined = np.concatenate(strips[:-1], axis=1)
    return torch.from_numpy(joined.copy()).permute(2, 0, 1).float() / 255
