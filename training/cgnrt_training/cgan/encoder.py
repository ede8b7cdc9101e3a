"""An encoder: from a photo to the noise of which the generator draws it again (VAE-GAN, Larsen et al., 2016).

Adversarial loss and classifier alone let a generator ignore its noise: one picture a class satisfies both. Here a part
of each batch is drawn from the codes of its photos and must look like these, so that noise comes to mean what differs
between the photos of a class. What goes into the encoder is computed once, before training: the frozen network's maps.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..runs.loop import progress_bar
from .batches import Batches
from .features import FrozenFeatures

_PLACES = 3  # each way, to which the maps are pooled
_THUMBNAIL = 8  # pixels
_BATCH = 100
_SLOPE = 0.2
_LOG_STD = (-6.0, 1.0)


class Encoder(nn.Module):
    """Looks (n, `length`) -> mean and log standard deviation of noise, (n, z) each."""

    mean: Tensor
    std: Tensor

    def __init__(self, length: int, width: int, z_dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(length))
        self.register_buffer("std", torch.ones(length))
        self.layers = nn.Sequential(
            nn.Linear(length, width),
            nn.LeakyReLU(_SLOPE),
            nn.Linear(width, width),
            nn.LeakyReLU(_SLOPE),
            nn.Linear(width, 2 * z_dim),
        )

    def forward(self, looks: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = self.layers((looks.float() - self.mean) / self.std).chunk(2, dim=1)
        return mean, log_std.clamp(*_LOG_STD)


class Looks:
    """What the encoder sees of every photo and of its mirror image: pooled maps, and a thumbnail.

    Attributes:
      table: (2, n, length) float16; mirror images second.
    """

    def __init__(self, batches: Batches, features: FrozenFeatures) -> None:
        n = len(batches.photos)
        parts: list[Tensor] = []
        with progress_bar(2 * n, 0, "photos") as progress, torch.no_grad():
            for mirrored in (False, True):
                for rows in torch.split(torch.arange(n), _BATCH):
                    images = batches.read(rows, torch.full((len(rows),), mirrored))
                    parts.append(_look(images, features).half().cpu())
                    progress.update(len(rows))
        self.table = torch.cat(parts).view(2, n, -1)

    def scale(self, encoder: Encoder) -> None:
        """Let the encoder bring each number to mean 0 and deviation 1."""
        for name, sums in zip(("mean", "std"), _statistics(self.table.flatten(0, 1)), strict=True):
            encoder.get_buffer(name).copy_(sums)

    def of(self, rows: Tensor, flips: Tensor) -> Tensor:
        """(n,) int64 and bool -> (n, length)."""
        chosen: Tensor = self.table[flips.long(), rows]
        return chosen

    @staticmethod
    def length(features: FrozenFeatures) -> int:
        """Numbers of a look."""
        return sum(features.network.channels()[1:]) * _PLACES**2 + 3 * _THUMBNAIL**2


def _look(images: Tensor, features: FrozenFeatures) -> Tensor:
    raw = features(images, pooled=False).raw[1:]
    pooled = [F.adaptive_avg_pool2d(x, _PLACES).flatten(1) for x in raw]
    return torch.cat([*pooled, F.adaptive_avg_pool2d(images, _THUMBNAIL).flatten(1)], dim=1)


def _statistics(table: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of columns, part by part: the whole in single precision may be large."""
    parts = torch.split(table, 1000)
    mean = torch.stack([part.double().sum(0) for part in parts]).sum(0) / len(table)
    square = torch.stack([(part.double() - mean).square().sum(0) for part in parts]).sum(0) / len(table)
    return mean.float(), square.sqrt().float() + 1e-3


def divergence(mean: Tensor, log_std: Tensor) -> Tensor:
    """Of N(mean, std) from N(0, 1), summed over the noise's numbers, in the mean over samples."""
    terms = mean.square() + (2 * log_std).exp() - 1 - 2 * log_std
    return 0.5 * terms.sum(1).mean()


def perceptual_loss(drawn: list[Tensor], photos: list[Tensor]) -> Tensor:
    """Squared distance of maps (n, c, h, w), of unit vectors at each place, in the mean over maps."""
    terms = [
        (F.normalize(a, dim=1) - F.normalize(b, dim=1)).square().sum(1).mean()
        for a, b in zip(drawn, photos, strict=True)
    ]
    return torch.stack(terms).mean()


def thumbnail_loss(drawn: Tensor, photos: Tensor) -> Tensor:
    """Mean absolute difference of pictures (n, 3, h, w) at a quarter of their size."""
    return (F.avg_pool2d(drawn, 4) - F.avg_pool2d(photos, 4)).abs().mean()
