"""The frozen network that the discriminator looks through, and the random mixing of its maps (Projected GAN)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..features.efficientnet_lite import EfficientNetLite
from .config import Config


class Seen(NamedTuple):
    """What the frozen network makes of pictures."""

    maps: list[Tensor]  # four, shallow to deep, mixed
    pooled: Tensor  # (n, 1280)

    def detach(self) -> Seen:
        """The same, cut off from what they were computed of."""
        return Seen([m.detach() for m in self.maps], self.pooled.detach())


class Mixing(nn.Module):
    """Fixed random 1x1 convolutions of each map; then, from deep to shallow, each map gets the deeper ones' sum.

    Args:
      channels: of the four maps.
      mixed: channels that each of them gets.
      scales: mix across scales too.
    """

    def __init__(self, channels: list[int], mixed: int, *, scales: bool) -> None:
        super().__init__()
        self.across_channels = nn.ModuleList(nn.Conv2d(c, mixed, 1, bias=False) for c in channels)
        self.across_scales = nn.ModuleList(
            nn.Conv2d(mixed, mixed, 3, padding=1, bias=False) for _ in channels[1:] if scales
        )
        for weight in self.parameters():
            nn.init.kaiming_normal_(weight, nonlinearity="linear")
        self.requires_grad_(False)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Four maps, shallow to deep -> the same number, of the same sizes."""
        mixed = [conv(x) for conv, x in zip(self.across_channels, maps, strict=True)]
        if not self.across_scales:
            return mixed
        deeper = mixed[-1]
        out = [deeper]
        for conv, x in zip(reversed(self.across_scales), reversed(mixed[:-1]), strict=True):
            up = F.interpolate(deeper, size=x.shape[2:], mode="bilinear", align_corners=False)
            deeper = conv((x + up) * 0.5**0.5)
            out.append(deeper)
        return out[::-1]


class FrozenFeatures(nn.Module):
    """A pre-trained network at one size of picture, and the mixing; nothing in it is trained.

    Args:
      network: becomes this one's: its batch norms are folded.
    """

    def __init__(self, network: EfficientNetLite, config: Config) -> None:
        super().__init__()
        self.size, self.bf16 = config.features.size, config.features.precision == "bf16"
        self.network = network.fold()
        self.network.depth = network.MAPS
        self.channels = network.channels()
        self.mixing: Mixing | None = None
        kind = config.discriminator
        if kind.mixing != "none":
            self.mixing = Mixing(self.channels, kind.channels, scales=kind.mixing == "scales")
            self.channels = [kind.channels] * len(self.channels)
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> Seen:
        """(n, 3, h, w), about in [-1, 1]."""
        if images.shape[2:] != (self.size, self.size):
            images = F.interpolate(images, (self.size, self.size), mode="bicubic", align_corners=False)
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bf16):
            maps = self.network(images)
            pooled = self.network.pool(maps[-1])
        maps = [m.float() for m in maps]
        return Seen(maps if self.mixing is None else self.mixing(maps), pooled.float())
