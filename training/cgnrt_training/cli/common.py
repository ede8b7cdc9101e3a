"""What the jobs of `cgnrt-train` share: arguments, and the checks before torch comes in."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeAlias

from cgnrt.errors import MissingDependencyError

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
    except ImportError as error:
        if error.name != "torch":
            raise
        raise MissingDependencyError(
            "train: package 'torch' is not installed. Run: pip install 'cgnrt[train]'"
        ) from error
    return torch


def check_threads(threads: int | None) -> None:
    """Raise UsageError for fewer than one thread."""
    if threads is not None and threads < 1:
        raise UsageError(f"train: --threads is {threads}, expected >= 1.")


def set_threads(threads: int | None) -> None:
    """Take this many CPU threads for torch; None leaves all cores.

    Raises:
      UsageError: fewer than one.
      MissingDependencyError: torch is not installed.
    """
    check_threads(threads)
    torch = torch_or_error()
    if threads is not None:
        torch.set_num_threads(threads)


def add_data(parser: argparse.ArgumentParser) -> None:
    """`--data` and `--textures`: where the MNIST files and the textures of wildlife lie."""
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="the original MNIST IDX files, .gz or not"
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
      UsageError: it is no device's name.
      BackendError: torch cannot use it here.
      MissingDependencyError: torch is not installed.
    """
    torch_or_error()
    from ..device import open_device as opened

    try:
        return opened(name)
    except ValueError as error:
        raise UsageError(str(error)) from error


def add_again(parser: argparse.ArgumentParser) -> None:
    """`--resume` or `--force`: what to do with a run that the folder holds."""
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on with the run in --output")
    again.add_argument("--force", action="store_true", help="start anew over the run in --output")
