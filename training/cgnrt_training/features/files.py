"""A feature network or a classifier from a file; what it is, is told from its keys."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal

from cgnrt.errors import CheckpointError

from .efficientnet_lite import EfficientNetLite
from .maps import FeatureMaps, read_state
from .squeezenet import SqueezeNetFeatures
from .vgg16 import Taps, VGG16Features

Kind = Literal["vgg16", "squeezenet", "efficientnet-lite"]

_WANTED = "a state dict of VGG16, SqueezeNet 1.1 or EfficientNet-Lite"
_MARKS: Mapping[Kind, tuple[str, ...]] = {  # keys that only this network has
    "vgg16": ("features.28.weight", "features.40.weight"),
    "squeezenet": ("features.3.squeeze.weight",),
    "efficientnet-lite": ("_conv_stem.weight",),
}


def identify(state: Mapping[str, Any]) -> Kind | None:
    """Which network has these keys; None for another."""
    return next((kind for kind, keys in _MARKS.items() if any(key in state for key in keys)), None)


def load_features(
    path: str | os.PathLike[str],
    *,
    kind: Kind | None = None,
    taps: Taps = "pools",
    depth: int = 4,
    normalise: bool = True,
) -> FeatureMaps:
    """Load a feature network, strictly except for a classifier on top of it.

    Args:
      kind: refuse another than this.
      taps: see `VGG16Features`; the others have their own four maps.
      depth, normalise: see `FeatureMaps`.
    Raises:
      CheckpointError: the file is unreadable or of another network, or keys or shapes differ.
    """
    state = read_state(path, _WANTED)
    found = identify(state)
    if found is None or kind not in (None, found):
        raise CheckpointError(
            f"load '{path}': content is {described(state)}, expected {_WANTED if kind is None else _NAMES[kind]}. "
            f"Give another file{', or this one as --features' if found else ''}."
        )
    if found == "vgg16":
        return VGG16Features.of_state(state, str(path), taps=taps, depth=depth, normalise=normalise)
    if found == "squeezenet":
        return SqueezeNetFeatures.of_state(state, str(path), depth=depth, normalise=normalise)
    return EfficientNetLite.of_state(state, str(path), depth=depth, normalise=normalise)


def load_classifier(path: str | os.PathLike[str]) -> EfficientNetLite:
    """Load a classifier of ImageNet's 1,000 classes: an EfficientNet-Lite.

    Raises:
      CheckpointError: as `load_features`.
    """
    state = read_state(path, "a classifier's state dict")
    found = identify(state)
    if found != "efficientnet-lite":
        raise CheckpointError(
            f"load '{path}': content is {described(state)}, expected an EfficientNet-Lite as classifier. "
            "Give another file."
        )
    return EfficientNetLite.of_state(state, str(path), depth=0)


_NAMES: Mapping[Kind, str] = {
    "vgg16": "a VGG16",
    "squeezenet": "a SqueezeNet 1.1",
    "efficientnet-lite": "an EfficientNet-Lite",
}


def described(state: Mapping[str, Any]) -> str:
    """What a state dict is, for a message."""
    kind = identify(state)
    if kind is not None:
        return _NAMES[kind]
    keys = ", ".join(f"'{key[:60]}'" for key in list(state)[:3])
    return f"another network (its keys begin with {keys})" if keys else "an empty dict"
