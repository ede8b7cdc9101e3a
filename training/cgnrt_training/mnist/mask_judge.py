"""Teach the shape mechanism what masks of a label look like, while training alone (not in the paper).

The encoder of `teacher.py` sees to it that masks of real images can be drawn; nothing there says what an unlikely u may
give. A discriminator of masks alone compares those of random u with those found in real images, and a classifier on its
features learns the labels of the latter, which the former should then show. Only images and labels of the train domain
are used.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from .config import N_CLASSES, Config
from .losses import adversarial
from .teacher import Teacher

STEEP = 8.0
NOISE = 0.1  # of the masks that are judged: found ones are never quite as clean as drawn ones


class MaskNet(nn.Module):
    """Masks (n, 1, h, w) in [0, 1], labels (n,) -> scores (n,), by class, and logits (n, classes)."""

    def __init__(self, n_classes: int, width: int, resolution: int = 32, dropout: float = 0.0) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for c_in, c_out in ((1, width), (width, 2 * width), (2 * width, 4 * width)):
            layers += [spectral_norm(nn.Conv2d(c_in, c_out, 4, 2, 1)), nn.LeakyReLU(0.2)]
        self.model = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(dropout))
        features = 4 * width * (resolution // 8) ** 2
        self.scores = nn.Linear(features, n_classes)
        self.labels = nn.Linear(features, n_classes)

    def forward(self, masks: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        # Near 0 or 1, then blurred by a pixel: what is judged is the outline, not how soft it is.
        x = F.avg_pool2d((STEEP * (masks - 0.5)).sigmoid(), 3, 1, 1) * 2 - 1
        features = self.model(x + NOISE * torch.randn_like(x))
        return self.scores(features).gather(1, labels[:, None])[:, 0], self.labels(features)


class MaskTeacher(Teacher):
    """The judge of masks. In each step: add `losses` to the generator's, and afterwards `learn`."""

    def __init__(self, config: Config, device: torch.device | None = None) -> None:
        super().__init__()
        self.weights = config.loss
        self.net = MaskNet(N_CLASSES, 24, dropout=config.discriminator.dropout)
        self.to(device)
        self.optimise(self.net.parameters(), config.optimizer.lr_discriminator, config.optimizer)

    def losses(self, masks: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The generator's: masks of random noise should pass for masks of real images, and show their label."""
        if not len(masks):
            return {}
        self.net.requires_grad_(False)
        scores, logits = self.net(masks, labels)
        self.net.requires_grad_(True)
        return {
            "mask_judge": self.weights.mask_judge * adversarial(scores, real=True),
            "mask_label": self.weights.mask_label * F.cross_entropy(logits, labels),
        }

    def learn(self, found: Tensor, found_labels: Tensor, masks: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """A step of the judge, on masks found in real images and drawn ones."""
        if not (len(found) and len(masks)):
            return {}
        images, both = torch.cat([found, masks.detach()]), torch.cat([found_labels, labels])
        scores, logits = self.net(images, both)
        n = len(found)
        losses = {
            "mask_real": adversarial(scores[:n], real=True),
            "mask_fake": adversarial(scores[n:], real=False),
            "mask_classifier": F.cross_entropy(logits[:n], found_labels),
        }
        self.descend((losses["mask_real"] + losses["mask_fake"]) / 2 + losses["mask_classifier"])
        return losses
