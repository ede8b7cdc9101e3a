"""`cgnrt-train table2`: every row of Table 2."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..classifier.config import ROWS, ClassifierConfig
from ..mnist.config import VARIANTS
from ..settings import check
from . import common
from .experiment import add_cells, experiment


def add(jobs: common.Jobs) -> None:
    """Add the job's sub-parser."""
    parser = jobs.add_parser(
        "table2",
        help="Table 2: every row on every variant, over several seeds",
        description="Table 2 (Sec. 4.3): train and test accuracy of every row on every variant, beside the paper's, "
        "and an audit of each. Prints the path of table2.json; the table is beside it. The same command "
        "started again does only what is missing.",
    )
    parser.add_argument(
        "--variant",
        choices=(*VARIANTS, "all"),
        default="all",
        help="one of the three, or all (default)",
    )
    common.add_data(parser)
    parser.add_argument("--plans", type=Path, metavar="DIR", help="holds <variant>.plan")
    parser.add_argument("--gans", type=Path, metavar="DIR", help="holds <variant>.pt, for original+gan")
    parser.add_argument(
        "--rows", metavar="ROW,ROW", help=f"some of {', '.join(ROWS)}; by default all but cgn-only"
    )
    parser.add_argument(
        "--audit", type=int, default=2000, metavar="N", help="samples of an audit; 0 for none"
    )
    add_cells(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> Path:
    """Run the experiment; returns the path of its JSON file."""
    shared, _ = experiment(args, ClassifierConfig("original", "colored"))
    rows = args.rows.split(",") if args.rows else None
    try:
        check("--audit", args.audit, args.audit >= 0, ">= 0")
        for row in rows or ():
            ClassifierConfig(row, "colored")
    except ValueError as error:
        raise common.UsageError(str(error)) from error

    from ..experiments import table2

    options = table2.Table2(
        **shared,
        plans=args.plans,
        gans=args.gans,
        variants=VARIANTS if args.variant == "all" else (args.variant,),
        rows=rows or table2.DEFAULT_ROWS,
        audit=args.audit,
    )
    return table2.run(options, sys.stderr)
