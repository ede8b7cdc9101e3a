"""Where images and composites show background, for the background mechanism's own discriminator (`fill_judge.py`).

Near its border a picture shows background and nothing else. Judged by that alone, before anything is composed, the
background mechanism cannot learn the object's texture, and an inverted mask explains nothing. The paper's background
loss serves the same end on ImageNet, by a saliency detector. Once the masks of a class are found in real images, all
that is behind no object is seen.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .models import CGN

OBJECT = 0.3  # a mask above this hides the background
WIDTH = 5  # pixels of a 32 px picture; MNIST's digits keep 4 or more from its border


def surroundings(images: Tensor) -> Tensor:
    """(1, 1, h, w): 1 in the outermost `WIDTH` pixels of images (n, 3, h, w), else 0."""
    seen = torch.ones_like(images[:1, :1])
    seen[:, :, WIDTH:-WIDTH, WIDTH:-WIDTH] = 0
    return seen


def behind(found: Tensor, masks: Tensor) -> Tensor:
    """(n, 1, h, w): 1 where neither the object of a real image is nor that of a composite, with a pixel of room.

    One hole for both, so that its form tells nothing about which of the two backgrounds is real.

    Args:
      found: masks of real images.  masks: of as many composites.
    """
    either = torch.maximum(found, masks.detach())
    return (F.max_pool2d(either, 3, 1, 1) < OBJECT).to(either.dtype)


@torch.no_grad()
def match_borders(cgn: CGN, images: Tensor) -> None:
    """Set the background mechanism's last batch norm so that its colours start as those at the border of real images.

    Batch norm before tanh reaches black only with a scale near 0 and a bias far out, where its gradient vanishes: where
    all backgrounds are alike, as in colored MNIST, single classes would be left at the other end.
    """
    inside = surroundings(images).expand_as(images) > 0
    pixels = images.transpose(0, 1)[inside.transpose(0, 1)].reshape(3, -1).clamp(-0.995, 0.995).atanh()
    deviation, mean = torch.std_mean(pixels, dim=1)
    norm = cast(nn.BatchNorm2d, cgn.f_text2[-2])
    norm.weight.copy_(deviation.clamp(min=0.05))
    norm.bias.copy_(mean)
