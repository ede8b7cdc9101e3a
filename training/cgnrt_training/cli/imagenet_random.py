"""`cgnrt-train imagenet-random`: an ImageNet CGN with random weights."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cgnrt._support.terminal import say

from . import common

RESOLUTIONS = (32, 64, 128, 256, 512)  # those of `imagenet.biggan.BLOCKS`, which needs torch


def add(jobs: common.Jobs) -> None:
    """Add the job's sub-parser."""
    parser = jobs.add_parser(
        "imagenet-random",
        help="write an ImageNet CGN with random weights, for tests and benchmarks",
        description="Write an ImageNet CGN (Sec. 3.1) with random weights and calibrated batch norms, as a cgn.pth "
        "that cgnrt-export reads: the true architecture and cost, where trained weights are not at hand. Its pictures "
        "show no objects. Prints the path of the file.",
    )
    parser.add_argument(
        "--resolution", type=int, choices=RESOLUTIONS, default=256, help="of the pictures; 256 by default"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the weights; 0 by default")
    parser.add_argument(
        "--channel-width",
        type=int,
        default=128,
        metavar="N",
        help="channels of each BigGAN's last block; 128, as published, by default",
    )
    parser.add_argument("--classes", type=int, default=1000, metavar="N", help="1000 by default")
    parser.add_argument(
        "--files",
        action="store_true",
        help="write what cgnrt-train imagenet starts from instead: a folder with biggan/, u2net.pth and vgg16_bn.pth, "
        "as narrow as --channel-width says",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="FILE",
        help="the file (with --files the folder) to write",
    )
    common.add_device(parser)
    common.add_threads(parser)
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> Path:
    """Draw, calibrate and write; returns the file's path."""
    if args.output.exists() and not args.force:
        what = "folder" if args.files else "file"
        raise common.UsageError(
            f"train '{args.output}': the {what} exists, expected a new one. Use --force or another name."
        )
    if not args.output.parent.is_dir():
        raise common.UsageError(
            f"train '{args.output}': folder '{args.output.parent}' is missing, expected one. Make it."
        )
    if not 0 <= args.seed < 2**63:
        raise common.UsageError(f"train: --seed is {args.seed}, expected 0..2**63 - 1.")
    if not 1 <= args.classes <= 1_000_000:
        raise common.UsageError(f"train: --classes is {args.classes}, expected 1..1000000.")
    common.set_threads(args.threads)
    device = common.open_device(args.device)

    from ..imagenet.calibrate import random_cgn
    from ..imagenet.checkpoints import save_cgn
    from ..natural.stand_ins import write_stand_ins

    sizes = {"seed": args.seed, "channel_width": args.channel_width, "num_classes": args.classes}
    try:
        if args.files:
            return write_stand_ins(args.output, args.resolution, **sizes, progress=_say, device=device)
        model = random_cgn(args.resolution, **sizes, progress=_say, device=device)
    except ValueError as error:
        raise common.UsageError(str(error)) from error
    _say(f"write {args.output}")
    save_cgn(model, args.output)
    _say("note: the weights are random: its pictures show no objects")
    path: Path = args.output
    return path


def _say(message: str) -> None:
    say(message, sys.stderr)
