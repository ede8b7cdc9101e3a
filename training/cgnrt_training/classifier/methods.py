"""The losses of Table 2's rows: cross-entropy, IRM, LNTL."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import ClassifierConfig
from .model import Classifier
from .sources import StepBatch

LEVELS = 8  # of each colour channel, which LNTL's predictor tells apart
BLACK = -1 + 1 / 255  # half of one 8-bit level
NO_COLOUR = -100  # what cross_entropy leaves out


class Plain(nn.Module):
    """Cross-entropy, and the interface of the others."""

    def losses(self, model: Classifier, batch: StepBatch, progress: float) -> dict[str, Tensor]:
        """The terms whose sum is minimised.

        Args:
          progress: share of the steps done, in [0, 1).
        """
        return {"classification": F.cross_entropy(model(batch.images), batch.labels)}


class Irm(Plain):
    """Invariant risk minimisation (IRMv1, Arjovsky et al. 2019) with the schedule of App. C.4."""

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self._weight, self._start, self._divide = config.irm_weight, config.irm_start, config.irm_divide

    def losses(self, model: Classifier, batch: StepBatch, progress: float) -> dict[str, Tensor]:
        logits = model(batch.images)
        risk = F.cross_entropy(logits, batch.labels)
        sizes = list(batch.sizes)
        parts = zip(torch.split(logits, sizes), torch.split(batch.labels, sizes), strict=True)
        penalty = torch.stack([irm_penalty(z, y) for z, y in parts]).mean()
        weight = self._weight * max(0.0, progress - self._start) / (1 - self._start)
        scale = 1 / weight if self._divide and weight > 1 else 1.0
        return {"classification": risk * scale, "irm penalty": penalty * (weight * scale)}


def irm_penalty(logits: Tensor, labels: Tensor) -> Tensor:
    """Squared gradient of the mean cross-entropy with respect to a factor w = 1 on the logits.

    d/dw is the mean over images of the sum over classes of (softmax - one-hot) x logits, so one backward pass does.
    """
    error = logits.softmax(dim=1) - F.one_hot(labels, logits.shape[1])
    return (error * logits).sum(dim=1).mean().square()


class Lntl(Plain):
    """Learning not to learn (Kim et al. 2019): a predictor of the image's colours from the features, which
    unlearn what it finds.

    Each channel of the pixels at the features' 8 x 8 places is cut into 8 levels, black apart. The predictor learns
    them by cross-entropy, whose gradient reaches the features reversed; besides, the features make its answers
    uncertain (entropy).
    """

    def __init__(self, config: ClassifierConfig, channels: int) -> None:
        super().__init__()
        self._weight, self._entropy = config.lntl_weight, config.lntl_entropy
        self.predictor = nn.Sequential(
            nn.Conv2d(channels, 32, 1), nn.ReLU(inplace=True), nn.Conv2d(32, 3 * LEVELS, 1)
        ).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def losses(self, model: Classifier, batch: StepBatch, progress: float) -> dict[str, Tensor]:
        features = model.features(batch.images)
        n, _, h, w = features.shape
        # The features, not the predictor, are to be uncertain: it takes no part in this term.
        frozen = {name: value.detach() for name, value in self.predictor.named_parameters()}
        doubt: Tensor = torch.func.functional_call(self.predictor, frozen, (features,))
        log_p = doubt.reshape(n, 3, LEVELS, h, w).log_softmax(dim=2)
        negative_entropy = (log_p.exp() * log_p).sum(dim=2).mean()
        answer = self.predictor(_Reverse.apply(features, self._weight))  # type: ignore[no-untyped-call]
        colours = quantise(batch.images, h)
        return {
            "classification": F.cross_entropy(model.head(features), batch.labels),
            "entropy": self._entropy * negative_entropy,
            "colour prediction": F.cross_entropy(answer.reshape(n, 3, LEVELS, h, w).transpose(1, 2), colours),
        }


def quantise(images: Tensor, size: int) -> Tensor:
    """(n, 3, h, w) in [-1, 1] -> (n, 3, size, size) int64 levels in 0..7 of every n-th pixel, NO_COLOUR where black.

    Black is left out channel by channel, as in the LNTL authors' code: where the digit is on a black background would
    otherwise be unlearnt too.
    """
    step = images.shape[-1] // size
    pixels = images[:, :, step // 2 :: step, step // 2 :: step]
    levels = ((pixels + 1) * (LEVELS / 2)).long().clamp(0, LEVELS - 1)
    return levels.masked_fill(pixels <= BLACK, NO_COLOUR)


class _Reverse(torch.autograd.Function):
    """Identity whose gradient is turned round, times a weight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: float) -> Tensor:
        ctx.weight = weight
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] * -ctx.weight, None


def method_of(config: ClassifierConfig, model: Classifier) -> Plain:
    """The loss of a row."""
    if config.row in ("irm-2", "irm-5"):
        return Irm(config)
    return Lntl(config, 2 * model.width) if config.row == "lntl" else Plain()
