"""`cgnrt-train gan`: the baseline "Original + GAN" of Table 2."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..mnist.config import VARIANTS
from . import common


def add(jobs: common.Jobs) -> None:
    """Add the job's sub-parser."""
    parser = jobs.add_parser(
        "gan",
        help="train the conditional GAN that Table 2 compares with",
        description="Train a conditional GAN of the CGN's size, without mechanisms, on an MNIST variant: where the "
        "row original+gan gets its images from. Prints the path of gan.pt; samples.png is beside it.",
    )
    parser.add_argument("--variant", choices=VARIANTS, help="which data; needed unless --resume")
    common.add_data(parser)
    common.add_output(parser)
    common.add_settings(parser, "steps of 64 images; 1,500 by default", "lr_generator=0.002")
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

    options = {name: name for name in ("variant", "steps", "seed")}
    config = common.run_settings(args, GanConfig, lambda: GanConfig(common.needed(args, "variant")), options)
    data = VariantMnist(config.variant, args.data, seed=config.seed, textures=args.textures)
    return train_gan(
        config, data, args.output, resume=args.resume, force=args.force, log=sys.stderr, device=device
    )
