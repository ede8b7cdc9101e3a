"""Read and write checkpoints: tensors and plain values only, never code.

Two files in a run folder: `cgn.pt`, light, what export reads; and `resume.pt`, everything that training needs
to go on exactly where it was.
"""

from __future__ import annotations

import os
import pickle
import reprlib
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cgnrt.errors import CheckpointError
from cgnrt.plan import MECHANISMS

from .config import VARIANTS
from .mnist.models import CGN

FORMAT = "cgnrt-mnist-cgn"
FORMAT_VERSION = 1

_MAX_NAME, _MAX_TEXT = 200, 4096  # characters: what a plan takes


def load_tensors(path: str | os.PathLike[str]) -> Any:
    """Load what `torch.save` wrote, on the CPU, if it holds nothing but tensors and plain values.

    Raises:
      CheckpointError: the file is missing, damaged, no torch checkpoint, or a pickle that would run code.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise CheckpointError(
            f"load '{path}': file is unreadable ({error.strerror or error}), expected a checkpoint. "
            f"Check the path."
        ) from error
    if not head:
        raise CheckpointError(
            f"load '{path}': file is empty, expected a checkpoint. Train or fetch it again."
        )
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"load '{path}': file is a git-LFS pointer, expected the checkpoint itself. Run: git lfs pull"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about pickle protocols: the errors below tell
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Unsupported" in str(error) or "Weights only load failed" not in str(error):
            found = "no torch checkpoint or damaged"
        else:
            found = "a pickle with code or foreign classes in it, or damaged"
        raise CheckpointError(
            f"load '{path}': content is {found}, expected tensors and plain values only. "
            f"Nothing in it was run; save it again as a state dict ({_first_line(error)})."
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, AttributeError) as error:
        raise CheckpointError(
            f"load '{path}': content is damaged or no torch checkpoint, expected tensors and plain "
            f"values only. Get it again ({_first_line(error)})."
        ) from error


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = next(
        (line for line in lines if "GLOBAL" in line or "Unsupported" in line), lines[0] if lines else ""
    )
    return reason[:160] or type(error).__name__


def save(content: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write a checkpoint beside `path`, then rename it there, so that `path` is never half-written.

    Tensors are written as those of the CPU, wherever they lie.

    Raises:
      CheckpointError: the disk refused; an older file at `path` is left as it was.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            torch.save(_on_cpu(dict(content)), file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:  # torch reports a failed write as RuntimeError
        raise CheckpointError(
            f"save '{path}': write has failed ({_first_line(error)}), expected a writable disk with room. "
            f"Free some space and resume."
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _on_cpu(content: Any) -> Any:
    """The same content, tensors in dicts, lists and tuples moved to the CPU; itself where none is elsewhere."""
    if isinstance(content, Tensor):
        return content.cpu()
    if isinstance(content, dict):
        moved = {key: _on_cpu(value) for key, value in content.items()}
        return content if all(moved[key] is value for key, value in content.items()) else moved
    return type(content)(map(_on_cpu, content)) if type(content) in (list, tuple) else content


@contextmanager
def fitting(subject: str) -> Iterator[None]:
    """Around the loading of optimisers and random states: what torch raises over a foreign one is named.

    Raises:
      CheckpointError: the state does not fit.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise CheckpointError(
            f"resume '{subject}': optimiser or random state does not fit ({_first_line(error)}), expected this run's. "
            f"Start anew with --force."
        ) from error


def step_of(state: Mapping[str, Any], subject: str) -> int:
    """The number of steps done that a resume state says.

    Raises:
      CheckpointError: it is no whole number >= 0.
    """
    step = state["step"]
    if type(step) is not int or step < 0:
        raise CheckpointError(
            f"resume '{subject}': step is {step!r}, expected a whole number >= 0. Start anew with --force."
        )
    return step


def load_state(module: nn.Module, state: Any, subject: str) -> None:
    """Copy a state dict into `module`, strictly.

    Raises:
      CheckpointError: naming the keys that are missing, unknown, or of another shape or type.
    """
    if not isinstance(state, Mapping):
        raise CheckpointError(
            f"load '{subject}': content is {type(state).__name__}, expected a state dict of named tensors. "
            f"Check that it is a checkpoint of this model."
        )
    expected = module.state_dict()
    problems = []
    if missing := [key for key in expected if key not in state]:
        problems.append(f"missing keys are {_some(missing)}")
    if unknown := [str(key) for key in state if key not in expected]:
        problems.append(f"unknown keys are {_some(unknown)}")
    for key, tensor in expected.items():
        got = state.get(key)
        if got is None:
            continue
        if not isinstance(got, Tensor):
            problems.append(f"'{key}' is {type(got).__name__}, expected a tensor")
        elif got.shape != tensor.shape:
            problems.append(f"'{key}' is {tuple(got.shape)}, expected {tuple(tensor.shape)}")
        elif got.is_floating_point() != tensor.is_floating_point():
            problems.append(f"'{key}' is {got.dtype}, expected {tensor.dtype}")
        elif got.is_floating_point() and not bool(torch.isfinite(got).all()):
            problems.append(f"'{key}' has values that are not finite, expected finite ones")
    if problems:
        raise CheckpointError(
            f"load '{subject}': {'; '.join(problems[:6])}. Expected exactly the {len(expected)} tensors of "
            f"{type(module).__name__}. Check that it is a checkpoint of this model."
        )
    module.load_state_dict(dict(state), strict=True)


