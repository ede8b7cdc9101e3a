"""Pieces of losses that the CGNs share (App. C.1, C.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def entropy_bits(mask: Tensor) -> Tensor:
    """Entropy of each pixel in bits (Eq. 3, first line); the mask lies strictly within (0, 1). Same shape."""
    return -(mask * mask.log2() + (1 - mask) * (1 - mask).log2())


def interval_hinge(mask: Tensor, low: float, high: float) -> Tensor:
    """How far the mean of each mask lies outside [low, high] (Eq. 3, second line); (n,)."""
    mean = mask.flatten(1).mean(1)
    return F.relu(low - mean) + F.relu(mean - high)


def gram(features: Tensor) -> Tensor:
    """Products of all pairs of channels, over c * h * w (Johnson et al., 2016): (n, c, h, w) -> (n, c, c)."""
    flat = features.flatten(2)
    return torch.bmm(flat, flat.transpose(1, 2)) / (flat.shape[1] * flat.shape[2])
