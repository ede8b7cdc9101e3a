"""A linear classifier on a frozen network's pooled features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_BATCH = 256


class LinearProbe(nn.Module):
    """Logits of classes; frozen once `fit` has trained it.

    Args:
      features: length of a feature vector.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("std", torch.ones(features))
        self.linear = nn.Linear(features, classes)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.requires_grad_(False)

    def forward(self, features: Tensor) -> Tensor:
        """(n, features) -> (n, classes)."""
        logits: Tensor = self.linear((features - self.mean) / self.std)
        return logits

    @torch.enable_grad()
    def fit(
        self, features: Tensor, labels: Tensor, *, steps: int, lr: float, generator: torch.Generator
    ) -> float:
        """Train on all that is given, by softmax regression with Adam.

        Args:
          features: (n, features); they are scaled to mean 0 and deviation 1, each by itself.
          labels: (n,) int64.
          generator: of the CPU; the order of the samples.
        Returns:
          The share of these very samples that it gets right.
        """
        std, mean = torch.std_mean(features, 0, correction=0)
        self.mean.copy_(mean)
        self.std.copy_(std.clamp_min(1e-6))
        self.linear.requires_grad_(True)
        optimizer = torch.optim.Adam(self.linear.parameters(), lr)
        for _ in range(steps):
            rows = torch.randint(len(features), (_BATCH,), generator=generator).to(features.device)
            loss = F.cross_entropy(self(features[rows]), labels[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        self.linear.requires_grad_(False)
        with torch.no_grad():
            right = self(features).argmax(1) == labels
        return float(right.double().mean())
