"""How weights start."""

from __future__ import annotations

from typing import Literal

from torch import nn


def initialise(module: nn.Module, kind: Literal["orthogonal", "normal"], gain: float) -> None:
    """Set the weights of every linear, convolution and batch norm layer in place; biases become 0.

    Args:
      kind: "orthogonal" with `gain`, or "normal" with standard deviation `gain`. Batch norm scales are
        drawn from N(1, gain) either way. Embeddings keep torch's N(0, 1).
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            if kind == "orthogonal":
                nn.init.orthogonal_(layer.weight, gain=gain)
            else:
                nn.init.normal_(layer.weight, std=gain)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, mean=1.0, std=gain)
            nn.init.zeros_(layer.bias)
