"""Saliency heads with random weights, and files of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from cgnrt_training.checkpoints import save
from cgnrt_training.saliency.config import SaliencyConfig
from cgnrt_training.saliency.files import about
from cgnrt_training.saliency.model import SaliencyNet

SIZE = 32


def head(width: int = 2, *, folded: bool = True, seed: int = 0) -> SaliencyNet:
    """Norms as after training, and masks that have both ends."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SaliencyNet(width)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.7, 1.3)
                nn.init.normal_(module.bias, std=0.2)
        for _ in range(30):  # the statistics of what goes through
            network(torch.rand(8, 3, SIZE, SIZE) * 2 - 1)
        network.eval()
        with torch.no_grad():
            logits = network.logits(torch.rand(8, 3, SIZE, SIZE) * 2 - 1)
            network.last.weight /= logits.std()
            network.last.bias -= logits.mean()
            network.last.bias /= logits.std()
    return network.without_norms() if folded else network


def content(width: int = 2, *, folded: bool = True) -> dict[str, Any]:
    """What a file of `cgnrt-train saliency` holds."""
    return {**about(SaliencyConfig(), SIZE), "step": 1, "model": head(width, folded=folded).state_dict()}


def network_in(file: dict[str, Any]) -> SaliencyNet:
    """The network of such a file, as it was saved."""
    state = file["model"]
    network = SaliencyNet(len(state["first.conv.weight"]), folded="first.conv.bias" in state)
    network.load_state_dict(state)
    return network.eval()


def write(path: Path, width: int = 2) -> Path:
    """Such a file."""
    save(content(width), path)
    return path
