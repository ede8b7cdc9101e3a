"""Counterfactuals in a torch training loop: data sets, and batches mixed with real images. Needs torch."""

from __future__ import annotations

from cgnrt.torch.dataset import CounterfactualDataset, Samples
from cgnrt.torch.mixing import Mix, Mixed, join, mix

__all__ = ["CounterfactualDataset", "Mix", "Mixed", "Samples", "join", "mix"]
