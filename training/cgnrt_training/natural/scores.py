"""What Table 1 measures of a CGN's composites and masks (Sec. 4.2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from ..imagenet.biggan import BigGAN
from ..scoring.judge import Judge, accuracy, inception_score
from .draws import given, held_out
from .losses import binary
from .model import NaturalCGN

Progress = Callable[[int], object]  # is told how many samples are done since the last call


@dataclass(frozen=True)
class Scores:
    """Of n samples.

    Attributes:
      inception_score: of the pictures; None without a judge.
      accuracy: the share of which the judge sees the class that they should show; None where it judges other classes.
      mu_mask, mu_mask_spread: mean mask, and the standard deviation of its means over classes; None of a cGAN.
      entropy: mean binary entropy of the masks in bits; None of a cGAN.
    """

    inception_score: float | None
    mu_mask: float | None = None
    mu_mask_spread: float | None = None
    entropy: float | None = None
    accuracy: float | None = None

    def to_dict(self) -> dict[str, float | None]:
        """For JSON."""
        return {k: None if v is None else round(v, 6) for k, v in asdict(self).items()}


@torch.no_grad()
def measure(
    cgn: NaturalCGN | None,
    teacher: BigGAN,
    judge: Judge | None,
    *,
    samples: int,
    seed: int,
    truncation: float,
    batch: int = 8,
    progress: Progress = lambda done: None,
) -> Scores:
    """Draw composites with shared labels, classes in turn, from noise that was not trained on.

    Args:
      cgn: None measures the cGAN's own pictures, the upper bound.
      samples: how many; the Inception score grows with their number.
    """
    device = teacher.embeddings.weight.device
    classes = teacher.config.num_classes
    labels = np.arange(samples, dtype=np.int64) % classes
    indices = held_out(samples)
    probabilities, means, entropies = [], [], []
    for start in range(0, samples, batch):
        part = slice(start, start + batch)
        label, noise, truncations = given(
            seed,
            indices[part],
            labels[part],
            noise_size=teacher.config.z_dim,
            truncation=truncation,
            device=device,
        )
        if cgn is None:
            pictures = teacher(noise, teacher.embedding_table[label], truncations)
        else:
            parts = cgn(label, label, label, noise=noise, truncation=truncations)
            pictures = cgn.composite(parts)
            means.append(parts.mask.flatten(1).mean(1).double().cpu())
            entropies.append(binary(parts.mask).double().cpu())
        if judge is not None:
            probabilities.append(judge.probabilities(pictures))
        progress(len(label))
    score = right = None
    if probabilities:
        judged = torch.cat(probabilities)
        score = inception_score(judged)
        right = accuracy(judged, torch.from_numpy(labels)) if judged.shape[1] == classes else None
    if not means:
        return Scores(score, accuracy=right)
    found = torch.cat(means)
    by_class = torch.stack([found[labels == k].mean() for k in range(min(classes, samples))])
    spread = by_class.std(correction=0).item()
    return Scores(score, found.mean().item(), spread, torch.cat(entropies).mean().item(), right)


@torch.no_grad()
def masks(cgn: NaturalCGN, n: int, *, seed: int, truncation: float, device: torch.device) -> Tensor:
    """One column of Fig. 33: masks of n samples of different classes, the same noise at every call.

    Returns:
      (3, n * height, width) in [0, 1], on the CPU.
    """
    model = cgn.f_shape.config
    labels = np.linspace(0, model.num_classes - 1, n).astype(np.int64)
    drawn = given(seed, held_out(n), labels, noise_size=model.z_dim, truncation=truncation, device=device)
    column = []
    for k in range(n):
        label, noise, truncations = (tensor[k : k + 1] for tensor in drawn)
        pre_mask = cgn.f_shape(noise, cgn.f_shape.embedding_table[label], truncations)
        column.append(cgn.u2net(pre_mask)[0].expand(3, -1, -1).float().cpu())
    return torch.cat(column, dim=1)
