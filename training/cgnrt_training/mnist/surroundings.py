"""Teach the background mechanism from what surrounds the objects, while training alone (not in the paper).

Near its border a picture shows background and nothing else. A discriminator of its own compares the border of real
images with that of generated backgrounds, before anything is composed; so the background mechanism cannot learn the
object's texture, and an inverted mask explains nothing. The paper's background loss serves the same end on ImageNet, by
a saliency detector.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from .config import N_CLASSES, Config
from .discriminators import DiscStrided
from .losses import adversarial
from .models import CGN
from .teacher import Teacher

WIDTH = 5  # pixels of a 32 px picture; MNIST's digits keep 4 or more from its border


def surroundings(images: Tensor) -> Tensor:
    """The images (n, 3, h, w) with all but the outermost `WIDTH` pixels set to 0."""
    kept = torch.ones_like(images[:1, :1])
    kept[:, :, WIDTH:-WIDTH, WIDTH:-WIDTH] = 0
    return images * kept


@torch.no_grad()
def match_borders(cgn: CGN, images: Tensor) -> None:
    """Set the background mechanism's last batch norm so that its colours start as those at the border of real images.

    Batch norm before tanh reaches black only with a scale near 0 and a bias far out, where its gradient vanishes: where
    all backgrounds are alike, as in colored MNIST, single classes would be left at the other end.
    """
    inside = surroundings(torch.ones_like(images)) > 0
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

    def losses(self, backgrounds: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The generator's: the border of a background should pass for that of a real image."""
        self.judge.requires_grad_(False)
        scores = self.judge(surroundings(backgrounds), labels)
        self.judge.requires_grad_(True)
        return {"surroundings": self.weight * adversarial(scores, real=True)}

    def learn(
        self, real: Tensor, real_labels: Tensor, backgrounds: Tensor, labels: Tensor
    ) -> dict[str, Tensor]:
        """A step of the discriminator."""
        images = surroundings(torch.cat([real, backgrounds.detach()]))
        scores = self.judge(images, torch.cat([real_labels, labels]))
        losses = {
            "surroundings_real": adversarial(scores[: len(real)], real=True),
            "surroundings_fake": adversarial(scores[len(real) :], real=False),
        }
        self.descend(torch.stack(list(losses.values())).sum() / 2)
        return losses
