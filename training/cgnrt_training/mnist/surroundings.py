"""Teach the background mechanism from what surrounds the objects, while training alone (not in the paper).

Near its border a picture shows background and nothing else. A discriminator of its own compares the border of real
images with that of generated backgrounds, before anything is composed; so the background mechanism cannot learn the
object's texture, and an inverted mask explains nothing. The paper's background loss serves the same end on ImageNet, by
a saliency detector. Once the masks of a class are found in real images, it sees all that is behind no object.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import N_CLASSES, Config
from .discriminators import DiscStrided
from .losses import adversarial
from .models import CGN
from .teacher import Teacher

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


class BackgroundTeacher(Teacher):
    """The discriminator of surroundings. In each step: add `losses` to the generator's, and afterwards `learn`."""

    def __init__(self, config: Config, device: torch.device | None = None) -> None:
        super().__init__()
        self.weight = config.loss.surroundings
        self.judge = DiscStrided(N_CLASSES, 24, dropout=config.discriminator.dropout, projection=True)
        self.to(device)
        self.optimise(self.judge.parameters(), config.optimizer.lr_discriminator, config.optimizer)

    def losses(self, backgrounds: Tensor, labels: Tensor, seen: Tensor) -> dict[str, Tensor]:
        """The generator's: what is seen of a background should pass for that of a real image.

        Args:
          seen: (n or 1, 1, h, w) of 0 and 1.
        """
        self.judge.requires_grad_(False)
        scores = self.judge(backgrounds * seen, labels)
        self.judge.requires_grad_(True)
        return {"surroundings": self.weight * adversarial(scores, real=True)}

    def learn(
        self, real: tuple[Tensor, Tensor, Tensor], drawn: tuple[Tensor, Tensor, Tensor]
    ) -> dict[str, Tensor]:
        """A step of the discriminator, on real images and backgrounds, each with labels and what is seen of them."""
        images = torch.cat([pictures.detach() * seen for pictures, _, seen in (real, drawn)])
        scores = self.judge(images, torch.cat([real[1], drawn[1]]))
        n = len(real[0])
        losses = {
            "surroundings_real": adversarial(scores[:n], real=True),
            "surroundings_fake": adversarial(scores[n:], real=False),
        }
        self.descend(torch.stack(list(losses.values())).sum() / 2)
        return losses