def _some(names: list[str], limit: int = 8) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:limit])
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "")


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
      CheckpointError: as `load_tensors` and `load_state`; the checkpoint is of another kind or version; or what
        it says of itself (variant, class names, training data, step, config) is not as in `CGNCheckpoint`.
    """
    content = load_tensors(path)
    subject = os.fspath(path)
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"load '{subject}': content is {type(content).__name__}, expected a state dict of named tensors. "
            f"Check that it is an MNIST CGN checkpoint."
        )
    if "format" not in content:
        return CGNCheckpoint(_build(content, subject))
    if content["format"] != FORMAT:
        raise CheckpointError(
            f"load '{subject}': format is {_shown(content['format'])}, expected '{FORMAT}'. "
            f"Check that it is an MNIST CGN checkpoint."
        )
    version = content.get("format_version")
    if type(version) is not int or not 1 <= version <= FORMAT_VERSION:
        raise CheckpointError(
            f"load '{subject}': format version is {_shown(version)}, expected 1..{FORMAT_VERSION}. Upgrade cgnrt."
        )
    model = _build(content.get("model"), subject)
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
        return f"variant is {_shown(variant)}, expected one of {', '.join(VARIANTS)}"
    if text is not None and not (isinstance(text, str) and 1 <= len(text) <= _MAX_TEXT):
        return f"training_data is {_shown(text)}, expected a text of 1..{_MAX_TEXT} characters"
    if step is not None and not (type(step) is int and 0 <= step < 2**63):
        return f"step is {_shown(step)}, expected an int in 0..2**63 - 1"
    if config is not None and not (isinstance(config, dict) and all(isinstance(key, str) for key in config)):
        return f"config is {_shown(config)}, expected a dict whose keys are texts"
    return None if given["class_names"] is None else _names_fault(given["class_names"], n_classes)


def _names_fault(names: Any, n_classes: int) -> str | None:
    if not isinstance(names, dict) or set(names) != set(MECHANISMS):
        return f"class_names is {_shown(names)}, expected a dict of exactly {', '.join(MECHANISMS)}"
    for mechanism in MECHANISMS:
        labels = names[mechanism]
        subject = f"class_names['{mechanism}']"
        if not isinstance(labels, list | tuple):
            return f"{subject} is {_shown(labels)}, expected a list of names"
        if len(labels) != n_classes:
            return f"length of {subject} is {len(labels)}, expected {n_classes}, the classes of the model"
        seen: set[str] = set()
        for position, label in enumerate(labels):
            if not isinstance(label, str) or not 1 <= len(label) <= _MAX_NAME:
                rule = f"a name of 1..{_MAX_NAME} characters"
                return f"{subject}[{position}] is {_shown(label)}, expected {rule}"
            if label in seen:
                return f"{subject}[{position}] is {_shown(label)} again, expected unique names"
            seen.add(label)
    return None


def _shown(value: Any) -> str:
    """A value from a file that may be hostile, short enough for a message."""
    if value is None or isinstance(value, str | int | float):
        return reprlib.repr(value)
    if isinstance(value, dict):
        keys = [_shown(key) for key in list(value)[:4]] + ["..."] * (len(value) > 4)
        return f"a dict of {', '.join(keys)}" if keys else "an empty dict"
    return f"a {type(value).__name__}"


def _build(state: Any, subject: str) -> CGN:
    """A CGN of the size that the tensors have, or the default size, whose check then names the faults."""
    size = (10, 32, 32, 32)
    try:
        n_classes, embedding = state["label_emb.weight"].shape
        channels = state["f_shape.4.weight"].shape[0]
        linear = state["f_shape.0.weight"]
        resolution = 4 * round((linear.shape[0] / (2 * channels)) ** 0.5)
        noise_size = linear.shape[1] - embedding
        # Contiguous: memory of that size is really there, so a made-up shape cannot ask for more.
        if n_classes == embedding and noise_size > 0 and resolution > 0 and linear.is_contiguous():
            size = (n_classes, noise_size, channels, resolution)
    except (KeyError, AttributeError, ValueError, IndexError, TypeError, ZeroDivisionError):
        pass
    model = CGN(*size, init="normal")
    load_state(model, state, subject)
    return model.eval()
