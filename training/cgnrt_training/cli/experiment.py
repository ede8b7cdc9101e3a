"""What the jobs that run an experiment of many classifiers share."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from ..classifier.config import ClassifierConfig
from ..settings import from_texts
from . import common


def add_cells(parser: argparse.ArgumentParser) -> None:
    """`--seeds`, `--jobs`, `--steps`, `--set`, `--device` and `--output`."""
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="classifiers of each kind; 3")
    parser.add_argument(
        "--jobs",
        type=int,
        default=2,
        metavar="N",
        help="processes, each with one thread, 2 by default; 0 works in this one",
    )
    parser.add_argument("--steps", type=int, metavar="N", help="short for --set steps=N")
    common.add_set(parser, "lr=0.002, for all classifiers")
    common.add_device(parser)
    common.add_output(parser)


def experiment(args: argparse.Namespace, base: ClassifierConfig) -> tuple[dict[str, Any], ClassifierConfig]:
    """The fields of `cells.Experiment` that the command line gives, and `base` with the settings of all cells.

    Raises:
      UsageError: an option of `add_cells` is not allowed, or a setting belongs to single cells.
      BackendError, MissingDependencyError: as `common.open_device`.
    """
    try:
        for name, low in (("seeds", 1), ("jobs", 0)):
            if getattr(args, name) < low:
                raise ValueError(f"{args.job}: --{name} is {getattr(args, name)}, expected >= {low}.")
        for setting in args.set:
            if setting.partition("=")[0].strip() in ("row", "variant", "seed"):
                raise ValueError(
                    f"{args.job}: --set is '{setting}', expected a setting that all cells share."
                )
        settings = [*([] if args.steps is None else [f"steps={args.steps}"]), *args.set]
        config = from_texts(base, settings)
    except ValueError as error:
        raise common.UsageError(str(error)) from error
    names = ("data", "output", "textures", "seeds", "jobs")
    given = {name: getattr(args, name) for name in names}
    device = str(common.open_device(args.device))
    return given | {"settings": settings, "device": device, "command": sys.argv[1:]}, config
