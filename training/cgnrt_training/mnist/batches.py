"""Batches of real images as a function of the step alone, so that a resumed run sees the same ones."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..runs.order import Order
from .data import VariantMnist


class _TorchOrder(Order):
    """The same with torch's permutations, which the runs of the generators began with."""

    def _order(self, epoch: int) -> NDArray[np.int64]:
        generator = torch.Generator().manual_seed(((self.seed << 20) + epoch) % 2**63)
        return torch.randperm(self.n, generator=generator).numpy()


def check_domain(data: VariantMnist, variant: str) -> None:
    """Raise ValueError where the data are not the train domain of a variant."""
    if data.variant != variant or data.domain != "train":
        raise ValueError(
            f"train: data are {data.variant}/{data.domain}, expected {variant}/train. Load those."
        )


class Batches:
    """Batches of a domain of a variant, with new cues in every epoch (`VariantMnist.batch`)."""

    def __init__(
        self, data: VariantMnist, batch_size: int, seed: int, device: torch.device | None = None
    ) -> None:
        self.data = data
        self.batch_size = batch_size
        self.device = device  # of the batches; None is the CPU
        self._order = _TorchOrder(len(data), seed)

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Images (batch, 3, 32, 32) float32 in [-1, 1] and labels (batch,) int64 of one step, on the device."""
        epochs, indices = self._order(step * self.batch_size, self.batch_size)
        batch = self.data.batch(epochs * len(self.data) + indices)
        return torch.from_numpy(batch.images).to(self.device), torch.from_numpy(batch.labels).to(self.device)
