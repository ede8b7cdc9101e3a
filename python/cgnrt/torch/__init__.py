"""Counterfactuals in a torch training loop: data sets, and batches mixed with real images. Needs torch."""

from __future__ import annotations

from cgnrt.torch.dataset import CounterfactualDataset
from cgnrt.torch.mixing import Mix, Mixed, join, mix
from cgnrt.torch.samples import Pairs, PlacedSamples, Samples

__all__ = ["CounterfactualDataset", "Mix", "Mixed", "Pairs", "PlacedSamples", "Samples", "join", "mix"]
