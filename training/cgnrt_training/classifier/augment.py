"""The augmentations that a user would try first."""

from __future__ import annotations

import torch
from torch import Tensor


def jitter(images: Tensor, generator: torch.Generator) -> Tensor:
    """Random colours for every image: hue rotated, channels in any order, each with a gain and an offset.

    Args:
      images: (n, 3, h, w) in [-1, 1].
    Returns:
      The same shape, clipped to [-1, 1].
    """
    n, c, h, w = images.shape
    angle = torch.rand(n, generator=generator) * (2 * torch.pi)
    # A rotation about the grey axis: r I + (1 - r) / 3 + s / sqrt(3) times the cross product with (1, 1, 1).
    cosine, sine = angle.cos().reshape(n, 1, 1), angle.sin().reshape(n, 1, 1) / 3**0.5
    cross = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]])
    rotation = cosine * torch.eye(3) + (1 - cosine) / 3 + sine * cross
    order = torch.rand(n, c, generator=generator).argsort(dim=1)
    rotation = rotation.gather(1, order[:, :, None].expand(n, c, c))
    gain = 0.6 + 0.8 * torch.rand(n, c, 1, generator=generator)
    offset = 0.6 * torch.rand(n, c, 1, generator=generator) - 0.3
    changed = (rotation * gain).bmm(images.reshape(n, c, h * w)) + offset
    return changed.clamp(-1, 1).reshape(n, c, h, w)


def blend(images: Tensor, generator: torch.Generator) -> Tensor:
    """Every image over another of the batch as its new background; the label stays the first one's.

    Nobody knows where the object ends without a mask, so the second image shines through everywhere: a share drawn
    from [0, 0.5).
    """
    n = len(images)
    other = images[torch.randperm(n, generator=generator)]
    share = 0.5 * torch.rand(n, 1, 1, 1, generator=generator)
    return images.lerp(other, share)
