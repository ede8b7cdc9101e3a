"""Labels and noise of training samples as functions of the sample's index alone.

A sample is the same whichever process draws it, in whatever micro-batch: the stream contract of `cgnrt.sampling` with
one label and one noise vector for all mechanisms (Sec. 3.1).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cgnrt import ops

_LABEL, _NOISE = 0, 3  # slots of the stream: those of the shape's label and noise, which all share
_SHEET = 1 << 62  # indices from here on are not trained on


class Draws(NamedTuple):
    """What samples are drawn from."""

    labels: Tensor  # (n,) int64
    noise: Tensor  # (n, z): standard normal truncated to [-2, 2], times the truncation
    truncation: Tensor  # (n, 1)


def draw(
    seed: int,
    indices: np.ndarray,
    *,
    classes: int,
    noise_size: int,
    truncation: float,
    device: torch.device,
) -> Draws:
    """Draw the samples at `indices` (n,) int64."""
    labels = ops.integers(seed, indices, _LABEL, classes)[:, 0].astype(np.int64)
    return given(seed, indices, labels, noise_size=noise_size, truncation=truncation, device=device)


def given(
    seed: int,
    indices: np.ndarray,
    labels: np.ndarray,
    *,
    noise_size: int,
    truncation: float,
    device: torch.device,
) -> Draws:
    """The same with other labels (n,) int64."""
    noise = torch.from_numpy(ops.truncated_normal(seed, indices, _NOISE, noise_size))
    return Draws(
        torch.from_numpy(labels).to(device),
        (noise * truncation).to(device),
        torch.full((len(indices), 1), truncation, device=device),
    )


def held_out(n: int) -> np.ndarray:
    """Indices of samples that are not trained on, for sheets and scores; (n,) int64."""
    return _SHEET + np.arange(n, dtype=np.int64)
