"""Changes to photos and their masks: other places, sizes and colours, and the blur and noise of drawn pictures."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .config import AugmentConfig


def augment(
    images: Tensor, masks: Tensor, config: AugmentConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Change each photo in a way of its own, and its mask alike.

    Args:
      images: (n, 3, h, w) in [-1, 1].  masks: (n, 1, h, w) in [0, 1].
      generator: of the CPU; what is drawn from it does not depend on the settings.
    Returns:
      The same shapes and ranges.
    """
    images, masks = _move(images, masks, config, generator)
    images = _recolour(images, config.colour, generator)
    images = _blur(images, config, generator)
    return _add_noise(images, config, generator).clamp(-1, 1), masks


def _move(
    images: Tensor, masks: Tensor, config: AugmentConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    n = len(images)
    mirrored = torch.rand(n, generator=generator) < config.flip
    # The grid says where a pixel comes from, so its factor is one over that of the object's size.
    factor = torch.exp2(_symmetric((n,), config.scale, generator))
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = torch.where(mirrored, -factor, factor)
    theta[:, 1, 1] = factor
    theta[:, :, 2] = _symmetric((n, 2), 2 * config.shift, generator)
    both = torch.cat([images, masks], dim=1)
    grid = F.affine_grid(theta.to(both.device), list(both.shape), align_corners=False)
    moved = F.grid_sample(both, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return moved[:, :3], moved[:, 3:].clamp(0, 1)


def _recolour(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    n = len(images)

    def factors(channels: int) -> Tensor:
        return 1 + _symmetric((n, channels, 1, 1), strength, generator).to(images.device)

    x = (images + 1) / 2
    x = x * factors(1) * (1 + (factors(3) - 1) / 2)
    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * factors(1)
    middle = x.mean((1, 2, 3), keepdim=True)
    x = middle + (x - middle) * factors(1)
    return x.clamp(0, 1) * 2 - 1


def _blur(images: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    n, channels, height, width = images.shape
    chosen = torch.rand(n, generator=generator) < config.blur
    deviations = 0.3 + (config.blur_pixels - 0.3) * torch.rand(n, generator=generator)
    if not (which := chosen.nonzero()[:, 0]).numel() or config.blur_pixels <= 0.3:
        return images
    radius = math.ceil(2 * config.blur_pixels)
    offsets = torch.arange(-radius, radius + 1)
    kernels = torch.exp(-0.5 * (offsets / deviations[which, None]) ** 2)
    kernels = (kernels / kernels.sum(1, keepdim=True)).to(images.device).repeat_interleave(channels, 0)
    groups = len(kernels)
    # Every channel of every photo is a group of one convolution.
    x = images[which].reshape(1, groups, height, width)
    x = F.pad(x, (radius,) * 4, mode="replicate")
    x = F.conv2d(x, kernels[:, None, :, None], groups=groups)
    x = F.conv2d(x, kernels[:, None, None, :], groups=groups)
    blurred = images.clone()
    blurred[which] = x.reshape(-1, channels, height, width)
    return blurred


def _add_noise(images: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    n = len(images)
    chosen = torch.rand(n, generator=generator) < config.noise
    deviations = config.noise_deviation * torch.rand(n, generator=generator) * chosen
    noise = torch.randn(images.shape, generator=generator) * deviations[:, None, None, None]
    return images + noise.to(images.device)


def _symmetric(shape: tuple[int, ...], largest: float, generator: torch.Generator) -> Tensor:
    """Uniform in [-largest, largest)."""
    return (2 * torch.rand(shape, generator=generator) - 1) * largest
