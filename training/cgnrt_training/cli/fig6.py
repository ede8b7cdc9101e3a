"""`cgnrt-train fig6`: a beta-VAE on colored MNIST."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import common


def add(jobs: common.Jobs) -> None:
    """Add the job's sub-parser."""
    parser = jobs.add_parser(
        "fig6",
        help="Fig. 6: a beta-VAE that does not disentangle colour and shape",
        description="Fig. 6 (App. A.1): train a beta-VAE on colored MNIST, draw its latent space, and measure what "
        "changes along its axes. Prints the path of fig6.json; the table and the plot are beside it.",
    )
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="the original MNIST IDX files, .gz or not"
    )
    common.add_output(parser)
    parser.add_argument("--latents", type=int, metavar="N", help="latent dimensions; 2 by default")
    parser.add_argument("--beta", type=float, metavar="X", help="weight of the KL term; 4 by default")
    common.add_settings(parser, "steps of 128 images; 3,000 by default", "hidden=200")
    common.add_device(parser)
    common.add_threads(parser)
    common.add_again(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> Path:
    """Run the experiment; returns the path of its JSON file."""
    common.set_threads(args.threads)
    device = common.open_device(args.device)

    from ..experiments import fig6
    from ..mnist.vae import VaeConfig

    names = {name: name for name in ("latents", "beta", "steps", "seed")}
    config = common.run_settings(args, VaeConfig, VaeConfig, names)
    # What gives the result from nothing.
    command = [word for word in sys.argv[1:] if word not in ("--resume", "--force")]
    options = fig6.Fig6(args.data, args.output, config, args.resume, args.force, device, command)
    return fig6.run(options, sys.stderr)
