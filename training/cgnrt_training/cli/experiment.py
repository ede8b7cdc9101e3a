"""What the jobs that run an experiment of many classifiers share."""

from __future__ import annotations

import argparse

from . import common


def add_cells(parser: argparse.ArgumentParser, *, seeds: int) -> None:
    """`--seeds`, `--jobs`, `--steps`, `--set`, `--device` and `--output`."""
    parser.add_argument("--seeds", type=int, default=seeds, metavar="N", help=f"classifiers a cell; {seeds}")
    parser.add_argument(
        "--jobs",
        type=int,
        default=2,
        metavar="N",
        help="processes, each with one thread, 2 by default; 0 works in this one",
    )
    parser.add_argument("--steps", type=int, metavar="N", help="short for --set steps=N")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="one setting of all classifiers, as lr=0.002; repeatable",
    )
    common.add_device(parser)
    common.add_output(parser)


def cell_settings(args: argparse.Namespace) -> list[str]:
    """The settings of all cells, as texts.

    Raises:
      ValueError: an option of `add_cells` is not allowed, or a setting belongs to single cells.
    """
    for name, low in (("seeds", 1), ("jobs", 0)):
        if getattr(args, name) < low:
            raise ValueError(f"{args.job}: --{name} is {getattr(args, name)}, expected >= {low}.")
    for setting in args.set:
        if setting.partition("=")[0].strip() in ("row", "variant", "seed"):
            raise ValueError(f"{args.job}: --set is '{setting}', expected a setting that all cells share.")
    return [*([] if args.steps is None else [f"steps={args.steps}"]), *args.set]
