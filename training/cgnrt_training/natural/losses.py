"""The losses of a natural-image CGN (Sec. 3.1, App. C) as functions of pictures and masks, for each sample.

A gradient summed over samples is then the same whatever micro-batches they came in.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..losses import entropy_bits, gram, interval_hinge
from .config import PerceptualConfig


def l1(picture: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of two pictures (Eq. 4, lambda 1); (n,)."""
    return (picture - target).abs().flatten(1).mean(1)


def style(
    features: Sequence[Tensor], wanted: Sequence[Tensor], weights: Sequence[float], config: PerceptualConfig
) -> Tensor:
    """Distance of the Gram matrices of feature maps (n, c, h, w), weighted by map; (n,).

    Maps may be fewer than weights if the weights beyond are 0.
    """
    total = features[0].new_zeros(len(features[0]))
    for weight, ours, theirs in zip(weights, features, wanted, strict=False):
        if weight:
            difference = (gram(ours) - gram(theirs)).flatten(1)
            if config.distance == "squared":
                total = total + weight * difference.square().sum(1)
            else:
                total = total + weight * difference.abs().mean(1)
    return total


def binary(mask: Tensor) -> Tensor:
    """Mean entropy of a mask's pixels in bits (Eq. 3); the mask lies strictly within (0, 1). (n,)."""
    return entropy_bits(mask).flatten(1).mean(1)


def interval(mask: Tensor, tau: float) -> Tensor:
    """How far the mean of a mask lies outside [tau, 1 - tau] (Eq. 3, App. C.1); (n,)."""
    return interval_hinge(mask, tau, 1 - tau)


def saliency(found: Tensor) -> Tensor:
    """Mean of what a saliency head finds in a background (Sec. 3.1); (n,)."""
    return found.flatten(1).mean(1)


def residue(found: Tensor, mask: Tensor) -> Tensor:
    """The same within the mask, which takes no gradient: what is left of the object behind it (Fig. 31); (n,)."""
    inside = mask.detach().flatten(1)
    return (found.flatten(1) * inside).sum(1) / inside.sum(1).clamp(min=torch.finfo(inside.dtype).tiny)
