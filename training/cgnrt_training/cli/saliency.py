"""`cgnrt-train saliency`: a small network that finds objects, for CGNs of small pictures."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..saliency.config import MAY_CHANGE, SaliencyConfig
from . import common


def add(jobs: common.Jobs) -> None:
    """Add the job's sub-parser."""
    parser = jobs.add_parser(
        "saliency",
        help="train a small network that finds objects, for a CGN of small pictures",
        description="Train a small U-Net to find the objects of packed photos as their masks have them. It is the "
        "shape's head and the judge of backgrounds of a CGN of small pictures (cgnrt-train imagenet --u2net), where "
        "U2-Net, which needs 320 px, finds nothing; cgnrt-export makes it a plan for cgnrt real. The photos of val "
        "judge it, or a tenth of train if the pack has no val. Prints the path of saliency.pt; sheet.png is beside it.",
    )
    parser.add_argument(
        "--photos",
        type=Path,
        required=True,
        metavar="PACK",
        help="photos with masks, as cgnrt-train photos packs them; their side is a multiple of 16 px",
    )
    common.add_output(parser)
    common.add_settings(parser, "steps of 32 photos; 6,000 by default", "train.width=16")
    common.add_device(parser)
    common.add_threads(parser)
    common.add_again(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> Path:
    """Train; returns the path of the checkpoint."""
    common.set_threads(args.threads)
    device = common.open_device(args.device)

    from ..photos.pack import open_photos, read_about
    from ..saliency.train import train

    config = common.run_settings(
        args,
        SaliencyConfig,
        SaliencyConfig,
        {"steps": "train.steps", "seed": "train.seed"},
        may_change=MAY_CHANGE,
    )
    judged = open_photos(args.photos, "val") if "val" in read_about(args.photos)["splits"] else None
    return train(
        config,
        open_photos(args.photos),
        args.output,
        judged=judged,
        resume=args.resume,
        force=args.force,
        log=sys.stderr,
        device=device,
    )
