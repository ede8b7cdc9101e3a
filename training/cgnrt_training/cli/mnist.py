"""`cgnrt-train mnist`: a CGN on an MNIST variant."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..mnist.config import MAY_CHANGE, RECIPES, VARIANTS, Config, reference
from ..settings import load_toml, recipes
from . import common


def add(jobs: common.Jobs) -> None:
    """Add the job's sub-parser."""
    parser = jobs.add_parser(
        "mnist",
        help="train a CGN on an MNIST variant",
        description="Train a CGN on colored, double-colored or Wildlife MNIST (Sec. 4.1, App. A.2). Prints "
        "the path of the checkpoint, which cgnrt-export reads.",
    )
    parser.add_argument("--variant", choices=VARIANTS, help="which data; needed unless --resume")
    common.add_data(parser)
    common.add_output(parser)
    common.add_settings(parser, "steps of 16 images; 46,875 by default", "loss.binary=0.3")
    parser.add_argument(
        "--config",
        metavar="FILE",
        help=f"TOML with other settings, or a recipe: {', '.join(recipes(RECIPES)) or 'none'}",
    )
    parser.add_argument(
        "--perceptual-weights",
        type=Path,
        metavar="FILE",
        help="SqueezeNet 1.1 state dict (torchvision's names) for the perceptual loss; off without",
    )
    common.add_device(parser)
    common.add_threads(parser)
    common.add_again(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> Path:
    """Train; returns the checkpoint's path."""
    common.set_threads(args.threads)
    device = common.open_device(args.device)
    config = _settings(args)

    from ..mnist.data import VariantMnist
    from ..mnist.train import train

    data = VariantMnist(config.variant, args.data, seed=config.train.seed, textures=args.textures)
    return train(
        config,
        data,
        args.output,
        perceptual_weights=args.perceptual_weights,
        resume=args.resume,
        force=args.force,
        log=sys.stderr,
        device=device,
    )


def _settings(args: argparse.Namespace) -> Config:
    try:
        toml = load_toml(args.config, RECIPES) if args.config else {}
    except ValueError as error:
        raise common.UsageError(str(error)) from error
    config = common.run_settings(
        args,
        Config,
        lambda: reference(common.needed(args, "variant")),
        {"steps": "train.steps", "seed": "train.seed"},
        toml=toml,
        may_change=MAY_CHANGE,
    )
    if args.variant not in (None, config.variant):
        raise common.UsageError(
            f"train '{args.output}': variant is {config.variant}, expected {args.variant} as asked."
        )
    return config
