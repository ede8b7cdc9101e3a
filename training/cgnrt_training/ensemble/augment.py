"""Changes to photos and counterfactuals: mirrored, moved, erased."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .config import AugmentConfig

# Random erasing (Zhong et al., 2020): how many images, which share of their area, and which ratios of the sides.
_ERASED, _AREA, _RATIO = 0.5, (0.02, 0.33), 3.3


def move(
    images: Tensor, rows: slice, count: int, config: AugmentConfig, generator: torch.Generator
) -> Tensor:
    """Mirror and shift each image in a way of its own.

    Args:
      images: (n, 3, h, w), those in the places `rows` of a batch of `count`.
      generator: of the CPU; what is drawn from it depends on `count` alone.
    Returns:
      The same shape.
    """
    h, w = images.shape[2:]
    flips = (torch.rand(count, generator=generator) < config.flip)[rows]
    down, right = (round(config.shift * side) for side in (h, w))
    places = torch.rand(count, 2, generator=generator)[rows]
    top, left = (places * torch.tensor([2 * down + 1, 2 * right + 1])).long().unbind(1)
    if down or right:
        images = F.pad(images, (right, right, down, down), mode="reflect")
    y = top[:, None] + torch.arange(h)
    x = torch.arange(w).expand(len(flips), w)
    x = left[:, None] + torch.where(flips[:, None], w - 1 - x, x)
    n = torch.arange(len(images))[:, None, None, None]
    c = torch.arange(images.shape[1])[None, :, None, None]
    return images[n, c, y[:, None, :, None], x[:, None, None, :]]


def erase(images: Tensor, rows: slice, count: int, generator: torch.Generator) -> Tensor:
    """Fill a random rectangle of half of the images with noise (Zhong et al., 2020); arguments as of `move`."""
    h, w = images.shape[2:]
    drawn = torch.rand(count, 5, generator=generator)[rows].tolist()
    seeds = torch.randint(2**62, (count,), generator=generator)[rows].tolist()
    images = images.clone()
    for image, (chosen, area, ratio, top, left), seed in zip(images, drawn, seeds, strict=True):
        if chosen >= _ERASED:
            continue
        pixels = (_AREA[0] + area * (_AREA[1] - _AREA[0])) * h * w
        stretch = math.exp((2 * ratio - 1) * math.log(_RATIO))
        height, width = min(h, round(math.sqrt(pixels * stretch))), min(w, round(math.sqrt(pixels / stretch)))
        y, x = int(top * (h - height + 1)), int(left * (w - width + 1))
        noise = torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))
        image[:, y : y + height, x : x + width] = noise.to(image) * 2 - 1
    return images
