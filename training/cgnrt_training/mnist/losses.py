"""The losses of the MNIST CGN (Sec. 3.1, App. C.1)."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..features.squeezenet import SqueezeNetFeatures
from ..losses import entropy_bits, gram, interval_hinge
from .config import LossConfig


def adversarial(scores: Tensor, *, real: bool) -> Tensor:
    """Least squares GAN: scores should be 1 for what counts as real, else 0."""
    return (scores - (1.0 if real else 0.0)).square().mean()


def binary_entropy(mask: Tensor) -> Tensor:
    """Mean entropy of the mask's pixels in bits (Eq. 3, first line); the mask lies strictly within (0, 1)."""
    return entropy_bits(mask).mean()


def mask_interval(mask: Tensor, low: float = 0.1, high: float = 0.9) -> Tensor:
    """How far the mean of each mask lies outside [low, high], on average (Eq. 3, second line).

    The paper's interval [tau, 1 - tau] forbids empty and full masks. A `high` below one half also decides which
    of two flat colours is the object: otherwise an inverted mask with exchanged colours draws the same image.
    """
    return interval_hinge(mask, low, high).mean()


def border(mask: Tensor, width: int = 2) -> Tensor:
    """Mean mask in the outermost `width` pixels: an object lies within the picture, its background around it.

    Where both textures are rich, as in Wildlife MNIST, an inverted mask with exchanged textures draws nearly the
    same images; this decides which of the two is the object.
    """
    sides = (mask[..., :width, :], mask[..., -width:, :], mask[..., :width], mask[..., -width:])
    return torch.stack([side.mean() for side in sides]).mean()


def total_variation(mask: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels, down and across: high where a mask is speckled."""
    return mask.diff(dim=-2).abs().mean() + mask.diff(dim=-1).abs().mean()


def mask_losses(mask: Tensor, weights: LossConfig) -> dict[str, Tensor]:
    """The weighted losses of the masks alone, by name; a weight of 0 leaves one out."""
    losses = {"binary": weights.binary * binary_entropy(mask)}
    if weights.mask:
        losses["mask"] = weights.mask * mask_interval(mask, weights.mask_low, weights.mask_high)
    if weights.border:
        losses["border"] = weights.border * border(mask)
    if weights.smooth:
        losses["smooth"] = weights.smooth * total_variation(mask)
    return losses


class StyleLoss(nn.Module):
    """Perceptual loss: distance of Gram matrices of image features (Johnson et al., 2016).

    The authors take VGG-16; this takes SqueezeNet 1.1, which is a fortieth of the size.

    Args:
      weights_path: a SqueezeNet 1.1 state dict with torchvision's key names.
      weights: of the four feature maps, shallow to deep; 0 leaves one out.
    """

    def __init__(self, weights_path: str | os.PathLike[str], weights: Sequence[float]) -> None:
        super().__init__()
        self.weights = tuple(weights)
        depth = max((k + 1 for k, weight in enumerate(self.weights) if weight), default=0)
        self.features = SqueezeNetFeatures.load(weights_path, depth)

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        """Weighted sum over the feature maps; images and targets (n, 3, h, w) in [-1, 1], paired."""
        with torch.no_grad():
            wanted = self.features(targets)
        loss = images.new_zeros(())
        for weight, a, b in zip(self.weights, self.features(images), wanted, strict=False):
            if weight:
                loss = loss + weight * F.mse_loss(gram(a), gram(b), reduction="sum") / len(images)
        return loss
