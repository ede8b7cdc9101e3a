"""The ImageNet CGN (Sec. 3.1, Fig. 2) and its mechanisms as modules of their own.

Attribute names follow the authors' code, so that their `cgn.pth` loads.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from ..saliency.model import SaliencyNet
from .biggan import BigGAN
from .u2net import U2Net

MASK_RANGE = (1e-4, 0.9999)  # the binary entropy of the mask loss needs masks away from 0 and 1
Head: TypeAlias = "U2Net | SaliencyNet"  # finds objects: (n, 3, h, w) in [-1, 1] -> (n, 1, h, w) in [0, 1]
# Of the noise, as published plans have it. Below the first row of statistics there is nothing trained.
TRUNCATION = {"minimum": 0.02, "maximum": 1.0, "default": 0.5}


class Parts(NamedTuple):
    """What the mechanisms draw, before the composer."""

    mask: Tensor  # (n, 1, h, w) in MASK_RANGE
    pre_mask: Tensor  # (n, 3, h, w) in [-1, 1]: the shape mechanism's picture before the head
    foreground: Tensor  # (n, 3, h, w) in [-1, 1]
    background: Tensor  # likewise


def compose(parts: Parts) -> Tensor:
    """Blend foreground over background through the mask: the fixed composer C of Eq. 2; (n, 3, h, w)."""
    return parts.mask * parts.foreground + (1 - parts.mask) * parts.background


class ShapeMechanism(nn.Module):
    """f_shape: BigGAN draws a pre-mask, the head makes it a mask."""

    def __init__(self, biggan: BigGAN, u2net: Head) -> None:
        super().__init__()
        self.generator = biggan.generator
        self.u2net = u2net

    def forward(self, noise: Tensor, class_embedding: Tensor, truncation: Tensor) -> tuple[Tensor, Tensor]:
        """Draw masks: arguments as `BigGAN.forward`; returns (mask, pre-mask) as in `Parts`."""
        pre_mask = self.generator(torch.cat([noise, class_embedding], dim=1), truncation)
        return self.u2net(pre_mask).clamp(*MASK_RANGE), pre_mask


class PictureMechanism(nn.Module):
    """f_text or f_bg: BigGAN alone."""

    def __init__(self, biggan: BigGAN) -> None:
        super().__init__()
        self.generator = biggan.generator

    def forward(self, noise: Tensor, class_embedding: Tensor, truncation: Tensor) -> Tensor:
        """Draw pictures: arguments and result as `BigGAN.forward`."""
        picture: Tensor = self.generator(torch.cat([noise, class_embedding], dim=1), truncation)
        return picture


class CGN(nn.Module):
    """Three BigGANs and a network that finds objects.

    Args:
      f_shape, f_text, f_bg: one resolution for all.
      u2net: the shape mechanism's head, as the authors call it; another network of `Head` will do. In training it also
        judges how salient the background is. Never trained.
      biggan_GT: the unconstrained BigGAN that training reconstructs; None for inference, which needs none.
    """

    def __init__(
        self,
        f_shape: BigGAN,
        f_text: BigGAN,
        f_bg: BigGAN,
        u2net: Head,
        biggan_GT: BigGAN | None = None,  # noqa: N803 - the authors' name
    ) -> None:
        super().__init__()
        sizes = {model.config.resolution for model in (f_shape, f_text, f_bg)}
        if len(sizes) > 1:
            raise ValueError(
                f"build CGN: resolutions are {', '.join(map(str, sorted(sizes)))}, expected one for all."
            )
        self.biggan_GT = biggan_GT
        self.f_shape = f_shape
        self.f_text = f_text
        self.f_bg = f_bg
        self.u2net = u2net
        self.train(self.training)

    @property
    def resolution(self) -> int:
        """Height and width of the pictures."""
        return self.f_shape.config.resolution

    def train(self, mode: bool = True) -> CGN:
        """As of any module, but what is never trained stays in evaluation mode."""
        super().train(mode)
        for fixed in (self.u2net, self.biggan_GT):
            if fixed is not None:
                fixed.eval()
        return self

    def mechanisms(self) -> dict[str, nn.Module]:
        """The mechanisms alone, by the runtime's names; they share this CGN's parameters."""
        return {
            "shape": ShapeMechanism(self.f_shape, self.u2net),
            "texture": PictureMechanism(self.f_text),
            "background": PictureMechanism(self.f_bg),
        }

    def forward(
        self,
        shape: Tensor,
        texture: Tensor,
        background: Tensor,
        *,
        noise: Tensor,
        truncation: Tensor,
    ) -> Parts:
        """Draw n masks, foregrounds and backgrounds.

        Args:
          shape, texture, background: (n,) int64 class labels of each mechanism.
          noise: (n, z) for all mechanisms, as the authors' code has it, or (n, 3, z), one for each, as the paper
            has it: standard normal truncated to [-2, 2], already multiplied by the truncation.
          truncation: (n, 1) in (0, 1].
        """
        each = noise.unbind(1) if noise.dim() == 3 else (noise,) * 3
        pre_mask = self._draw(self.f_shape, each[0], shape, truncation)
        return Parts(
            mask=self.u2net(pre_mask).clamp(*MASK_RANGE),
            pre_mask=pre_mask,
            foreground=self._draw(self.f_text, each[1], texture, truncation),
            background=self._draw(self.f_bg, each[2], background, truncation),
        )

    @staticmethod
    def _draw(biggan: BigGAN, noise: Tensor, labels: Tensor, truncation: Tensor) -> Tensor:
        picture: Tensor = biggan(noise, biggan.embedding_table[labels], truncation)
        return picture
