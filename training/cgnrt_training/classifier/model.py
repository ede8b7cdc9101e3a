"""The one network of all rows, and its file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .. import checkpoints
from ..mnist.data import N_CLASSES
from ..mnist.discriminators import standardise

FORMAT = "cgnrt-mnist-classifier"
FORMAT_VERSION = 1
FLOOR = 2e-3  # of a channel's deviation: a digit one 8-bit level away from its background counts in full


def _block(inputs: int, outputs: int) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


class TwoViews(nn.Module):
    """(n, 3, h, w) -> (n, 6, h, w): the images, and the images with every channel at mean 0 and deviation 1."""

    def forward(self, images: Tensor) -> Tensor:
        """Channels flatter than `FLOOR` stay flat."""
        return torch.cat([images, standardise(images, FLOOR)], dim=1)


class Classifier(nn.Module):
    """A CNN of the size of the authors' (69,000 parameters), with strides in place of pooling: cheap on a CPU.

    It sees an image twice, as it is and with every channel standardised. Where cues are random, a tenth of
    double-colored MNIST's digits have the colour of their background except for its noise, and no row could read them
    otherwise. The first view keeps the colours, so that a classifier may still lean on them.

    `features` ends at 8 x 8, where LNTL's predictor listens; `head` is the rest.
    """

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.width = width
        self.features = nn.Sequential(TwoViews(), *_block(6, width), *_block(width, 2 * width))
        self.head = nn.Sequential(
            *_block(2 * width, 4 * width), nn.Flatten(), nn.Linear(4 * width * 16, N_CLASSES)
        )
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Tensor) -> Tensor:
        """(n, 3, 32, 32) float32 in [-1, 1] -> (n, 10) logits."""
        logits: Tensor = self.head(self.features(images))
        return logits

    @torch.no_grad()
    def logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """The same from and to NumPy, as `cgnrt.audit` asks for; in the mode that the module is in."""
        found: NDArray[np.float32] = self(torch.from_numpy(np.ascontiguousarray(images))).numpy()
        return found


def save_classifier(model: Classifier, config: Mapping[str, Any], path: Path) -> None:
    """Write weights and settings; `path` is never half-written."""
    checkpoints.save(
        {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "model": model.state_dict(),
            "config": dict(config),
        },
        path,
    )


def load_classifier(path: str | os.PathLike[str]) -> Classifier:
    """A trained classifier, in evaluation mode.

    Raises:
      CheckpointError: the file is missing, damaged, or of another kind or version.
    """
    content = checkpoints.load_own(path, FORMAT, FORMAT_VERSION)
    model = Classifier()
    checkpoints.load_state(model, content.get("model"), str(path))
    return model.eval()
