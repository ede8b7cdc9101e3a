"""DiffAugment (Zhao et al., 2020): differentiable augmentation of what the discriminator sees, real or generated."""

from __future__ import annotations

import torch
from torch import Tensor

from .config import AugmentConfig


def draw_strengths(n: int, generator: torch.Generator) -> Tensor:
    """What `augment` does to n pictures; (8, n) in [0, 1) on the CPU."""
    return torch.rand(8, n, generator=generator)


def augment(images: Tensor, strengths: Tensor, config: AugmentConfig) -> Tensor:
    """Change colours, move, and grey a square of each picture.

    Args:
      images: (n, 3, h, w) in [-1, 1].
      strengths: (8, n) of `draw_strengths`; the same do the same to any pictures.
    Returns:
      (n, 3, h, w), about in [-1, 1].
    """
    _, _, height, width = images.shape
    u = strengths.to(images)
    x = images
    if config.brightness:
        x = x + ((u[0] - 0.5) * config.brightness)[:, None, None, None]
    if config.saturation:
        grey = x.mean(1, keepdim=True)
        x = grey + (x - grey) * _factor(u[1], config.saturation)
    if config.contrast:
        mean = x.mean((1, 2, 3), keepdim=True)
        x = mean + (x - mean) * _factor(u[2], config.contrast)
    if config.translation:
        x = _shift(x, u[3], config.translation, 2)
        x = _shift(x, u[4], config.translation, 3)
    if config.cutout and config.cutout_share:
        square = (
            _window(u[5], height, config.cutout)[:, :, None] & _window(u[6], width, config.cutout)[:, None]
        )
        square &= (u[7] < config.cutout_share)[:, None, None]
        x = x * ~square[:, None]
    return x


def _factor(u: Tensor, strength: float) -> Tensor:
    return (1 + (u - 0.5) * strength)[:, None, None, None]


def _shift(x: Tensor, u: Tensor, share: float, axis: int) -> Tensor:
    """Move each picture along an axis by up to this share of its side; what comes in is reflected."""
    size = x.shape[axis]
    most = int(share * size)
    by = (u * (2 * most + 1)).long().clamp(max=2 * most) - most
    places = (torch.arange(size, device=x.device) + by[:, None]).abs()
    places = (size - 1) - ((size - 1) - places).abs()
    shape = (len(x), 1, size, 1) if axis == 2 else (len(x), 1, 1, size)
    return x.gather(axis, places.view(shape).expand_as(x))


def _window(u: Tensor, size: int, share: float) -> Tensor:
    """Which places of an axis lie in a window around a place that is drawn; (n, size) bool."""
    side = max(1, round(share * size))
    start = (u * size).long() - side // 2
    place = torch.arange(size, device=u.device)
    return (place >= start[:, None]) & (place < start[:, None] + side)
