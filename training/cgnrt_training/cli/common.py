"""What the jobs of `cgnrt-train` share: arguments, and the checks before torch comes in."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

from cgnrt._support.extras import missing_dependency
from cgnrt._support.machine import keep_freed_memory, limit_torch_threads

from ..settings import Settings, from_texts, override

if TYPE_CHECKING:
    import torch

Jobs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # what a job's `add` takes


class UsageError(Exception):
    """The command line or the settings are wrong."""


class JobFailed(Exception):  # noqa: N818 - not an error of the program
    """The job went through, and its answer is a bad one: `result` is printed all the same."""

    def __init__(self, message: str, result: str) -> None:
        super().__init__(message)
        self.result = result


def torch_or_error() -> ModuleType:
    """The torch module, imported late so that `--help` and the checks of arguments do without.

    Raises:
      MissingDependencyError: torch is not installed.
    """
    # Waiting threads that spin take the cores from whatever else runs, and a step then takes many times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        import torch
    except ModuleNotFoundError as error:
        raise missing_dependency("train", error, "train") from error
    return torch


def set_threads(threads: int | None) -> None:
    """Take this many CPU threads for torch, and keep its memory; None: all threads that the process may use.

    Raises:
      UsageError: fewer than one.
      MissingDependencyError: torch is not installed.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"train: --threads is {threads}, expected >= 1.")
    torch = torch_or_error()
    keep_freed_memory()
    if threads is None:
        limit_torch_threads()
    else:
        torch.set_num_threads(threads)


def add_data(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """`--data` and `--textures`: where the MNIST files and the textures of wildlife lie."""
    parser.add_argument(
        "--data",
        type=Path,
        required=required,
        metavar="DIR",
        help="the original MNIST IDX files, .gz or not",
    )
    parser.add_argument(
        "--textures",
        type=Path,
        metavar="DIR",
        help="wildlife: object/ and background/, ten pictures each, 0_*.jpg..",
    )


def add_output(parser: argparse.ArgumentParser) -> None:
    """`--output`: the folder of the run."""
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="the run folder")


def add_threads(parser: argparse.ArgumentParser) -> None:
    """`--threads`: for `set_threads`."""
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads; all cores by default")


def add_device(parser: argparse.ArgumentParser) -> None:
    """`--device`: for `open_device`."""
    parser.add_argument(
        "--device", default="cpu", metavar="DEVICE", help="cpu (default), cuda or cuda:<index>"
    )


def open_device(name: str) -> torch.device:
    """The device that is asked for.

    Raises:
      UsageError: it is not the name of a device.
      BackendError: torch cannot use it here.
      MissingDependencyError: torch is not installed.
    """
    torch_or_error()
    from ..device import open_device as opened

    try:
        return opened(name)
    except ValueError as error:
        raise UsageError(str(error)) from error


def add_settings(parser: argparse.ArgumentParser, steps: str, example: str) -> None:
    """`--steps`, `--seed` and `--set`: for `run_settings`.

    Args:
      steps: what a step is, and how many there are by default.
      example: a setting, as `--set` takes it.
    """
    parser.add_argument("--steps", type=int, metavar="N", help=steps)
    parser.add_argument(
        "--seed", type=int, metavar="N", help="of weights, data order and noise; 0 by default"
    )
    add_set(parser, example)


def add_set(parser: argparse.ArgumentParser, example: str) -> None:
    """`--set`: for `settings.from_texts`."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help=f"one setting, as {example}; repeatable",
    )


def add_again(parser: argparse.ArgumentParser) -> None:
    """`--resume` or `--force`: what to do with a run that the folder holds."""
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on with the run in --output")
    again.add_argument("--force", action="store_true", help="start anew over the run in --output")


def run_settings(
    args: argparse.Namespace,
    kind: type[Settings],
    new: Callable[[], Settings],
    options: Mapping[str, str],
    *,
    toml: Mapping[str, Any] | None = None,
    may_change: Sequence[str] = ("steps",),
) -> Settings:
    """The settings of the run in --output: of a new one, or on --resume its own, changed by the command line.

    Args:
      new: makes those of a new run.
      options: option -> the setting that it is short for.
      toml: overrides that come before those of --set and of the options.
      may_change: what may differ on resume.
    Raises:
      UsageError: a setting is wrong, or the folder holds a run and neither --resume nor --force, or on
        --resume a setting differs from the run's own.
      CheckpointError: on --resume, the run's own settings cannot be read.
    """
    from ..runs.folder import check_folder, stored_settings

    try:
        settings = stored_settings(args.output, kind) if args.resume else new()
        settings = override(settings, toml or {})
        settings = from_texts(settings, args.set)
        given = {option: getattr(args, option) for option in options}
        for option, value in given.items():
            if value is not None:
                section, dot, name = options[option].rpartition(".")
                settings = override(settings, {section: {name: value}} if dot else {name: value})
        check_folder(args.output, settings, resume=args.resume, force=args.force, may_change=may_change)
    except ValueError as error:
        raise UsageError(str(error)) from error
    return settings


def needed(args: argparse.Namespace, name: str) -> Any:
    """The value of an option that a new run needs and a resumed one does not.

    Raises:
      ValueError: it is not given.
    """
    if (value := getattr(args, name)) is None:
        raise ValueError(f"train: --{name} is missing, expected it for a new run.")
    return value
