"""Backbones by name, from scratch or with the weights of a file, and which network a file is of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from cgnrt.errors import CheckpointError

from ..checkpoints import load_state
from ..features import files
from ..features.efficientnet_lite import POOLED, SIZES, EfficientNetLite, size_of
from ..features.maps import read_state
from ..features.resnet import DEPTHS, ResNet

_LITE = "efficientnet_lite"
NAMES = (*(f"{_LITE}{k}" for k in range(len(SIZES))), *DEPTHS)


class LiteBackbone(nn.Module):
    """An EfficientNet-Lite without its classifier, to be trained.

    Attributes:
      features: length of a feature vector.
    """

    features = POOLED

    def __init__(self, network: EfficientNetLite) -> None:
        super().__init__()
        self.network = network.requires_grad_(True)
        network._fc = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """(n, 3, h, w) in [-1, 1] -> (n, features)."""
        *_, last = self.network(images, self.network.MAPS)
        return self.network.pool(last)


def new_backbone(name: str) -> LiteBackbone | ResNet:
    """A backbone with random weights.

    Raises:
      ValueError: no backbone has this name.
    """
    if name in DEPTHS:
        return ResNet(DEPTHS[name])
    if name not in NAMES:
        raise ValueError(f"backbone: name is {name!r}, expected one of {', '.join(NAMES)}.")
    return LiteBackbone(EfficientNetLite(SIZES[int(name.removeprefix(_LITE))]))


def load_backbone(path: Path, name: str | None = None) -> tuple[str, LiteBackbone | ResNet]:
    """A backbone with a file's weights, and its name. A classifier in the file is left out.

    Args:
      name: refuse another network than this; None takes any of `NAMES`.
    Raises:
      CheckpointError: the file is unreadable or of another network, or keys or shapes differ; the message names them.
      ValueError: there is no backbone of this name.
    """
    if name is not None and name not in NAMES:
        new_backbone(name)  # which refuses it
    state = read_state(path, "a state dict of a backbone")
    found = identify(state, str(path))
    if found is None or name not in (None, found):
        what = found or files.described(state)
        raise CheckpointError(
            f"load '{path}': content is {what}, expected weights of {name or ', '.join(NAMES)}. Give another file, "
            "or another --backbone."
        )
    if found in DEPTHS:
        network = ResNet(DEPTHS[found])
        kept = {key: value for key, value in state.items() if not key.startswith("fc.")}
        load_state(network, kept, str(path))
        return found, network
    return found, LiteBackbone(EfficientNetLite.of_state(state, str(path)))


def identify(state: Mapping[str, Any], subject: str) -> str | None:
    """Which backbone a state dict is of, from its keys; None for another network.

    Raises:
      CheckpointError: it is an EfficientNet-Lite of no known size.
    """
    if "_conv_stem.weight" in state:
        return f"{_LITE}{SIZES.index(size_of(state, subject))}"
    if "layer1.0.conv1.weight" not in state:
        return None
    bottleneck = "layer1.0.conv3.weight" in state
    for name, depth in DEPTHS.items():
        blocks = {k: f"layer{k}.{repeats - 1}.conv1.weight" for k, repeats in enumerate(depth.repeats, 1)}
        next_ones = (f"layer{k}.{repeats}.conv1.weight" for k, repeats in enumerate(depth.repeats, 1))
        whole = all(key in state for key in blocks.values()) and not any(key in state for key in next_ones)
        if depth.bottleneck == bottleneck and whole:
            return name
    return None
