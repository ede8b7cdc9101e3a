"""`cgnrt-train photos`: a folder of photos and their masks, packed for training."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..photos.pack import pack_photos
from . import common

if TYPE_CHECKING:
    from ..photos.masks import MaskSource


def add(jobs: common.Jobs) -> None:
    """Add the job's sub-parser."""
    parser = jobs.add_parser(
        "photos",
        help="pack a folder of photos, and find their masks, for training on them",
        description="Pack a folder of photos for training: each is scaled to --size and its middle square kept, its "
        "mask is taken from a folder or found by a network. Photos that are broken or smaller are named and left out. "
        "Prints the pack's path. The same command started again goes on where it was stopped.",
    )
    parser.add_argument(
        "--images",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="a sub-folder for each class, with photos; or train/ and val/, which have them",
    )
    parser.add_argument("--size", type=int, default=64, metavar="N", help="side in pixels; 64 by default")
    add_masks(parser)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="the pack")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads; all cores by default")
    parser.add_argument("--force", action="store_true", help="replace a pack of other photos, size or masks")
    parser.set_defaults(run=run, goes_on=True)


def add_masks(parser: argparse.ArgumentParser) -> None:
    """`--saliency` or `--masks`: for `mask_source`."""
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--saliency",
        type=Path,
        metavar="PLAN",
        help="find masks by this plan, which cgnrt-export u2netp.pth wrote",
    )
    source.add_argument(
        "--masks",
        type=Path,
        metavar="FOLDER",
        help="grey pictures with the photos' names and folders: white is the object",
    )


def mask_source(args: argparse.Namespace) -> MaskSource | None:
    """Where masks come from; None for none.

    Raises:
      PlanError, BackendError, ValueError: the plan or the folder will not do.
    """
    from ..photos.masks import FoundMasks, MaskFolder

    if args.masks is not None:
        return MaskFolder(args.masks)
    if args.saliency is not None:
        from cgnrt.real import Saliency

        return FoundMasks(Saliency(args.saliency, threads=args.threads))
    return None


def run(args: argparse.Namespace) -> Path:
    """Pack; returns the pack's path."""
    return pack_photos(
        args.images, args.output, args.size, mask_source(args), force=args.force, log=sys.stderr
    )
