"""`cgnrt-train classifier`: one row of Table 2."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ..classifier.config import NEEDS_GAN, NEEDS_PLAN, ROWS, ClassifierConfig
from ..mnist.config import VARIANTS
from . import common


def add(jobs: common.Jobs) -> None:
    """Add the job's sub-parser."""
    rows = "\n".join(f"  {row:<15} {what}" for row, what in ROWS.items())
    parser = jobs.add_parser(
        "classifier",
        help="train a classifier on an MNIST variant, with counterfactuals or without",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Train a digit classifier on an MNIST variant (Sec. 4.3, App. C.4): one network, one recipe, one\n"
        "number of steps for all rows. Counterfactuals are streamed from the plan while it trains. Prints\n"
        "the result as JSON; the output folder holds classifier.pt, resume.pt and result.json.",
        epilog=f"rows:\n{rows}",
    )
    parser.add_argument("--row", choices=tuple(ROWS), metavar="ROW", help="see below; needed unless --resume")
    parser.add_argument("--variant", choices=VARIANTS, help="which data; needed unless --resume")
    common.add_data(parser)
    parser.add_argument(
        "--plan",
        type=Path,
        metavar="FILE",
        help=f"a CGN's plan: counterfactuals for {' and '.join(NEEDS_PLAN)}; with other rows, to judge by",
    )
    parser.add_argument("--gan", type=Path, metavar="FILE", help=f"gan.pt, for {' and '.join(NEEDS_GAN)}")
    common.add_output(parser)
    common.add_settings(
        parser,
        "steps of 128 images; 2,400 by default",
        "lr=0.002, counterfactuals=100000, per_noise=10 or reuse=16",
    )
    common.add_device(parser)
    common.add_threads(parser)
    common.add_again(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> str:
    """Train; returns the result as JSON."""
    common.set_threads(args.threads)
    device = common.open_device(args.device)
    config = common.run_settings(
        args,
        ClassifierConfig,
        lambda: ClassifierConfig(common.needed(args, "row"), common.needed(args, "variant")),
        {name: name for name in ("row", "variant", "steps", "seed")},
    )
    if config.row in NEEDS_PLAN and args.plan is None:
        raise common.UsageError(f"train: --plan is missing, expected a CGN's plan for row {config.row}.")
    if config.row in NEEDS_GAN and args.gan is None:
        raise common.UsageError(f"train: --gan is missing, expected a trained GAN for row {config.row}.")

    from ..classifier.sources import Inputs
    from ..classifier.train import train

    inputs = Inputs(args.data, args.textures, args.plan, args.gan)
    _, result = train(
        config, inputs, args.output, resume=args.resume, force=args.force, log=sys.stderr, device=device
    )
    return json.dumps(result, indent=2)
