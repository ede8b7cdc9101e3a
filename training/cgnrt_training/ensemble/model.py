"""Any network that gives features, with a head for each mechanism, and how the heads' answers become one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from cgnrt.sampling import MECHANISMS

HEADS: tuple[str, ...] = MECHANISMS  # shape, texture, background
ONE_HEAD = ("label",)  # of an ordinary classifier
SHAPE_TEXTURE = (
    "shape",
    "texture",
)  # the heads without the background's, as the authors' code has it for the BG-gap

Average: TypeAlias = Literal["log-probabilities", "logits"]


def mean_log_probabilities(logits: Tensor) -> Tensor:
    """Logits of the heads (n, heads, classes) -> their mean log-probabilities (n, classes), as Sec. 4.3 says."""
    return logits.log_softmax(2).mean(1)


def mean_logits(logits: Tensor) -> Tensor:
    """Logits of the heads (n, heads, classes) -> their mean (n, classes), as App. C.4 and the authors' code have it."""
    return logits.mean(1)


AVERAGES: dict[Average, Callable[[Tensor], Tensor]] = {
    "log-probabilities": mean_log_probabilities,
    "logits": mean_logits,
}


class Ensemble(nn.Module):
    """A classifier with three heads on one backbone (Sec. 4.3, App. C.4), each of which looks at one mechanism alone.

        classifier = Ensemble(my_network, features=512, classes=10)
        losses = ensemble_losses(classifier(photos), labels, classifier(batch.images), batch.labels)
        cgnrt.audit(classifier.answering("shape"), "cgn.plan")

    Args:
      backbone: any module: images (n, 3, h, w) -> features (n, features).
      features: length of a feature vector.
      classes: number of classes.
      heads: their names; one for an ordinary classifier.
      freeze_norm: the backbone's batch norms keep their statistics while it is trained, as in the authors' code.
      input_size: side that images are scaled to before the backbone; 0 leaves them as they are.
    Raises:
      ValueError: a number is not allowed, or heads are missing or have the same name.
    """

    def __init__(
        self,
        backbone: nn.Module,
        features: int,
        classes: int,
        *,
        heads: Sequence[str] = HEADS,
        freeze_norm: bool = True,
        input_size: int = 0,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("features", features, 1),
            ("classes", classes, 2),
            ("input_size", input_size, 0),
        ):
            if value < least:
                raise ValueError(f"build Ensemble: {name} is {value}, expected at least {least}.")
        if not heads or len(set(heads)) < len(heads):
            raise ValueError(
                f"build Ensemble: heads are {', '.join(heads) or 'missing'}, expected different names."
            )
        self.names = tuple(heads)
        self.freeze_norm, self.input_size = freeze_norm, input_size
        self.backbone = backbone
        self.heads = nn.ModuleDict({name: nn.Linear(features, classes) for name in heads})

    def forward(self, images: Tensor) -> Tensor:
        """Images (n, 3, h, w), in the backbone's range -> logits of the heads (n, heads, classes)."""
        if self.input_size and images.shape[-2:] != (self.input_size, self.input_size):
            side = (self.input_size, self.input_size)
            images = F.interpolate(images, size=side, mode="bilinear", align_corners=False, antialias=True)
        features = self.backbone(images)
        return torch.stack([self.heads[name](features) for name in self.names], dim=1)

    def train(self, mode: bool = True) -> Ensemble:
        """As of any module, but frozen batch norms stay in evaluation mode, and no others do."""
        super().train(mode)
        for module in self.backbone.modules():
            if isinstance(module, _BatchNorm):
                module.training = mode and not self.freeze_norm
        return self

    def answering(self, *heads: str, average: Average = "log-probabilities") -> Answers:
        """A classifier whose answer is that of one head, or the mean of several; without names, of all.

        Raises:
          ValueError: there is no such head.
        """
        return Answers(self, heads or self.names, average)


class Answers(nn.Module):
    """Some of an ensemble's heads as one classifier: images -> (n, classes). It shares the ensemble's weights."""

    def __init__(
        self, ensemble: Ensemble, heads: Sequence[str], average: Average = "log-probabilities"
    ) -> None:
        super().__init__()
        for name in heads:
            if name not in ensemble.names:
                raise ValueError(f"ensemble: head is {name!r}, expected one of {', '.join(ensemble.names)}.")
        if average not in AVERAGES:
            raise ValueError(f"ensemble: average is {average!r}, expected one of {', '.join(AVERAGES)}.")
        self.ensemble, self.average = ensemble, average
        self.places = [ensemble.names.index(name) for name in heads]
        self.training = ensemble.training

    def forward(self, images: Tensor) -> Tensor:
        """Images (n, 3, h, w) -> (n, classes)."""
        return self.of(self.ensemble(images))

    def of(self, logits: Tensor) -> Tensor:
        """The answer from logits of all heads (n, heads, classes), where they are known."""
        return AVERAGES[self.average](logits[:, self.places])


def ensemble_losses(
    real: Tensor | None,
    real_labels: Tensor | None,
    counterfactual: Tensor | None = None,
    labels: Sequence[Tensor] | None = None,
    *,
    counts: tuple[int, int] | None = None,
) -> dict[str, Tensor]:
    """The losses of App. C.4, whose sum is minimised.

    Args:
      real: logits of real images (n, heads, classes); None for none.  real_labels: (n,) int64.
      counterfactual: logits of counterfactuals (m, heads, classes); None for none.  labels: of shape, texture and
        background, (m,) int64 each.
      counts: numbers of real images and counterfactuals that the means are taken over; None is n and m. Processes that
        share a batch give the whole batch's, and add up their gradients.
    Returns:
      `real`: cross-entropy of the heads' mean logits. `shape`, `texture`, `background`: of that head on its own label.
    """
    losses = {}
    if real is not None and real_labels is not None:
        n = len(real) if counts is None else counts[0]
        losses["real"] = F.cross_entropy(mean_logits(real), real_labels, reduction="sum") / n
    if counterfactual is not None and labels is not None:
        m = len(counterfactual) if counts is None else counts[1]
        for place, (name, column) in enumerate(zip(HEADS, labels, strict=True)):
            losses[name] = F.cross_entropy(counterfactual[:, place], column, reduction="sum") / m
    return losses
