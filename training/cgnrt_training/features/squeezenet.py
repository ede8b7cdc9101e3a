"""The feature maps of SqueezeNet 1.1 (Iandola et al., 2016), with torchvision's key names."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .maps import IMAGENET_MEAN, IMAGENET_STD, FeatureMaps, Stage, load_frozen, read_state

_STARTS = (0, 2, 5, 8)  # a stage ends after a ReLU or a fire module, before the next pooling
_ENDS = (2, 5, 8, 13)


class _Fire(nn.Module):
    def __init__(self, c_in: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(c_in, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze(x).relu()
        return torch.cat([self.expand1x1(x), self.expand3x3(x)], dim=1).relu()


class SqueezeNetFeatures(FeatureMaps):
    """Up to four feature maps, shallow to deep (64, 128, 256, 512 channels), frozen."""

    def __init__(self, depth: int = 4, normalise: bool = True) -> None:
        super().__init__(IMAGENET_MEAN, IMAGENET_STD, depth, normalise)
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 3, stride=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            _Fire(64, 16, 64),
            _Fire(128, 16, 64),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            _Fire(128, 32, 128),
            _Fire(256, 32, 128),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            _Fire(256, 48, 192),
            _Fire(384, 48, 192),
            _Fire(384, 64, 256),
            _Fire(512, 64, 256),
        )
        self.label = "SqueezeNet 1.1"
        self.freeze()

    @classmethod
    def load(cls, path: str | os.PathLike[str], depth: int = 4, normalise: bool = True) -> SqueezeNetFeatures:
        """Load a state dict with torchvision's key names, half or single precision, without its classifier.

        Raises:
          CheckpointError: the file is unreadable or of another model.
        """
        return cls.of_state(read_state(path, "a SqueezeNet 1.1 state dict"), str(path), depth, normalise)

    @classmethod
    def of_state(
        cls, state: Mapping[str, Any], subject: str, depth: int = 4, normalise: bool = True
    ) -> SqueezeNetFeatures:
        """As `load`, from what was in the file `subject`."""
        model = cls(depth, normalise)
        load_frozen(model, state, ("classifier.",), subject)
        return model

    def stages(self) -> Sequence[Stage]:
        return [self.features[start:end] for start, end in zip(_STARTS, _ENDS, strict=True)]
