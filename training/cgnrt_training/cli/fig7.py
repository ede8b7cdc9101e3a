"""`cgnrt-train fig7`: accuracy against the counterfactuals' number and kind."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..classifier.config import ClassifierConfig
from ..mnist.config import VARIANTS
from ..settings import from_texts
from . import common
from .experiment import add_cells, cell_settings

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
    add_cells(parser, seeds=3)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> Path:
    """Run the experiment; returns the path of its JSON file."""
    try:
        settings = cell_settings(args)
        base = from_texts(ClassifierConfig("original+cgn", args.variant), settings)
        given = {
            axis: _values(axis, getattr(args, axis)) for axis in _OPTIONS if getattr(args, axis) is not None
        }
        for axis, values in given.items():
            for value in values:
                from_texts(base, [f"{axis}={value}"])
    except ValueError as error:
        raise common.UsageError(str(error)) from error
    device = common.open_device(args.device)

    from ..experiments import fig7

    options = fig7.Fig7(
        variant=args.variant,
        data=args.data,
        plan=args.plan,
        output=args.output,
        textures=args.textures,
        axes={axis: values for axis, values in (fig7.AXES | given).items() if values},
        seeds=args.seeds,
        jobs=args.jobs,
        settings=settings,
        device=str(device),
        command=sys.argv[1:],
    )
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
