"""Frozen networks as feature maps: what the style losses compare."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from cgnrt.errors import CheckpointError

from ..checkpoints import load_state, load_weights

Stage: TypeAlias = Callable[[Tensor], Tensor]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # on [0, 1]


class FeatureMaps(nn.Module, ABC):
    """Up to four feature maps, shallow to deep, of a network that is never trained.

    Args:
      mean, std: of the pictures that it was trained on, on [0, 1].
      depth: how many of the maps are computed, 0..4.
      normalise: scale pictures as it was trained; False feeds them in [-1, 1] as they are.
    """

    MAPS = 4
    label: str  # what the network is, for logs
    mean: Tensor
    std: Tensor

    def __init__(
        self, mean: Sequence[float], std: Sequence[float], depth: int = MAPS, normalise: bool = True
    ) -> None:
        super().__init__()
        if not 0 <= depth <= self.MAPS:
            raise ValueError(f"build {type(self).__name__}: depth is {depth}, expected 0..{self.MAPS}.")
        self.depth = depth
        self.normalise = normalise
        self.register_buffer("mean", torch.tensor(mean).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).reshape(1, 3, 1, 1), persistent=False)

    def freeze(self) -> None:
        """Evaluation mode, and no gradients into the weights."""
        self.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> FeatureMaps:
        """It stays in evaluation mode whatever it is a part of."""
        return super().train(False)

    @abstractmethod
    def stages(self) -> Sequence[Stage]:
        """From the picture to the first map, from there to the second, and so on."""

    def forward(self, images: Tensor, depth: int | None = None) -> list[Tensor]:
        """Images (n, 3, h, w) in [-1, 1] -> the first `depth` maps (n, c, h', w')."""
        x = ((images + 1) / 2 - self.mean) / self.std if self.normalise else images
        maps = []
        for stage in self.stages()[: self.depth if depth is None else depth]:
            x = stage(x)
            maps.append(x)
        return maps


def depth_of(weights: Iterable[float]) -> int:
    """How many maps the weights of all four need."""
    return max((k + 1 for k, weight in enumerate(weights) if weight), default=0)


def read_state(path: Any, wanted: str) -> dict[str, Any]:
    """The state dict in a file.

    Raises:
      CheckpointError: the file is unreadable, or no state dict.
    """
    state = load_weights(path)
    if not isinstance(state, Mapping):
        raise CheckpointError(f"load '{path}': content is {type(state).__name__}, expected {wanted}.")
    return {str(key): value for key, value in state.items()}


def load_frozen(model: FeatureMaps, state: Mapping[str, Any], drop: Sequence[str], subject: str) -> None:
    """Load weights strictly, except for keys that begin with one of `drop`: a classifier's, which features lack.

    Raises:
      CheckpointError: keys or shapes differ; the message names them.
    """
    load_state(
        model, {key: value for key, value in state.items() if not key.startswith(tuple(drop))}, subject
    )
