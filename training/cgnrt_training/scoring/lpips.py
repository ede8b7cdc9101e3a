"""LPIPS 0.1 on SqueezeNet 1.1 (Zhang et al., 2018): how different two pictures look."""

from __future__ import annotations

import os

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checkpoints import load_state
from ..features.maps import read_state
from ..features.squeezenet import SqueezeNetFeatures

_ENDS = (2, 5, 8, 10, 11, 12, 13)  # of SqueezeNet's layers, whose outputs are compared
_CHANNELS = (64, 128, 256, 384, 384, 512, 512)
_BATCH = 50


class Lpips(nn.Module):
    """The distance, from two files: SqueezeNet's weights, and those of LPIPS for its maps.

    Args:
      squeezenet: torchvision's state dict.
      linear: `squeeze.pth` of LPIPS 0.1.
    Raises:
      CheckpointError: a file is unreadable or of another model.
    """

    def __init__(self, squeezenet: str | os.PathLike[str], linear: str | os.PathLike[str]) -> None:
        super().__init__()
        self.network = SqueezeNetFeatures.load(squeezenet).float()
        self.weights = nn.Module()
        for k, channels in enumerate(_CHANNELS):
            layers = nn.Sequential(nn.Identity(), nn.Conv2d(channels, 1, 1, bias=False))
            self.weights.add_module(f"lin{k}", nn.ModuleDict({"model": layers}))
        load_state(self.weights, read_state(linear, "LPIPS's weights for SqueezeNet"), os.fspath(linear))
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Pictures (n, 3, h, w), uint8 or floats in [-1, 1], pair by pair -> (n,) on the CPU."""
        parts = zip(torch.split(a, _BATCH), torch.split(b, _BATCH), strict=True)
        return torch.cat([self._distance(self._maps(x), self._maps(y)).cpu() for x, y in parts])

    def _maps(self, images: Tensor) -> list[Tensor]:
        images = images.to(self.network.mean.device)
        x = images.float() / 127.5 - 1 if images.dtype == torch.uint8 else images
        x = ((x + 1) / 2 - self.network.mean) / self.network.std
        maps = []
        for start, end in zip((0, *_ENDS), _ENDS, strict=False):
            x = self.network.features[start:end](x)
            maps.append(x)
        return maps

    def _distance(self, ours: list[Tensor], theirs: list[Tensor]) -> Tensor:
        total = ours[0].new_zeros(len(ours[0]))
        for module, a, b in zip(self.weights.children(), ours, theirs, strict=True):
            difference = (F.normalize(a, dim=1, eps=1e-10) - F.normalize(b, dim=1, eps=1e-10)).square()
            total = total + module["model"](difference).mean((1, 2, 3))  # type: ignore[index]
        return total


def diversity(lpips: Lpips, images: Tensor, labels: Tensor) -> float:
    """Mean distance of each picture to the next one of its class, over classes of at least two.

    Raises:
      ValueError: no class has two pictures.
    """
    first, second = [], []
    for label in range(int(labels.max()) + 1):
        rows = (labels == label).nonzero()[:, 0]
        if len(rows) > 1:
            first.append(rows)
            second.append(rows.roll(1))
    if not first:
        raise ValueError(
            "score: no class has two pictures, expected at least two for LPIPS. Ask for more samples."
        )
    return float(lpips(images[torch.cat(first)], images[torch.cat(second)]).double().mean())
