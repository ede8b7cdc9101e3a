"""`cgnrt-train score`: how good a cGAN's, a CGN's or real pictures are."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from . import common
from .judging import add_judge, open_judge


def add(jobs: common.Jobs) -> None:
    """Add the job's sub-parser."""
    parser = jobs.add_parser(
        "score",
        help="measure pictures of a cGAN, a CGN or a pack of photos",
        description="Draw pictures of every class and measure them: the share in which a judge sees their class, the "
        "Inception score over the classes, and LPIPS between pictures of a class, as a share of that between photos. "
        "Prints JSON.",
    )
    parser.add_argument(
        "what",
        type=Path,
        metavar="FILE",
        help="cgan.pt or cgn.pt of a run, a BigGAN-deep, or a pack of photos",
    )
    parser.add_argument(
        "--photos",
        type=Path,
        metavar="PACK",
        help="real photos of the classes, which cgnrt-train photos wrote",
    )
    add_judge(parser)
    parser.add_argument(
        "--squeezenet", type=Path, metavar="FILE", help="torchvision's SqueezeNet 1.1, for LPIPS"
    )
    parser.add_argument("--lpips", type=Path, metavar="FILE", help="squeeze.pth of LPIPS 0.1")
    parser.add_argument("--samples", type=int, default=1000, metavar="N", help="1,000 by default")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the noise; 0 by default")
    parser.add_argument(
        "--truncation", type=float, default=1.0, metavar="T", help="of the noise; 1 by default"
    )
    common.add_device(parser)
    common.add_threads(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> str:
    """Measure; returns JSON."""
    if args.samples < 1:
        raise common.UsageError(f"score: --samples is {args.samples}, expected >= 1.")
    if not 0.02 <= args.truncation <= 1:
        raise common.UsageError(f"score: --truncation is {args.truncation:g}, expected 0.02..1.")
    if not 0 <= args.seed < 2**63:
        raise common.UsageError(f"score: --seed is {args.seed}, expected 0..2**63 - 1.")
    if (args.squeezenet is None) != (args.lpips is None):
        raise common.UsageError("score: one of --squeezenet and --lpips is missing, expected both for LPIPS.")
    if args.judge is None and args.lpips is None:
        raise common.UsageError("score: --judge and --lpips are missing, expected one of them.")
    common.set_threads(args.threads)
    device = common.open_device(args.device)

    from ..natural.pictures import classes_of, draw, load_model
    from ..photos.pack import open_photos
    from ..photos.writing import ABOUT
    from ..scoring.lpips import Lpips
    from ..scoring.measure import measure
    from ..scoring.pictures import choose, held_out_photos

    pack = args.what if (args.what / ABOUT).is_file() else args.photos
    train = None if pack is None else open_photos(pack)
    if pack == args.what and train is not None:
        classes = train.classes
        pictures = choose(held_out_photos(pack), args.samples, seed=args.seed)
    else:
        model = load_model(args.what).to(device)
        classes = classes_of(model)
        if train is not None and train.classes != classes:
            raise common.UsageError(
                f"score: classes of '{pack}' are {', '.join(train.classes)}, expected {', '.join(classes)} as "
                f"'{args.what}' has."
            )
        pictures = draw(model, args.samples, seed=args.seed, truncation=args.truncation)
    judge = open_judge(args, classes, train, device)
    lpips = None if args.lpips is None else Lpips(args.squeezenet, args.lpips).to(device)
    photos = (
        None if pack is None or lpips is None else choose(held_out_photos(pack), args.samples, seed=args.seed)
    )
    return json.dumps(measure(pictures, judge, lpips, photos).to_dict())
