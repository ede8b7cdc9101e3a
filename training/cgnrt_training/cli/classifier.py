"""`cgnrt-train classifier`: one row of Table 2."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ..classifier.config import NEEDS_GAN, NEEDS_PLAN, ROWS, ClassifierConfig, from_dict, from_settings
from ..config import VARIANTS
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
    parser.add_argument("--steps", type=int, metavar="N", help="short for --set steps=N")
    parser.add_argument("--seed", type=int, metavar="N", help="short for --set seed=N")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="one setting, as lr=0.002, counterfactuals=100000, per_noise=10 or reuse=16; repeatable",
    )
    common.add_device(parser)
    common.add_threads(parser)
    common.add_again(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> str:
    """Train; returns the result as JSON."""
    try:
        config = _configure(args)
    except ValueError as error:
        raise common.UsageError(str(error)) from error
    common.set_threads(args.threads)
    device = common.open_device(args.device)

    from ..classifier.sources import Inputs
    from ..classifier.train import train
    from ..loops import open_run

    open_run(args.output, config, resume=args.resume, force=args.force)
    inputs = Inputs(args.data, args.textures, args.plan, args.gan)
    _, result = train(config, inputs, args.output, resume=args.resume, log=sys.stderr, device=device)
    return json.dumps(result, indent=2)


def _configure(args: argparse.Namespace) -> ClassifierConfig:
    """The run's settings: the defaults, or on --resume the run's own, with what the command line changes."""
    settings: list[str] = []
    if args.resume:
        common.torch_or_error()
        from ..loops import stored_settings

        base = from_dict(stored_settings(args.output))
    else:
        for name in ("row", "variant"):
            if getattr(args, name) is None:
                raise ValueError(f"train: --{name} is not given, expected it for a new run.")
        base = ClassifierConfig(args.row, args.variant)
    names = ("row", "variant", "steps", "seed")
    settings += [
        f'{name}="{v}"' if isinstance(v, str) else f"{name}={v}"
        for name in names
        if (v := getattr(args, name)) is not None
    ]
    config = from_settings(base, [*settings, *args.set])
    if config.row in NEEDS_PLAN and args.plan is None:
        raise ValueError(f"train: --plan is not given, expected a CGN's plan for row {config.row}.")
    if config.row in NEEDS_GAN and args.gan is None:
        raise ValueError(f"train: --gan is not given, expected a trained GAN for row {config.row}.")
    return config
