"""Read and write checkpoints: tensors and plain values only, never code."""

from __future__ import annotations

import os
import pickle
import reprlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cgnrt._support.files import written_beside
from cgnrt._support.reading import open_file
from cgnrt.errors import CgnrtError, CheckpointError

from .settings import Settings, from_dict

# Where training scripts put the weights inside a larger checkpoint.
_WRAPPERS = ("state_dict", "model_state_dict", "model")
# What DataParallel and torch.compile put into the names of the modules that they wrap.
_WRAPPER_MODULES = ("module", "_orig_mod")


def load_tensors(path: str | os.PathLike[str]) -> Any:
    """Load what `torch.save` wrote, on the CPU, if it holds only tensors and plain values.

    Raises:
      CheckpointError: the file is missing, damaged, no torch checkpoint, or a pickle that would run code.
    """
    path = Path(path)
    try:
        with open_file(path) as file:
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
            warnings.simplefilter("ignore", UserWarning)  # about pickle protocols: the errors below say it
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Unsupported" in str(error) or "Weights only load failed" not in str(error):
            found = "no torch checkpoint or damaged"
        else:
            found = "a pickle with code or foreign classes in it, or damaged"
        raise CheckpointError(
            f"load '{path}': content is {found}, expected tensors and plain values only. "
            f"Nothing in it was run; save it again as a state dict ({first_line(error)})."
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, AttributeError) as error:
        raise CheckpointError(
            f"load '{path}': content is damaged or no torch checkpoint, expected tensors and plain "
            f"values only. Get it again ({first_line(error)})."
        ) from error


def load_weights(path: str | os.PathLike[str]) -> Any:
    """Load a checkpoint of weights, without what training scripts put around them.

    The state dict is taken out of an outer entry `state_dict`, `model_state_dict` or `model`, and its keys lose the
    `module.` of DataParallel, the `_orig_mod.` of torch.compile, and a `model.` before every key (Lightning). Of a
    checkpoint of this package, which has an entry `format`, only the keys under `model` change.

    Raises:
      CheckpointError: as `load_tensors`, or two keys become the same one.
    """
    content = load_tensors(path)
    if isinstance(content, Mapping) and "format" in content:
        model = content.get("model")
        return {**content, "model": _plain_keys(model, path)} if isinstance(model, Mapping) else content
    while isinstance(content, Mapping):
        inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            return _plain_keys(content, path)
        content = inner
    return content


def load_own(path: str | os.PathLike[str], name: str, version: int) -> Mapping[str, Any]:
    """Load a checkpoint of one of this package's own formats, `name`, of which `version` is the newest.

    Raises:
      CheckpointError: as `load_weights`, or it is of another format or a newer version.
    """
    content = load_weights(path)
    if not isinstance(content, Mapping) or "format" not in content:
        raise CheckpointError(f"load '{path}': format is missing, expected '{name}'. Check the path.")
    check_format(content, name, version, os.fspath(path))
    return content


def check_format(content: Mapping[str, Any], name: str, version: int, subject: str) -> None:
    """Raise CheckpointError where a checkpoint of this package is of another format or a newer version."""
    if content["format"] != name:
        raise CheckpointError(
            f"load '{subject}': format is {shown(content['format'])}, expected '{name}'. Check the path."
        )
    found = content.get("format_version")
    if type(found) is not int or not 1 <= found <= version:
        raise CheckpointError(
            f"load '{subject}': format version is {shown(found)}, expected 1..{version}. Upgrade cgnrt."
        )


def settings_in(content: Mapping[str, Any], kind: type[Settings], subject: str) -> Settings:
    """The settings that a checkpoint says it was made with.

    Raises:
      CheckpointError: the settings are missing or not allowed.
    """
    try:
        return from_dict(kind, content.get("config"))
    except ValueError as error:
        raise CheckpointError(f"load '{subject}': settings are damaged ({error}). Train again.") from error


def shown(value: Any) -> str:
    """A value from a file that may be hostile, short enough for a message."""
    if value is None or isinstance(value, str | int | float):
        return reprlib.repr(value)
    if isinstance(value, dict):
        keys = [shown(key) for key in list(value)[:4]] + ["..."] * (len(value) > 4)
        return f"a dict of {', '.join(keys)}" if keys else "an empty dict"
    return f"a {type(value).__name__}"


def _plain_keys(state: Mapping[Any, Any], path: str | os.PathLike[str]) -> dict[Any, Any]:
    """The same state dict without the names of wrappers in its keys."""
    plain = {
        ".".join(part for part in key.split(".") if part not in _WRAPPER_MODULES)
        if isinstance(key, str)
        else key: value
        for key, value in state.items()
    }
    if len(plain) < len(state):
        raise CheckpointError(
            f"load '{path}': keys occur twice, with and without {' or '.join(_WRAPPER_MODULES)}, expected each "
            f"once. Save the weights of one module alone."
        )
    if plain and all(isinstance(key, str) and key.startswith("model.") for key in plain):
        return {key.removeprefix("model."): value for key, value in plain.items()}
    return plain


def first_line(error: BaseException) -> str:
    """The line of an error's text that says most, at most 160 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = next(
        (line for line in lines if "GLOBAL" in line or "Unsupported" in line), lines[0] if lines else ""
    )
    return reason[:160] or type(error).__name__


def save(content: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write a checkpoint beside `path`, then rename it, so that `path` is never half-written.

    Tensors are written as those of the CPU, on whatever device they are.

    Raises:
      CheckpointError: the disk refused; an older file at `path` is left as it was.
    """
    try:
        with written_beside(Path(path), force=True) as beside, beside.open("wb") as file:
            torch.save(_on_cpu(dict(content)), file)
    except (CgnrtError, RuntimeError) as error:  # torch reports a failed write as RuntimeError
        raise CheckpointError(
            f"save '{path}': writing failed ({first_line(error.__cause__ or error)}), expected a writable disk with "
            f"room. Free some space and resume."
        ) from error


def _on_cpu(content: Any) -> Any:
    """The same content with all tensors in dicts, lists and tuples on the CPU; the same object if they are there."""
    if isinstance(content, Tensor):
        return content.cpu()
    if isinstance(content, dict):
        moved = {key: _on_cpu(value) for key, value in content.items()}
        return content if all(moved[key] is value for key, value in content.items()) else moved
    return type(content)(map(_on_cpu, content)) if type(content) in (list, tuple) else content


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


def has_memory(tensor: Tensor) -> bool:
    """Whether there is memory for all values of a tensor from a file: a made-up shape asks for more than that."""
    return tensor.untyped_storage().nbytes() >= tensor.numel() * tensor.element_size()


def _some(names: list[str], limit: int = 8) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:limit])
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "")
