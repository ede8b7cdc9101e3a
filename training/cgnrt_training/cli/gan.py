"""`cgnrt-train gan`: the baseline "Original + GAN" of Table 2."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..config import VARIANTS
from . import common


def add(jobs: common.Jobs) -> None:
    """Add the job's sub-parser."""
    parser = jobs.add_parser(
        "gan",
        help="train the conditional GAN that Table 2 compares with",
        description="Train a conditional GAN of the CGN's size, without mechanisms, on an MNIST variant: where the "
        "row original+gan gets its images from. Prints the path of gan.pt; samples.png is beside it.",
    )
    parser.add_argument("--variant", choices=VARIANTS, required=True, help="which data")
    common.add_data(parser)
    common.add_output(parser)
    parser.add_argument("--steps", type=int, metavar="N", help="steps of 64 images; 1,500 by default")
    parser.add_argument(
        "--seed", type=int, metavar="N", help="of weights, data order and noise; 0 by default"
    )
    common.add_device(parser)
    common.add_threads(parser)
    common.add_again(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> Path:
    """Train; returns the path of the checkpoint."""
    common.set_threads(args.threads)
    device = common.open_device(args.device)

    from ..mnist.data import VariantMnist
    from ..mnist.gan import GanConfig, train_gan

    given = {key: getattr(args, key) for key in ("steps", "seed") if getattr(args, key) is not None}
    try:
        config = GanConfig(args.variant, **given)
    except ValueError as error:
        raise common.UsageError(str(error)) from error
    textures = args.textures if args.variant == "wildlife" else None
    data = VariantMnist(config.variant, args.data, seed=config.seed, textures=textures)
    return train_gan(
        config, data, args.output, resume=args.resume, force=args.force, log=sys.stderr, device=device
    )
