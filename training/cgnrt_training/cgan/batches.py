"""Photos in batches: classes in equal shares, in pairs of one class, half of them mirrored."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..photos.pack import Photos


class Choice(NamedTuple):
    """Which photos, and which of them mirrored; on the CPU."""

    rows: Tensor  # (n,) int64
    flips: Tensor  # (n,) bool
    labels: Tensor  # (n,) int64


class Batches:
    """Draws batches of photos.

    Raises:
      ValueError: a class has fewer than two photos.
    """

    def __init__(self, photos: Photos, device: torch.device) -> None:
        self.photos, self.device = photos, device
        labels = np.asarray(photos.labels)
        self._by_class = torch.from_numpy(np.argsort(labels, kind="stable"))
        self._counts = torch.from_numpy(np.bincount(labels, minlength=len(photos.classes)))
        for name, count in zip(photos.classes, self._counts.tolist(), strict=True):
            if count < 2:
                raise ValueError(
                    f"train cgan: class '{name}' has {count} photos, expected at least 2. Add photos, or leave the "
                    "class out."
                )
        self._starts = self._counts.cumsum(0) - self._counts

    def draw(self, n: int, generator: torch.Generator) -> Choice:
        """A batch: rows 2k and 2k + 1 are two photos of one class, and classes come in turns."""
        classes, pairs = len(self._counts), n // 2
        turns = [torch.randperm(classes, generator=generator) for _ in range(-(-pairs // classes))]
        labels = torch.cat(turns)[:pairs]
        counts = self._counts[labels]
        u = torch.rand(2, pairs, generator=generator, dtype=torch.float64)
        first = (u[0] * counts).long()
        second = (first + 1 + (u[1] * (counts - 1)).long()) % counts
        rows = self._by_class[self._starts[labels] + torch.stack([first, second])].t().flatten()
        flips = torch.rand(n, generator=generator) < 0.5
        return Choice(rows, flips, labels.repeat_interleave(2))

    def spread(self, n: int, generator: torch.Generator) -> Choice:
        """n photos, each as often as any other, or one time more."""
        total = len(self._by_class)
        rows = torch.cat([torch.randperm(total, generator=generator) for _ in range(-(-n // total))])[:n]
        labels = torch.from_numpy(np.asarray(self.photos.labels)[rows.numpy()].astype(np.int64))
        return Choice(rows, torch.rand(n, generator=generator) < 0.5, labels)

    def first(self, label: int, n: int) -> Choice:
        """The first photos of a class, at most n."""
        start, count = int(self._starts[label]), min(n, int(self._counts[label]))
        rows = self._by_class[start : start + count]
        return Choice(rows, torch.zeros(count, dtype=torch.bool), torch.full((count,), label))

    def read(self, rows: Tensor, flips: Tensor) -> Tensor:
        """Photos (n, 3, h, w) float32 in [-1, 1] on the device."""
        pixels = torch.from_numpy(np.ascontiguousarray(self.photos.images[rows.numpy()]))
        images = pixels.to(self.device).float() / 127.5 - 1
        return torch.where(flips.to(self.device)[:, None, None, None], images.flip(3), images)
