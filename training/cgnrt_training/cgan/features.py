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

    raw: list[Tensor]  # its four maps, shallow to deep
    maps: list[Tensor]  # the same mixed, as the discriminator sees them
    pooled: Tensor  # (n, 1280), or (n, 0) where nobody asked for it


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

    def forward(self, images: Tensor, *, pooled: bool) -> Seen:
        """(n, 3, h, w), about in [-1, 1]; `pooled`: for a classifier, too."""
        side = self.size
        if images.shape[2:] != (side, side):
            smaller = side < images.shape[2]
            images = F.interpolate(
                images, (side, side), mode="bilinear", align_corners=False, antialias=smaller
            )
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bf16):
            raw = self.network(images)
            vector = self.network.pool(raw[-1]) if pooled else images.new_empty(len(images), 0)
        raw = [m.float() for m in raw]
        return Seen(raw, raw if self.mixing is None else self.mixing(raw), vector.float())
