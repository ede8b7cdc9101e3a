"""Sheets of what the mechanisms draw, at one moment and over training (App. E)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..imagenet.biggan import BigGAN
from ..imagenet.cgn import compose
from ..imagenet.classes import names_of
from ..runs.pictures import Sheet
from .draws import given, held_out
from .model import NaturalCGN

_MOMENTS = 8  # of a sheet over training
_GAP = 4  # pixels between its samples
_ROWS = ("cGAN", "pre-mask", "mask", "foreground", "background", "composite", "refined")


@torch.no_grad()
def sheet(
    cgn: NaturalCGN, teacher: BigGAN, n: int, *, seed: int, truncation: float, device: torch.device
) -> Sheet:
    """A column for each of n samples, the same at every call.

    From top to bottom: the cGAN's picture, pre-mask, mask, foreground, background, composite and, if the CGN has a
    refinement network, the refined composite. All on the CPU.
    """
    labels = _labels(teacher, n)
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
        column = torch.cat([row[0].float().cpu() for row in rows], dim=1)
        columns.append(column.clamp(-1, 1) / 2 + 0.5)
    return Sheet(columns, side=_ROWS[: len(rows)], head=_heads(teacher, labels))


def over_training(sheets: Sequence[Path], teacher: BigGAN, samples: int) -> Sheet:
    """Sheets of one run put together: sample by sample, its column at up to eight moments from left to right.

    Args:
      sheets: PNGs of `sheet`, in order of time.
      samples: how many columns they have.
    """
    size = teacher.config.resolution
    moments = np.unique(np.linspace(0, len(sheets) - 1, min(len(sheets), _MOMENTS)).round().astype(int))
    pictures = [np.asarray(Image.open(sheets[k]).convert("RGB")) for k in moments]
    rows = pictures[0].shape[0] // size  # captions above are lower than a picture
    blocks = []
    for k in range(samples):
        right = (samples - k) * size
        strip = [picture[-rows * size :, -right : size - right or None] for picture in pictures]
        blocks.append(torch.from_numpy(np.concatenate(strip, axis=1)).permute(2, 0, 1).float() / 255)
    return Sheet(blocks, side=_ROWS[:rows], head=_heads(teacher, _labels(teacher, samples)), gap=_GAP)


def _labels(teacher: BigGAN, n: int) -> np.ndarray:
    """The classes of n samples, spread evenly, also if there are fewer classes."""
    return np.arange(n) * teacher.config.num_classes // n


def _heads(teacher: BigGAN, labels: np.ndarray) -> list[str]:
    names = names_of(teacher.config)
    return [names[label] for label in labels.tolist()]
