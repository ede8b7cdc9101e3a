"""`cgnrt-train fig7`: accuracy against the counterfactuals' number and kind."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..classifier.config import ClassifierConfig
from ..mnist.config import VARIANTS
from ..settings import override
from . import common
from .experiment import add_cells, experiment

_OPTIONS = {"counterfactuals": "10000 to 1000000", "per_noise": "1 to 20", "reuse": "1 to 1024"}


def add(jobs: common.Jobs) -> None:
    """Add the job's sub-parser."""
    parser = jobs.add_parser(
        "fig7",
        help="Fig. 7: accuracy against number, noise and reuse of counterfactuals",
        description="Fig. 7 (App. A.3) on one variant: test accuracy against the number of counterfactuals, those for "
        "each noise, and the reuse factor of a pool, one moved at a time. Prints the path of fig7.json. The same "
        "command started again does only what is missing.",
    )
    parser.add_argument("--variant", choices=VARIANTS, required=True, help="which data")
    common.add_data(parser)
    parser.add_argument("--plan", type=Path, required=True, metavar="FILE", help="the CGN's plan")
    for axis, values in _OPTIONS.items():
        parser.add_argument(
            f"--{axis.replace('_', '-')}",
            metavar="N,N",
            help=f"values of this axis, {values} by default; none: leave it out",
        )
    add_cells(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> Path:
    """Run the experiment; returns the path of its JSON file."""
    shared, base = experiment(args, ClassifierConfig("original+cgn", args.variant))
    try:
        given = {
            axis: _values(axis, getattr(args, axis)) for axis in _OPTIONS if getattr(args, axis) is not None
        }
        for axis, values in given.items():
            for value in values:
                override(base, {axis: value})
    except ValueError as error:
        raise common.UsageError(str(error)) from error

    from ..experiments import fig7

    axes = {axis: values for axis, values in (fig7.AXES | given).items() if values}
    options = fig7.Fig7(**shared, variant=args.variant, plan=args.plan, axes=axes)
    return fig7.run(options, sys.stderr)


def _values(axis: str, text: str) -> tuple[int, ...]:
    if text == "none":
        return ()
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError as error:
        raise ValueError(
            f"fig7: --{axis.replace('_', '-')} is '{text}', expected numbers as 1,4,16."
        ) from error
