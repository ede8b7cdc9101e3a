"""The discriminators that the MNIST CGN is trained against, all conditioned on the label."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from .models import initialise


def standardise(images: Tensor, floor: float = 0.1) -> Tensor:
    """(n, 3, h, w) with every channel of every image at mean 0 and, above `floor`, deviation 1."""
    deviation, mean = torch.std_mean(images, dim=(2, 3), keepdim=True, correction=0)
    return (images - mean) / (deviation + floor)


class _Head(nn.Module):
    """Features and label -> (n,) scores; with `projection`, each class weighs the features for itself."""

    def __init__(self, n_classes: int, width: int, projection: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 1)
        self.by_class = nn.Embedding(n_classes, width) if projection else None
        if self.by_class is not None:
            nn.init.normal_(self.by_class.weight, std=width**-0.5)

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        scores: Tensor = self.linear(features).squeeze(1)
        if self.by_class is not None:
            scores = scores + (features * self.by_class(labels)).sum(1)
        return scores


class DiscLin(nn.Module):
    """Linear discriminator, conditioned on the label; for flat colours. forward -> (n,) scores.

    Args:
      projection: also judge each class by its own weights (Miyato & Koyama, 2018); the authors only
        concatenate the label to the input, from which shapes learn their label slowly.
      contrast: also look at the standardised image, so that a shape in a colour close to its background's
        is judged as strictly as any other.
    """

    def __init__(
        self,
        n_classes: int = 10,
        width: int = 512,
        resolution: int = 32,
        dropout: float = 0.4,
        projection: bool = False,
        contrast: bool = False,
    ) -> None:
        super().__init__()
        self.contrast = contrast
        self.label_embedding = nn.Embedding(n_classes, n_classes)
        self.model = nn.Sequential(
            nn.Linear((6 if contrast else 3) * resolution * resolution + n_classes, width),
            nn.LeakyReLU(0.2),
            nn.Linear(width, width),
            nn.Dropout(dropout),
            nn.LeakyReLU(0.2),
            nn.Linear(width, width),
            nn.Dropout(dropout),
            nn.LeakyReLU(0.2),
        )
        self.head = _Head(n_classes, width, projection)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        views = [images, standardise(images)] if self.contrast else [images]
        flat = [view.flatten(1) for view in views]
        features = self.model(torch.cat([*flat, self.label_embedding(labels)], dim=1))
        scores: Tensor = self.head(features, labels)
        return scores


class DiscConv(nn.Module):
    """Convolutional discriminator for textures; the label is a fourth channel. forward -> (n,) scores.

    Args:
      projection, contrast: as in `DiscLin`.
    """

    def __init__(
        self, n_classes: int = 10, width: int = 32, projection: bool = False, contrast: bool = False
    ) -> None:
        super().__init__()
        self.contrast = contrast
        self.label_embedding = nn.Embedding(n_classes, 1)

        def block(c_in: int, c_out: int, kernel: int, stride: int) -> list[nn.Module]:
            return [
                nn.Conv2d(c_in, c_out, kernel, stride, bias=False),
                nn.BatchNorm2d(c_out),
                nn.LeakyReLU(0.2),
            ]

        self.model = nn.Sequential(
            *block(7 if contrast else 4, width, 3, 1),
            *block(width, 2 * width, 3, 1),
            *block(2 * width, 4 * width, 4, 2),
            *block(4 * width, 4 * width, 4, 2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        initialise(self, "normal", 0.02)
        self.head = _Head(n_classes, 4 * width, projection)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        views = images_with_label(images, labels, self.label_embedding, self.contrast)
        scores: Tensor = self.head(self.model(views), labels)
        return scores


class DiscStrided(nn.Module):
    """Three strided convolutions with spectral norm (Miyato et al., 2018). forward -> (n,) scores.

    A ninth of the work of `DiscConv`, and its scores depend on where a stroke lies, which the average pooling of
    `DiscConv` forgets.

    Args:
      projection, contrast: as in `DiscLin`.
    """

    def __init__(
        self,
        n_classes: int = 10,
        width: int = 32,
        resolution: int = 32,
        dropout: float = 0.4,
        projection: bool = False,
        contrast: bool = False,
    ) -> None:
        super().__init__()
        self.contrast = contrast
        self.label_embedding = nn.Embedding(n_classes, 1)
        sizes = [7 if contrast else 4, width, 2 * width, 4 * width]
        layers: list[nn.Module] = []
        for c_in, c_out in pairwise(sizes):
            layers += [spectral_norm(nn.Conv2d(c_in, c_out, 4, 2, 1)), nn.LeakyReLU(0.2)]
        self.model = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(dropout))
        self.head = _Head(n_classes, sizes[-1] * (resolution // 8) ** 2, projection)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        views = images_with_label(images, labels, self.label_embedding, self.contrast)
        scores: Tensor = self.head(self.model(views), labels)
        return scores


def images_with_label(images: Tensor, labels: Tensor, embedding: nn.Embedding, contrast: bool) -> Tensor:
    """(n, 4 or 7, h, w): the image, with `contrast` the standardised one too, and a plane of the label's value."""
    n, _, h, w = images.shape
    plane = embedding(labels).reshape(n, 1, 1, 1).expand(n, 1, h, w)
    views = [images, standardise(images)] if contrast else [images]
    return torch.cat([*views, plane], dim=1)
