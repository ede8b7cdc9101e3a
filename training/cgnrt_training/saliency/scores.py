"""How good found masks are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

if TYPE_CHECKING:
    from ..photos.pack import Photos

_BATCH = 64


@dataclass(frozen=True)
class MaskScores:
    """Of some photos.

    Attributes:
      iou: intersection over union of found and given mask, both cut at 0.5; the mean over photos.
      mae: mean absolute difference of the pixels.
    """

    iou: float
    mae: float


def overlap(found: Tensor, given: Tensor) -> Tensor:
    """Intersection over union of masks cut at 0.5; (n, 1, h, w) each -> (n,). 1 where both are empty."""
    a, b = (found >= 0.5).flatten(1), (given >= 0.5).flatten(1)
    union = (a | b).sum(1)
    return torch.where(union > 0, (a & b).sum(1) / union.clamp(min=1), torch.ones(len(a), device=a.device))


@torch.no_grad()
def measure(
    network: nn.Module, photos: Photos, indices: NDArray[np.int64], device: torch.device
) -> MaskScores:
    """Compare what a network finds, in evaluation mode, with the masks of these photos."""
    was_training = network.training
    network.eval()
    ious, errors = [], []
    for start in range(0, len(indices), _BATCH):
        images, masks = read(photos, indices[start : start + _BATCH], device)
        found = network(images)
        ious.append(overlap(found, masks).double().cpu())
        errors.append((found - masks).abs().flatten(1).mean(1).double().cpu())
    network.train(was_training)
    return MaskScores(float(torch.cat(ious).mean()), float(torch.cat(errors).mean()))


def read(photos: Photos, indices: NDArray[np.int64], device: torch.device) -> tuple[Tensor, Tensor]:
    """Images (n, 3, s, s) in [-1, 1] and masks (n, 1, s, s) in [0, 1] of some photos.

    Raises:
      ValueError: they have no masks.
    """
    if photos.masks is None:
        raise ValueError("photos: masks are missing, expected a pack with masks.")
    images = torch.from_numpy(photos.images[indices]).to(device)
    masks = torch.from_numpy(photos.masks[indices]).to(device)
    return images.float() / 127.5 - 1, masks[:, None].float() / 255
