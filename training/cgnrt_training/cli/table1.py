"""`cgnrt-train table1`: which losses the CGN of Fig. 2 needs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..natural.config import RECIPES, Config
from ..settings import check, check_one_of, from_texts, load_toml, override
from . import common
from .imagenet import FILES, add_config, add_files


def add(jobs: common.Jobs) -> None:
    """Add the job's sub-parser."""
    parser = jobs.add_parser(
        "table1",
        help="Table 1: the CGN of Fig. 2 with all losses, and with each of four off",
        description="Table 1 (Sec. 4.2): train the CGN of Fig. 2 with all losses and with each of four off, on any "
        "cGAN, with the same pseudo-batch and updates for every row; measure Inception score and mean masks, and draw "
        "Fig. 33's sheet of masks. Prints the path of table1.json; table and sheet are beside it. The same command "
        "started again does only what is missing.",
    )
    add_files(parser)
    parser.add_argument(
        "--classifier",
        type=Path,
        metavar="FILE",
        help="an EfficientNet-Lite, for the Inception score; without it the score is left out",
    )
    parser.add_argument(
        "--rows",
        metavar="ROW,ROW",
        help="some of none, shape, texture, background, reconstruction: what is off",
    )
    parser.add_argument(
        "--samples",
        type=int,
        default=1000,
        metavar="N",
        help="that each row is measured on; 1,000 by default",
    )
    common.add_output(parser)
    common.add_settings(parser, "updates of every row; 300 by default", "train.pseudo_batch=256")
    add_config(parser)
    common.add_device(parser)
    common.add_threads(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> Path:
    """Run the experiment; returns the path of its JSON file."""
    common.set_threads(args.threads)
    device = common.open_device(args.device)
    from ..experiments import table1, table1_text
    from ..natural.networks import Files

    try:
        config = _config(args)
        check("--samples", args.samples, args.samples >= 1, ">= 1")
        rows = args.rows.split(",") if args.rows else table1_text.ROWS
        for row in rows:
            check_one_of("--rows", row, table1_text.ROWS)
        for name in ("biggan", "u2net"):
            common.needed(args, name)
    except ValueError as error:
        raise common.UsageError(str(error)) from error
    options = table1.Table1(
        files=Files(**{name: getattr(args, name) for name in FILES}),
        config=config,
        output=args.output,
        classifier=args.classifier,
        rows=rows,
        samples=args.samples,
        device=device,
        command=sys.argv[1:],
    )
    return table1.run(options, sys.stderr)


def _config(args: argparse.Namespace) -> Config:
    config = override(Config(), load_toml(args.config, RECIPES) if args.config else {})
    config = from_texts(config, args.set)
    short = {"updates": args.steps, "seed": args.seed}
    return override(config, {"train": {key: value for key, value in short.items() if value is not None}})
