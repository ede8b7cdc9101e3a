"""The feature maps of SqueezeNet 1.1 (Iandola et al., 2016), with torchvision's key names."""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from cgnrt.errors import CheckpointError

from ..checkpoints import load_state, load_weights

# The features end after a ReLU or a fire module, before the next pooling.
_ENDS = (2, 5, 8, 13)
_MEAN = (0.485, 0.456, 0.406)  # ImageNet's, on [0, 1]
_STD = (0.229, 0.224, 0.225)


class _Fire(nn.Module):
    def __init__(self, c_in: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(c_in, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze(x).relu()
        return torch.cat([self.expand1x1(x), self.expand3x3(x)], dim=1).relu()


class SqueezeNetFeatures(nn.Module):
    """Up to four feature maps, shallow to deep (64, 128, 256, 512 channels), frozen.

    Args:
      depth: how many of the maps are computed, 0..4.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, depth: int = 4) -> None:
        super().__init__()
        if not 0 <= depth <= len(_ENDS):
            raise ValueError(f"build SqueezeNet: depth is {depth}, expected 0..{len(_ENDS)}.")
        self.depth = depth
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
        self.register_buffer("mean", torch.tensor(_MEAN).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).reshape(1, 3, 1, 1), persistent=False)
        self.eval().requires_grad_(False)

    @classmethod
    def load(cls, path: str | os.PathLike[str], depth: int = 4) -> SqueezeNetFeatures:
        """Load a state dict with torchvision's key names, half or single precision, without its classifier.

        Raises:
          CheckpointError: the file is unreadable or of another model.
        """
        state = load_weights(path)
        if not isinstance(state, Mapping):
            raise CheckpointError(
                f"load '{path}': content is {type(state).__name__}, expected a SqueezeNet 1.1 state dict."
            )
        model = cls(depth)
        load_state(model, {k: v for k, v in state.items() if not str(k).startswith("classifier.")}, str(path))
        return model

    def forward(self, images: Tensor) -> list[Tensor]:
        """images (n, 3, h, w) in [-1, 1] -> `depth` maps of relu'd features, shallow to deep."""
        x = ((images + 1) / 2 - self.mean) / self.std
        maps = []
        start = 0
        for end in _ENDS[: self.depth]:
            x = self.features[start:end](x)
            maps.append(x)
            start = end
        return maps
