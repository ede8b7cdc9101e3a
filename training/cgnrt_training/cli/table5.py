"""`cgnrt-train table5`: the causal signal, read from environments."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..classifier.config import ClassifierConfig
from ..mnist.config import VARIANTS
from . import common
from .experiment import add_cells, experiment


def add(jobs: common.Jobs) -> None:
    """Add the job's sub-parser."""
    parser = jobs.add_parser(
        "table5",
        help="Table 5: which signal is causal, read from environments",
        description="Table 5 (App. H): classifiers of shape, texture and background label, trained on counterfactuals, "
        "in environments of 90, 95 and 100 % correlation; the causal signal's accuracy changes least. Prints the "
        "path of table5.json. The same command started again does only what is missing.",
    )
    parser.add_argument("--variant", choices=VARIANTS, default="double-colored", help="which data")
    common.add_data(parser)
    parser.add_argument("--plan", type=Path, required=True, metavar="FILE", help="the CGN's plan")
    add_cells(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> Path:
    """Run the experiment; returns the path of its JSON file."""
    shared, _ = experiment(args, ClassifierConfig("cgn-only", args.variant))

    from ..experiments import table5

    options = table5.Table5(**shared, variant=args.variant, plan=args.plan)
    return table5.run(options, sys.stderr)
