"""`--judge` and `--judge-classes`: a classifier that no training used."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cgnrt._support.terminal import say

from . import common

if TYPE_CHECKING:
    import torch

    from ..photos.pack import Photos
    from ..scoring.judge import Judge

_MOST_PHOTOS = 2000  # that a linear probe is trained on


def add_judge(parser: argparse.ArgumentParser) -> None:
    """The two options."""
    parser.add_argument(
        "--judge",
        type=Path,
        metavar="FILE",
        help="an EfficientNet-Lite that no training used: says whether pictures show their class",
    )
    parser.add_argument(
        "--judge-classes",
        metavar="CLASS,CLASS",
        help="ImageNet's indices or names for the classes, in their order; by default the classes' own names where "
        "ImageNet has each of them, else the judge learns the classes from photos (a linear probe)",
    )


def open_judge(
    args: argparse.Namespace, classes: Sequence[str], photos: Photos | None, device: torch.device
) -> Judge | None:
    """The judge that is asked for, of these classes; None if none is.

    Args:
      photos: that a linear probe is trained on.
    Raises:
      UsageError: ImageNet does not have all the classes, and no photos are given.
      CheckpointError: the file is unreadable or of another network.
    """
    if args.judge is None:
        return None
    from ..features.files import load_classifier
    from ..scoring.judge import Judge, indices_of, parse_classes
    from ..scoring.pictures import choose

    try:
        given = args.judge_classes
        indices = indices_of(classes) if given is None else parse_classes(given, len(classes))
        classifier = load_classifier(args.judge).to(device)
        classifier.depth = classifier.MAPS
        if indices is not None:
            judge = Judge.of_indices(classifier, indices)
        elif photos is not None:
            judge = Judge.of_photos(classifier, *choose(photos, _MOST_PHOTOS), len(classes))
        else:
            raise ValueError(
                "judge: ImageNet has no classes of these names, expected --photos to learn the classes from, or "
                "--judge-classes."
            )
    except ValueError as error:
        raise common.UsageError(str(error)) from error
    say(f"judge: {classifier.label}, {judge.label}", sys.stderr)
    return judge
