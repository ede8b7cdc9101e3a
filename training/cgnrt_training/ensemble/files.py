"""The file of a trained classifier."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cgnrt.errors import CheckpointError

from ..checkpoints import load_own, load_state, settings_in
from ..runs.sources import Sources, without_paths
from ..settings import to_dict
from .backbones import new_backbone
from .config import WITH_HEADS, EnsembleConfig
from .model import HEADS, ONE_HEAD, Ensemble

FORMAT, FORMAT_VERSION = "cgnrt-ensemble", 1


@dataclass(frozen=True)
class Loaded:
    """What a file holds.

    Attributes:
      model: in evaluation mode; takes images in [-1, 1].
      classes: their names, in the order of the logits.
      size: side of the pictures that it was trained on.
      step: how many steps it was trained.
    """

    model: Ensemble
    config: EnsembleConfig
    classes: tuple[str, ...]
    size: int
    step: int


def about(config: EnsembleConfig, classes: Sequence[str], size: int, sources: Sources) -> dict[str, Any]:
    """The entries that say what the file is."""
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "config": to_dict(config),
        "classes": list(classes),
        "size": size,
        "sources": without_paths(sources),
    }


def build(config: EnsembleConfig, backbone: Any, classes: int) -> Ensemble:
    """The classifier of a row on a backbone of `backbones`."""
    heads = HEADS if config.train.row in WITH_HEADS else ONE_HEAD
    model = config.model
    return Ensemble(
        backbone,
        backbone.features,
        classes,
        heads=heads,
        freeze_norm=model.freeze_norm,
        input_size=model.input_size,
    )


def load_ensemble(path: str | os.PathLike[str]) -> Loaded:
    """Load `ensemble.pt` of a run of `cgnrt-train ensemble`.

    Raises:
      CheckpointError: the file is unreadable, of another format or damaged.
    """
    content: Mapping[str, Any] = load_own(path, FORMAT, FORMAT_VERSION)
    config = settings_in(content, EnsembleConfig, str(path))
    classes, size, step = (content.get(key) for key in ("classes", "size", "step"))
    well = isinstance(classes, list) and len(classes) > 1 and all(isinstance(name, str) for name in classes)
    if not well or type(size) is not int or type(step) is not int:
        raise CheckpointError(f"load '{path}': classes, size or step are missing or damaged. Train again.")
    try:
        backbone = new_backbone(config.model.backbone)
    except ValueError as error:
        raise CheckpointError(f"load '{path}': settings are damaged ({error}). Train again.") from error
    assert isinstance(classes, list)
    model = build(config, backbone, len(classes))
    load_state(model, content.get("model"), str(path))
    return Loaded(model.eval(), config, tuple(classes), size, step)
