"""How often a classifier is right, by each of its answers."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..photos.pack import Photos
from .model import SHAPE_TEXTURE, Answers, Ensemble
from .sources import scaled

_BATCH = 128


def answers_of(model: Ensemble) -> dict[str, Answers]:
    """The answers that one can ask for, by name: `mean` as in the paper; with three heads, also as in its code, without
    the background's head, and each head alone."""
    found = {"mean": model.answering()}
    if len(model.names) > 1:
        found["mean-logits"] = model.answering(average="logits")
        found["shape+texture"] = model.answering(*SHAPE_TEXTURE)
        found |= {name: model.answering(name) for name in model.names}
    return found


@torch.no_grad()
def accuracies(
    model: Ensemble, parts: Iterable[tuple[NDArray[np.uint8], NDArray[np.int64]]]
) -> dict[str, float]:
    """The share of pictures whose label each answer names. The model is put back into its mode.

    Args:
      parts: pictures (n, 3, h, w) uint8 and labels (n,).
    """
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    answers = answers_of(model)
    right, total = dict.fromkeys(answers, 0), 0
    for pixels, labels in parts:
        for start in range(0, len(labels), _BATCH):
            chosen = slice(start, start + _BATCH)
            images = scaled(pixels[chosen]).to(device, memory_format=torch.channels_last)
            logits: Tensor = model(images)
            for name, answer in answers.items():
                found = answer.of(logits).argmax(1).cpu().numpy()
                right[name] += int((found == labels[chosen]).sum())
        total += len(labels)
    model.train(was_training)
    return {name: count / max(1, total) for name, count in right.items()}


def photo_accuracies(model: Ensemble, photos: Photos, most: int | None = None) -> dict[str, float]:
    """`accuracies` on at most so many photos, spread over all."""
    n = len(photos) if most is None else min(most, len(photos))
    indices = np.linspace(0, len(photos) - 1, n).round().astype(np.int64)
    parts = (indices[start : start + 1024] for start in range(0, n, 1024))
    labels = np.asarray(photos.labels)
    return accuracies(model, ((photos.images[part], labels[part]) for part in parts))
