"""The whole objective of Eq. 4: which losses see which pictures, one term after the other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..features.maps import FeatureMaps, depth_of
from . import losses
from .config import Config
from .patch_grid import patch_grid

TERMS = ("l1", "perceptual", "binary", "mask", "texture", "background")


def autocast(config: Config, device: torch.device) -> AbstractContextManager[None]:
    """The precision in which networks compute; losses are outside of it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=config.train.precision == "bf16")


def full(x: Tensor) -> Tensor:
    """Half precision as float32; others as they are."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


class Pictures(NamedTuple):
    """What the losses see of n samples; all but the target may need gradients."""

    target: Tensor  # (n, 3, h, w): the cGAN's
    composite: Tensor  # (n, 3, h, w), refined if there is a refinement network
    mask: Tensor  # (n, 1, h, w), strictly within (0, 1)
    foreground: Tensor  # (n, 3, h, w)
    background: Tensor  # (n, 3, h, w)


class Objective:
    """The losses with the networks that judge.

    Args:
      features: for the style losses, of the depth that their weights need; None where both are off.
      saliency: the head that finds objects, (n, 3, h, w) in [-1, 1] -> (n, 1, h, w) in [0, 1].
    """

    def __init__(self, config: Config, features: FeatureMaps | None, saliency: nn.Module) -> None:
        self.config = config
        self.features = features
        self.saliency = saliency

    @property
    def names(self) -> list[str]:
        """The terms that are on."""
        weights = self.config.loss
        return [
            name for name in TERMS if getattr(weights, name) or (name == "background" and weights.residue)
        ]

    def terms(self, pictures: Pictures, seed: int, indices: np.ndarray) -> Iterator[tuple[str, Tensor]]:
        """Name and weighted loss (n,) of each term that is on.

        Each has a graph of its own, made when it is asked for: who goes back through it before the next one holds one
        judge's activations at a time.

        Args:
          seed, indices: of the samples; they pick the windows of the patch grids.
        """
        weights = self.config.loss
        if weights.l1:
            yield "l1", weights.l1 * losses.l1(pictures.composite, pictures.target)
        if weights.binary:
            yield "binary", weights.binary * losses.binary(pictures.mask)
        if weights.mask:
            yield "mask", weights.mask * losses.interval(pictures.mask, weights.tau)
        if weights.perceptual:
            layers = self.config.perceptual.reconstruction
            yield "perceptual", weights.perceptual * self._style(pictures.composite, pictures.target, layers)
        if weights.texture:
            patches = self.config.patches
            source = pictures.composite if patches.source == "composite" else pictures.target
            grid = patch_grid(pictures.mask, source, patches, seed, indices)
            layers = self.config.perceptual.texture
            yield "texture", weights.texture * self._style(pictures.foreground, grid, layers)
        if weights.background or weights.residue:
            with self._autocast(pictures.background):
                found = full(self.saliency(pictures.background))
            loss = weights.background * losses.saliency(found)
            if weights.residue:  # of the same pass, so in the same term
                loss = loss + weights.residue * losses.residue(found, pictures.mask)
            yield "background", loss

    def _style(self, picture: Tensor, target: Tensor, weights: tuple[float, ...]) -> Tensor:
        if self.features is None:
            raise ValueError("train: feature network is missing, expected one for the style losses.")
        depth = depth_of(weights)
        with self._autocast(picture):
            with torch.no_grad():
                wanted = [full(each) for each in self.features(target, depth)]
            ours = [full(each) for each in self.features(picture, depth)]
        return losses.style(ours, wanted, weights, self.config.perceptual)

    def _autocast(self, picture: Tensor) -> AbstractContextManager[None]:
        return autocast(self.config, picture.device)
