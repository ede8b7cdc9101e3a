"""The checkpoints of an MNIST CGN: `cgn.pt` and `resume.pt` of this package, and the authors' `ckp.pth`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast, get_args

from cgnrt.errors import CheckpointError
from cgnrt.plan import MECHANISMS

from ..checkpoints import check_format, has_memory, load_state, load_weights, shown
from .config import VARIANTS
from .models import CGN, TexturePadding

FORMAT = "cgnrt-mnist-cgn"
FORMAT_VERSION = 1

_MAX_NAME, _MAX_TEXT = 200, 4096  # characters: what a plan takes


@dataclass(frozen=True)
class CGNCheckpoint:
    """A trained MNIST CGN and what is known about it."""

    model: CGN  # in evaluation mode
    variant: str | None = None  # None for the authors' files, which do not tell
    class_names: dict[str, list[str]] | None = None  # by mechanism: shape, texture, background
    training_data: str | None = None
    step: int | None = None
    config: dict[str, Any] = field(default_factory=dict)


def load_cgn(path: str | os.PathLike[str]) -> CGNCheckpoint:
    """Load a CGN that this package trained (`cgn.pt`, `resume.pt`) or the authors' `ckp.pth`, strictly.

    Raises:
      CheckpointError: as `load_weights` and `load_state`; the checkpoint is of another kind or version; or what
        it says of itself (variant, class names, training data, step, config) is not as in `CGNCheckpoint`.
    """
    return build_cgn(load_weights(path), os.fspath(path))


def build_cgn(content: Any, subject: str) -> CGNCheckpoint:
    """As `load_cgn`, from what was in the file `subject`."""
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"load '{subject}': content is {type(content).__name__}, expected a state dict of named tensors. "
            f"Check that it is an MNIST CGN checkpoint."
        )
    if "format" not in content:
        return CGNCheckpoint(_build(content, subject))
    check_format(content, FORMAT, FORMAT_VERSION, subject)
    model = _build(content.get("model"), subject, _padding(content.get("config"), subject))
    given = {key: content.get(key) for key in ("variant", "class_names", "training_data", "step", "config")}
    if fault := _fault(given, model.n_classes):
        raise CheckpointError(f"load '{subject}': {fault}. Fetch or train the checkpoint again.")
    names = given["class_names"]
    return CGNCheckpoint(
        model,
        variant=given["variant"],
        class_names=None if names is None else {name: list(names[name]) for name in MECHANISMS},
        training_data=given["training_data"],
        step=given["step"],
        config=dict(given["config"] or {}),
    )


def _fault(given: Mapping[str, Any], n_classes: int) -> str | None:
    """What is wrong with what a checkpoint says of itself; each part may be None, not told."""
    variant, text, step, config = (given[key] for key in ("variant", "training_data", "step", "config"))
    if variant is not None and not (isinstance(variant, str) and variant in VARIANTS):
        return f"variant is {shown(variant)}, expected one of {', '.join(VARIANTS)}"
    if text is not None and not (isinstance(text, str) and 1 <= len(text) <= _MAX_TEXT):
        return f"training_data is {shown(text)}, expected a text of 1..{_MAX_TEXT} characters"
    if step is not None and not (type(step) is int and 0 <= step < 2**63):
        return f"step is {shown(step)}, expected an int in 0..2**63 - 1"
    if config is not None and not (isinstance(config, dict) and all(isinstance(key, str) for key in config)):
        return f"config is {shown(config)}, expected a dict whose keys are texts"
    return None if given["class_names"] is None else _names_fault(given["class_names"], n_classes)


def _names_fault(names: Any, n_classes: int) -> str | None:
    if not isinstance(names, dict) or set(names) != set(MECHANISMS):
        return f"class_names is {shown(names)}, expected a dict of exactly {', '.join(MECHANISMS)}"
    for mechanism in MECHANISMS:
        labels = names[mechanism]
        subject = f"class_names['{mechanism}']"
        if not isinstance(labels, list | tuple):
            return f"{subject} is {shown(labels)}, expected a list of names"
        if len(labels) != n_classes:
            return f"length of {subject} is {len(labels)}, expected {n_classes}, the classes of the model"
        seen: set[str] = set()
        for position, label in enumerate(labels):
            if not isinstance(label, str) or not 1 <= len(label) <= _MAX_NAME:
                rule = f"a name of 1..{_MAX_NAME} characters"
                return f"{subject}[{position}] is {shown(label)}, expected {rule}"
            if label in seen:
                return f"{subject}[{position}] is {shown(label)} again, expected unique names"
            seen.add(label)
    return None


def _padding(config: Any, subject: str) -> TexturePadding:
    """What a checkpoint's settings say of the textures' padding; those from before it was a setting had zeros."""
    model = config.get("model") if isinstance(config, dict) else None
    padding = model.get("texture_padding", "zeros") if isinstance(model, dict) else "zeros"
    if not (isinstance(padding, str) and padding in get_args(TexturePadding)):
        raise CheckpointError(
            f"load '{subject}': config.model.texture_padding is {shown(padding)}, expected one of "
            f"{', '.join(get_args(TexturePadding))}. Fetch or train the checkpoint again."
        )
    return cast(TexturePadding, padding)


def _build(state: Any, subject: str, padding: TexturePadding = "zeros") -> CGN:
    """A CGN of the size that the tensors have, or the default size, whose check then names the faults."""
    size = (10, 32, 32, 32)
    try:
        n_classes, embedding = state["label_emb.weight"].shape
        channels = state["f_shape.4.weight"].shape[0]
        linear = state["f_shape.0.weight"]
        resolution = 4 * round((linear.shape[0] / (2 * channels)) ** 0.5)
        noise_size = linear.shape[1] - embedding
        if n_classes == embedding and noise_size > 0 and resolution > 0 and has_memory(linear):
            size = (n_classes, noise_size, channels, resolution)
    except (KeyError, AttributeError, ValueError, IndexError, TypeError, ZeroDivisionError):
        pass
    model = CGN(*size, init="normal", texture_padding=padding)
    load_state(model, state, subject)
    return model.eval()
