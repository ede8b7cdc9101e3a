"""A classifier that no training used, asked about pictures of some classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..features.efficientnet_lite import CLASSES, POOLED, EfficientNetLite
from ..features.probe import LinearProbe
from ..imagenet.classes import class_names

_BATCH = 50
_PROBE_STEPS, _PROBE_RATE = 1000, 1e-3


class Judge:
    """An EfficientNet-Lite, and how it tells the classes apart.

    Args:
      classifier: looks at pictures at the size that it was trained on.
      head: pooled features (n, 1280) -> logits (n, classes); None: ImageNet's 1,000 classes.
      label: what the head is, for logs.
    """

    def __init__(
        self, classifier: EfficientNetLite, head: nn.Module | None = None, label: str = "ImageNet's classes"
    ) -> None:
        self.classifier = classifier
        self.head = classifier.classify if head is None else head
        self.label = label

    @classmethod
    def of_indices(cls, classifier: EfficientNetLite, indices: Sequence[int]) -> Judge:
        """Of the classifier's own 1,000 classes these alone, in this order.

        Raises:
          ValueError: an index is outside 0..999, or comes twice.
        """
        for index in indices:
            if not 0 <= index < CLASSES or list(indices).count(index) > 1:
                given = ", ".join(map(str, indices))
                raise ValueError(
                    f"judge: classes are {given}, expected different indices in 0..{CLASSES - 1}."
                )
        named = ", ".join(class_names()[index] for index in indices)
        return cls(classifier, _Rows(classifier, indices), f"ImageNet's {named}")

    @classmethod
    def of_names(cls, classifier: EfficientNetLite, names: Sequence[str]) -> Judge:
        """Of the classes with these names, where ImageNet has each of them, else of its 1,000."""
        indices = indices_of(names)
        return cls(classifier) if indices is None else cls.of_indices(classifier, indices)

    @classmethod
    def of_photos(cls, classifier: EfficientNetLite, images: Tensor, labels: Tensor, classes: int) -> Judge:
        """Classes that the classifier does not know: a linear probe is trained on real photos.

        Args:
          images: (n, 3, h, w) uint8.
          labels: (n,) int64.
        """
        seen = torch.cat([_pooled(classifier, part) for part in torch.split(images, _BATCH)])
        probe = LinearProbe(POOLED, classes).to(seen.device)
        generator = torch.Generator().manual_seed(0)
        probe.fit(seen, labels.to(seen.device), steps=_PROBE_STEPS, lr=_PROBE_RATE, generator=generator)
        return cls(classifier, probe, f"a linear probe of {len(images):,} photos")

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """Pictures (n, 3, h, w), uint8 or floats in [-1, 1] -> (n, classes) float64 on the CPU."""
        logits = [self.head(_pooled(self.classifier, part)) for part in torch.split(images, _BATCH)]
        return torch.cat(logits).double().softmax(1).cpu()


def indices_of(names: Sequence[str]) -> list[int] | None:
    """ImageNet's indices of classes with these names, where it has a class of each; "gas_pump" is its "gas pump"."""
    known = {_plain(name): index for index, name in enumerate(class_names())}
    found = [known.get(_plain(name)) for name in names]
    whole = [index for index in found if index is not None]
    return whole if len(whole) == len(names) else None


def parse_classes(text: str, classes: int) -> list[int]:
    """ImageNet's classes from a list like "0,217" or "tench,English springer".

    Raises:
      ValueError: ImageNet has no class of a name, or the number of names is not `classes`.
    """
    entries = [entry.strip() for entry in text.split(",")]
    found = []
    for entry in entries:
        named = [int(entry)] if entry.isdecimal() and len(entry) < 6 else indices_of([entry])
        if named is None:
            raise ValueError(
                f"judge: class is '{entry}', expected an index or a name of ImageNet's 1,000 classes."
            )
        found += named
    if len(found) != classes:
        raise ValueError(f"judge: {len(found)} classes are given, expected {classes}, one for each class.")
    return found


def accuracy(probabilities: Tensor, labels: Tensor) -> float:
    """The share of pictures whose likeliest class is the one that they should show."""
    return float((probabilities.argmax(1) == labels).double().mean())


def inception_score(probabilities: Tensor) -> float:
    """The exponential of the mean divergence of p(y | x) from p(y) (Salimans et al., 2016), of all samples at once.

    Args:
      probabilities: (n, classes), rows that sum to 1.
    """
    p = probabilities.double()
    terms = torch.special.xlogy(p, p) - torch.special.xlogy(p, p.mean(0))
    return float(terms.sum(1).mean().exp())


class _Rows(nn.Module):
    """Some of a classifier's logits."""

    def __init__(self, classifier: EfficientNetLite, indices: Sequence[int]) -> None:
        super().__init__()
        self.classifier, self.indices = classifier, list(indices)

    def forward(self, pooled: Tensor) -> Tensor:
        return self.classifier.classify(pooled)[:, self.indices]


@torch.no_grad()
def _pooled(classifier: EfficientNetLite, images: Tensor) -> Tensor:
    images = images.to(next(classifier.parameters()).device)
    x = images.float() / 127.5 - 1 if images.dtype == torch.uint8 else images
    side = classifier.size.resolution
    x = F.interpolate(x, size=(side, side), mode="bicubic", align_corners=False, antialias=True).clamp(-1, 1)
    *_, last = classifier(x, classifier.MAPS)
    return classifier.pool(last)


def _plain(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())
