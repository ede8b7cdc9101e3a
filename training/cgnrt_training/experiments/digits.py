"""How good the three mechanisms of an MNIST plan are: seams, coverage, and masks that show their label.

Nothing here is trained on: the masks' judge is a classifier of plain digits, and patches of the textures are compared,
which a CGN never sees.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from cgnrt import Generator

from ..classifier.reader import Reader, read
from ..features.maps import FeatureMaps
from ..mnist.data import N_CLASSES, VariantMnist
from ..mnist.measures import coverage, seam_ratio
from ..runs.loop import progress_bar

PATCHES = 100  # real ones of each class whose nearest are looked for


def evaluate_digits(
    generator: Generator,
    data: VariantMnist,
    reader: Reader,
    features: FeatureMaps | None = None,
    *,
    samples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure the mechanisms of a plan, each by class.

    Args:
      data: of the plan's variant.
      features: what patches are compared by; pixels without.
      samples: drawn of each class, and other real patches that they stand beside.
    Returns:
      `seams` and `coverage`: texture and background -> a number a class (`mnist/measures.py`); `features`: what was
      compared; `masks`: `all` and by class, the share that the reader names by their label.
    Raises:
      ValueError: a mechanism has not ten classes.
    """
    for name, labels in generator.classes.items():
        if len(labels) != N_CLASSES:
            raise ValueError(
                f"evaluate: {name} has {len(labels)} classes, expected {N_CLASSES}, as digits have."
            )
    names = ("texture", "background")
    seams: dict[str, list[float]] = {name: [] for name in names}
    covered: dict[str, list[float]] = {name: [] for name in names}
    shown = []
    with progress_bar(N_CLASSES, 0, "digits") as progress:
        for label in range(N_CLASSES):
            masks, *fills = unrolled(generator, label, samples, seed)
            shown.append(float((read(reader, masks) == label).float().mean()))
            for name, drawn in zip(names, fills, strict=True):
                front = name == "texture"
                real = torch.from_numpy(data.fills(range(PATCHES), label, front=front))
                others = range(len(data), len(data) + samples)
                other = torch.from_numpy(data.fills(others, label, front=front))
                seams[name].append(seam_ratio(drawn))
                covered[name].append(coverage(real, drawn, other, features))
            progress.update()
    return {
        "seams": seams,
        "coverage": covered,
        "features": "pixels" if features is None else features.label,
        "masks": {"all": float(np.mean(shown)), "by_class": shown},
    }


def unrolled(generator: Generator, label: int, samples: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Masks, foregrounds and backgrounds of one class as the mechanisms draw them, before the texture shuffle."""
    batch = generator.sample(samples, seed=seed, do={"shape": label, "texture": label, "background": label})
    still = batch.noise._replace(rolls=np.zeros_like(batch.noise.rolls))
    parts = generator(*batch.labels, noise=still, parts=True)
    pictures = [
        torch.from_numpy(np.array(values)) for values in (parts.mask, parts.foreground, parts.background)
    ]
    return pictures[0], pictures[1], pictures[2]
