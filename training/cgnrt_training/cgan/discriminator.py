"""What tells photos from generated pictures, for a label: by features of a frozen network, or by pixels.

Labels come in by projection (Miyato & Koyama, 2018), and every layer is under spectral norm.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..imagenet.spectral import SpectralConv2d, SpectralEmbedding

_EPS = 1e-6
_SLOPE = 0.2
_SMALLEST = 4  # pixels of the plain network's last map
_WIDEST = 8  # times its first layer's channels: its last one's


class Discriminator(nn.Module, ABC):
    """The protocol of both kinds."""

    @abstractmethod
    def forward(self, images: Tensor, maps: list[Tensor], labels: Tensor) -> list[Tensor]:
        """Pictures (n, 3, h, w), a frozen network's maps of them, and (n,) int64 -> scores (n, places) of each head."""


class ProjectedDiscriminator(Discriminator):
    """A small network on each of the frozen network's maps (Projected GAN, Sec. 3.2).

    Args:
      channels: of the maps, shallow to deep.
      width: of the heads.
    """

    def __init__(self, channels: list[int], width: int, classes: int) -> None:
        super().__init__()
        last = len(channels) - 1
        self.heads = nn.ModuleList(_Head(c, width, classes, down=last - k) for k, c in enumerate(channels))

    def forward(self, images: Tensor, maps: list[Tensor], labels: Tensor) -> list[Tensor]:
        return [head(x, labels) for head, x in zip(self.heads, maps, strict=True)]


class PlainDiscriminator(Discriminator):
    """A network of its own on the pixels, down to 4 px.

    Args:
      resolution: of the pictures, a power of two times 4.
      width: channels of the first layer.
    """

    def __init__(self, resolution: int, width: int, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [SpectralConv2d(3, width, 3, eps=_EPS), nn.LeakyReLU(_SLOPE)]
        channels = width
        while resolution > _SMALLEST:
            wider = min(2 * channels, _WIDEST * width)
            layers += [SpectralConv2d(channels, wider, 4, 2, eps=_EPS), nn.LeakyReLU(_SLOPE)]
            channels, resolution = wider, resolution // 2
        self.body = nn.Sequential(*layers)
        self.head = _Head(channels, channels, classes, down=0)

    def forward(self, images: Tensor, maps: list[Tensor], labels: Tensor) -> list[Tensor]:
        return [self.head(self.body(images), labels)]


class _Head(nn.Module):
    """Convolutions, and a score at each place: of the map alone, and of how well it fits the label."""

    def __init__(self, c_in: int, width: int, classes: int, *, down: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(down):
            layers += [SpectralConv2d(c_in, width, 4, 2, eps=_EPS), nn.LeakyReLU(_SLOPE)]
            c_in = width
        layers += [SpectralConv2d(c_in, width, 3, eps=_EPS), nn.LeakyReLU(_SLOPE)]
        self.body = nn.Sequential(*layers)
        self.out = SpectralConv2d(width, 1, 1, eps=_EPS)
        self.embedding = SpectralEmbedding(classes, width, eps=_EPS)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        h = self.body(x)
        wanted = self.embedding(labels)[:, :, None, None] * h.shape[1] ** -0.5
        score: Tensor = self.out(h)[:, 0] + (h * wanted).sum(1)
        return score.flatten(1)


def discriminator_loss(real: list[Tensor], fake: list[Tensor]) -> Tensor:
    """The hinge loss, summed over heads."""
    terms = [F.relu(1 - r).mean() + F.relu(1 + f).mean() for r, f in zip(real, fake, strict=True)]
    return torch.stack(terms).sum()


def generator_loss(fake: list[Tensor]) -> Tensor:
    """The hinge loss's other side, summed over heads."""
    return -torch.stack([f.mean() for f in fake]).sum()


def diversity_loss(fake: list[Tensor], real: list[Tensor]) -> Tensor:
    """How far two samples of a class are more alike than two photos of a class, in the mean over maps; 0..1.

    Args:
      fake, real: maps (n, c, h, w) of a batch whose rows 2k and 2k + 1 are of one class.
    """
    terms = [
        F.relu(1 - _apart(f) / _apart(r).mean().clamp_min(1e-6)) for f, r in zip(fake, real, strict=True)
    ]
    return torch.stack(terms).mean()


def _apart(maps: Tensor) -> Tensor:
    """Squared distance of the rows of each pair, of unit vectors at each place; (n / 2,)."""
    unit = F.normalize(maps, dim=1)
    return (unit[0::2] - unit[1::2]).square().sum(1).mean((1, 2))
