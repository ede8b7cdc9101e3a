"""Teach both texture mechanisms to draw what fills real images, while training alone (not in the paper).

An adversarial loss is content with a picture or two a class. As with shapes (`teacher.py`), an encoder must name a u
for every real image: one from which the foreground mechanism draws the object's texture where the object is, and one
from which the background mechanism draws what is behind, where it is seen. The masks are those found in the images.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .config import N_CLASSES, Config
from .surroundings import OBJECT
from .teacher import Encoder, draw, kl_divergence

MARGIN = 4  # pixels: a picture on a torus cannot be a crop's copy up to its sides


class FillTeacher(nn.Module):
    """Both encoders, which are trained with the generator. In each step: `encode` real images, and add `losses`."""

    def __init__(self, config: Config, device: torch.device | None = None) -> None:
        super().__init__()
        self.weights = config.loss
        # Of the image where it is seen, and of where that is.
        self.encoders = nn.ModuleList(
            Encoder(N_CLASSES, config.model.noise_size, contrast=False, planes=4) for _ in range(2)
        )
        self.to(device)

    def encode(self, real: Tensor, labels: Tensor, found: Tensor) -> tuple[list[Tensor], Tensor]:
        """(n, z) noise for foreground and background, and the KL of both in nats.

        Args:
          found: masks of the real images, (n, 1, h, w).
        """
        noise, kl = [], []
        for encoder, seen in zip(self.encoders, where_seen(found), strict=True):
            mean, log_variance = encoder(torch.cat([real * seen, seen], 1), labels)
            noise.append(draw(mean, log_variance))
            kl.append(kl_divergence(mean, log_variance))
        return noise, torch.stack(kl).sum()

    def losses(
        self, fills: tuple[Tensor, Tensor], kl: Tensor, real: Tensor, found: Tensor, known: Tensor
    ) -> dict[str, Tensor]:
        """The generator's: pictures of `encode`'s noise should be the real images where these show them.

        Args:
          known: (n,) whether an image's mask is to be trusted; others say nothing.
        """
        room = inner_weights(real) * known.to(real.dtype)[:, None, None, None]
        errors = []
        for pictures, seen in zip(fills, where_seen(found), strict=True):
            weight = seen * room
            error = ((pictures - real).abs().mean(1, keepdim=True) * weight).sum((1, 2, 3))
            errors.append((error / (weight.sum((1, 2, 3)) + 1)).mean())
        return {
            "fills": self.weights.fills * torch.stack(errors).sum(),
            "fills_kl": self.weights.fills_kl * kl,
        }


def where_seen(found: Tensor) -> tuple[Tensor, Tensor]:
    """Where masks (n, 1, h, w) say that a foreground is seen, and where a background is: 0 and 1, a pixel apart."""
    near = torch.nn.functional.max_pool2d(found, 3, 1, 1)
    return (found > 1 - OBJECT).to(found.dtype), (near < OBJECT).to(found.dtype)


def inner_weights(images: Tensor) -> Tensor:
    """(1, 1, h, w): 1, and less towards the sides from `MARGIN` pixels on."""
    ramps = []
    for size in images.shape[2:]:
        place = torch.arange(size, device=images.device, dtype=images.dtype)
        ramps.append(((torch.minimum(place, size - 1 - place) + 1) / (MARGIN + 1)).clamp(max=1))
    return torch.minimum(ramps[0][:, None], ramps[1][None, :])[None, None]
