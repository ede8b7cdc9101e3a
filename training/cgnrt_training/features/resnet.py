"""ResNet-18 and ResNet-50 (He et al., 2016) without their classifier, with torchvision's key names."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .maps import IMAGENET_MEAN, IMAGENET_STD

_CHANNELS = (64, 128, 256, 512)


class Depth(NamedTuple):
    """Of one of the networks."""

    repeats: tuple[int, int, int, int]  # blocks of each layer
    bottleneck: bool

    @property
    def features(self) -> int:
        """Length of a feature vector."""
        return _CHANNELS[-1] * self.expansion

    @property
    def expansion(self) -> int:
        """Channels of a block's output over those of its inside."""
        return 4 if self.bottleneck else 1


DEPTHS = {"resnet18": Depth((2, 2, 2, 2), False), "resnet50": Depth((3, 4, 6, 3), True)}


def _convolution(c_in: int, c_out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False)


class _Block(nn.Module):
    """Two or three convolutions beside a shortcut."""

    def __init__(self, c_in: int, channels: int, stride: int, depth: Depth) -> None:
        super().__init__()
        c_out = channels * depth.expansion
        self.bottleneck = depth.bottleneck
        first, second = (1, 3) if depth.bottleneck else (3, 3)
        # In a bottleneck torchvision strides in the second convolution.
        self.conv1 = _convolution(c_in, channels, first, 1 if depth.bottleneck else stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _convolution(channels, channels, second, stride if depth.bottleneck else 1)
        self.bn2 = nn.BatchNorm2d(channels)
        if depth.bottleneck:
            self.conv3 = _convolution(channels, c_out, 1)
            self.bn3 = nn.BatchNorm2d(c_out)
        self.downsample: nn.Module | None = None
        if stride > 1 or c_in != c_out:
            self.downsample = nn.Sequential(_convolution(c_in, c_out, 1, stride), nn.BatchNorm2d(c_out))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        if self.bottleneck:
            y = self.bn3(self.conv3(y.relu()))
        found: Tensor = (y + (x if self.downsample is None else self.downsample(x))).relu()
        return found


class ResNet(nn.Module):
    """Pictures -> features.

    Attributes:
      features: length of a feature vector.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, depth: Depth) -> None:
        super().__init__()
        self.features = depth.features
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).reshape(1, 3, 1, 1), persistent=False)
        self.conv1 = nn.Conv2d(3, _CHANNELS[0], 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(_CHANNELS[0])
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        c_in = _CHANNELS[0]
        for k, (channels, repeats) in enumerate(zip(_CHANNELS, depth.repeats, strict=True), 1):
            blocks = []
            for place in range(repeats):
                blocks.append(_Block(c_in, channels, 2 if k > 1 and place == 0 else 1, depth))
                c_in = channels * depth.expansion
            self.add_module(f"layer{k}", nn.Sequential(*blocks))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """(n, 3, h, w) in [-1, 1] -> (n, features)."""
        x = ((images + 1) / 2 - self.mean) / self.std
        x = self.maxpool(self.bn1(self.conv1(x)).relu())
        for k in range(1, len(_CHANNELS) + 1):
            x = self.get_submodule(f"layer{k}")(x)
        pooled: Tensor = x.mean((2, 3))
        return pooled
