"""A shallow refinement network after the composer: the remedy that App. F proposes for reduced realism (Fig. 32)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Refiner(nn.Module):
    """Adds what three convolutions see in composite and mask; at the start it changes nothing."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.conv_0 = nn.Conv2d(4, width, 3, padding=1)
        self.conv_1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv_2 = nn.Conv2d(width, 3, 3, padding=1)
        nn.init.zeros_(self.conv_2.weight)
        nn.init.zeros_(self.conv_2.bias)  # type: ignore[arg-type]

    def forward(self, composite: Tensor, mask: Tensor) -> Tensor:
        """(n, 3, h, w) in [-1, 1] and (n, 1, h, w) -> (n, 3, h, w), about in [-1, 1]."""
        x = F.leaky_relu(self.conv_0(torch.cat([composite, mask], dim=1)), 0.2)
        refined: Tensor = composite + self.conv_2(F.leaky_relu(self.conv_1(x), 0.2))
        return refined
