"""Teach the shape mechanism from the real images themselves, while training alone (not in the paper).

The adversarial loss on composites says that a picture should look real. It does not say that every digit can be
drawn, and where textures are rich it says little about the mask's outline. But each composite comes with its mask, so
a small network can learn to find masks in pictures of the CGN, and it then finds those of real images. It sees 9 x 9
pixels at a time and so knows textures, not digits. What it finds teaches the shapes: an encoder must name a u from
which the mechanism draws this very mask (Kingma & Welling, 2014, with the mechanism as decoder). Only images and labels
of the train domain are used.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..runs.state import Part
from .config import N_CLASSES, Config, OptimizerConfig
from .discriminators import images_with_label

DOUBT = 0.25  # a class whose masks are less sure, on average, teaches nothing else
FOLLOWS = 0.1  # share of a new batch in that average
_LOG_VARIANCE = (-8.0, 4.0)  # exp() of what an untrained encoder says should stay finite


class Teacher(nn.Module):
    """Networks that help to train the generator, with an optimizer of their own.

    They are moved to their device before `optimise` is called.
    """

    _optimizer: torch.optim.Optimizer
    _rate: float

    def optimise(self, parameters: Iterable[nn.Parameter], rate: float, config: OptimizerConfig) -> None:
        """Train these parameters, by Adam with the configured betas."""
        self._rate = rate
        self._optimizer = torch.optim.Adam(parameters, rate, (config.beta1, config.beta2), fused=True)

    def set_learning_rate(self, factor: float) -> None:
        """Set it to the first one times a factor."""
        self._optimizer.param_groups[0]["lr"] = self._rate * factor

    def descend(self, loss: Tensor) -> None:
        """Take one step of gradient descent on a loss."""
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()

    def parts(self) -> dict[str, Part]:
        """Everything that the next step depends on, for `State`."""
        return {"networks": self, "optimizer": self._optimizer}


class Encoder(nn.Module):
    """q(u | x, y) of a mechanism's noise, a diagonal normal distribution.

    Args:
      contrast: also look at the standardised image.
      planes: channels of the images.
    """

    def __init__(
        self,
        n_classes: int = 10,
        noise_size: int = 32,
        width: int = 32,
        resolution: int = 32,
        *,
        contrast: bool = True,
        planes: int = 3,
    ) -> None:
        super().__init__()
        self.contrast = contrast
        self.label_embedding = nn.Embedding(n_classes, 1)
        inputs = planes * (2 if contrast else 1) + 1
        layers: list[nn.Module] = [nn.Conv2d(inputs, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        for c_in, c_out in ((width, 2 * width), (2 * width, 4 * width)):
            layers += [nn.Conv2d(c_in, c_out, 4, 2, 1), nn.BatchNorm2d(c_out), nn.LeakyReLU(0.2)]
        features = 4 * width * (resolution // 8) ** 2
        self.model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(features, 2 * noise_size))

    def forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Images (n, planes, h, w) in [-1, 1], labels (n,) -> mean and log variance, (n, z) each."""
        views = images_with_label(images, labels, self.label_embedding, self.contrast)
        mean, log_variance = self.model(views).chunk(2, dim=1)
        return mean, log_variance.clamp(*_LOG_VARIANCE)


class Segmenter(nn.Module):
    """Where is the object? Three 3x3 convolutions, of which each class scales and shifts the first two's outputs."""

    def __init__(self, n_classes: int = 10, width: int = 16) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            [nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)]
        )
        self.by_class = nn.ModuleList([nn.Embedding(n_classes, 2 * width) for _ in self.convolutions])
        for embedding in self.by_class:
            nn.init.normal_(embedding.weight, std=0.3)  # type: ignore[arg-type]
        self.wide = nn.Conv2d(width, width, 3, padding=2, dilation=2)
        self.out = nn.Conv2d(width, 1, 1)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Images (n, 3, h, w) in [-1, 1], labels (n,) -> (n, 1, h, w) logits of the mask."""
        x = images
        for convolution, embedding in zip(self.convolutions, self.by_class, strict=True):
            scale, shift = embedding(labels)[:, :, None, None].chunk(2, dim=1)
            x = F.leaky_relu(convolution(x) * (1 + scale) + shift, 0.1)
        logits: Tensor = self.out(x + F.leaky_relu(self.wide(x), 0.1))
        return logits


def draw(mean: Tensor, log_variance: Tensor) -> Tensor:
    """One u of each distribution, with gradients to both."""
    return mean + (log_variance / 2).exp() * torch.randn_like(mean)


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """From N(0, 1)^z, in nats, the mean over the batch."""
    return (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean() / 2


class ShapeTeacher(Teacher):
    """Encoder and segmenter, and what they are trained with.

    In each step: `encode` the real images and `find` their masks, draw masks of their u beside the generator's own,
    add `losses` to the generator's, and afterwards `learn`. The encoder is trained with the generator
    (`encoder.parameters()`), the segmenter here.
    """

    def __init__(self, config: Config, device: torch.device | None = None) -> None:
        super().__init__()
        self.weights = config.loss
        self.encoder = Encoder(N_CLASSES, config.model.noise_size)
        self.segmenter = Segmenter(N_CLASSES)
        self.doubt: Tensor
        self.register_buffer("doubt", torch.ones(N_CLASSES))
        self.to(device)
        rate = 4 * config.optimizer.lr_generator  # the segmenter follows a generator that moves
        self.optimise(self.segmenter.parameters(), rate, config.optimizer)

    def encode(self, real: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """(n, z) noise from which the shape mechanism should draw the masks of real images, and its KL in nats."""
        mean, log_variance = self.encoder(real, labels)
        return draw(mean, log_variance), kl_divergence(mean, log_variance)

    @torch.no_grad()
    def find(self, real: Tensor, labels: Tensor) -> Tensor:
        """The masks of real images, (n, 1, h, w) in [0, 1]. What it finds also tells of which classes it is sure."""
        found: Tensor = self.segmenter(real, labels).sigmoid()
        between = (4 * found * (1 - found)).mean((1, 2, 3))  # 0 where all pixels are 0 or 1
        one_hot = F.one_hot(labels, N_CLASSES).to(between.dtype)
        counts = one_hot.sum(0)
        means = torch.where(counts > 0, (between[:, None] * one_hot).sum(0) / counts.clamp(min=1), self.doubt)
        self.doubt.lerp_(means, FOLLOWS)
        return found

    def knows(self, labels: Tensor) -> Tensor:
        """(n,) whether the masks found in images of a class are sure enough to teach anything else by them."""
        return self.doubt[labels] < DOUBT

    def losses(self, masks: Tensor, kl: Tensor, found: Tensor) -> dict[str, Tensor]:
        """The generator's: masks of `encode`'s noise should be those found in the real images."""
        return {
            "reconstruction": self.weights.reconstruction * (masks - found).square().mean(),
            "kl": self.weights.kl * kl,
        }

    def learn(self, fake: Tensor, masks: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """A step of the segmenter, on composites and their masks."""
        loss = F.binary_cross_entropy_with_logits(self.segmenter(fake.detach(), labels), masks.detach())
        self.descend(loss)
        return {"segmenter": loss}
