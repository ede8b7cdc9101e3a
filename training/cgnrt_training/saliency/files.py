"""`saliency.pt`: a trained saliency head."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from cgnrt.errors import CheckpointError

from ..checkpoints import check_format, has_memory, load_own, load_state
from ..settings import to_dict
from .config import SaliencyConfig
from .model import SaliencyNet

FORMAT = "cgnrt-saliency"
FORMAT_VERSION = 1
LABEL = "saliency head"  # for messages

_MARK = "first.conv.weight"  # a key that tells these weights from a U2-Net's


def about(config: SaliencyConfig, size: int) -> dict[str, Any]:
    """What a checkpoint says of itself, beside step and weights.

    Args:
      size: height and width of the photos that it is trained on.
    """
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "config": to_dict(config),
        "size": size,
    }


def load_saliency(path: str | os.PathLike[str]) -> SaliencyNet:
    """Load `saliency.pt` or `resume.pt` of a run, without batch norms and in evaluation mode.

    Raises:
      CheckpointError: the file is unreadable, damaged, of another kind or a newer version, or its weights do not fit.
    """
    return build_saliency(load_own(path, FORMAT, FORMAT_VERSION), os.fspath(path))


def build_saliency(content: Mapping[str, Any], subject: str) -> SaliencyNet:
    """As `load_saliency`, from what was in the file `subject`."""
    check_format(content, FORMAT, FORMAT_VERSION, subject)
    state = content.get("model")
    network = network_of(state if isinstance(state, Mapping) else {}, "")
    load_state(network, state, subject)
    return network.without_norms()


def is_saliency(content: Any) -> bool:
    """Whether a file's content is a checkpoint of this kind."""
    return isinstance(content, Mapping) and content.get("format") == FORMAT


def has_saliency(state: Mapping[Any, Any], prefix: str) -> bool:
    """Whether a larger network's state has such a network under a prefix."""
    return prefix + _MARK in state


def network_of(state: Mapping[Any, Any], prefix: str) -> SaliencyNet:
    """A new network of the size that tensors under a prefix have, not yet with their values."""
    weight = state.get(prefix + _MARK)
    usable = isinstance(weight, Tensor) and weight.dim() == 4 and has_memory(weight) and len(weight) > 0
    norms = any(isinstance(key, str) and key.startswith(prefix) and ".norm." in key for key in state)
    return SaliencyNet(len(weight) if usable and isinstance(weight, Tensor) else 8, folded=not norms)


def training_size(content: Mapping[str, Any], subject: str) -> int:
    """Height and width of the photos that a checkpoint was trained on.

    Raises:
      CheckpointError: it does not say.
    """
    size = content.get("size")
    if type(size) is not int or not 16 <= size <= 4096:
        raise CheckpointError(f"load '{subject}': size is {size!r:.40}, expected 16..4096. Train again.")
    return size
