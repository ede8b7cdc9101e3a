"""Photos with the masks of their objects, for the commands that take folders of them."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cgnrt._support.terminal import progress_bar, say
from cgnrt.backends.choice import BACKENDS
from cgnrt.real.photos import MAX_OBJECT, MIN_OBJECT

if TYPE_CHECKING:
    import numpy as np

    from cgnrt.real import Saliency
    from cgnrt.real.files import Found

_STEP = 16  # masks that are found between two moves of the progress bar
_SMALLEST = 32  # side of a photo


def add_photo_options(parser: argparse._ActionsContainer, *, size: int, required: bool = True) -> None:
    """Where the masks are, which photos are left out, and their size.

    Args:
      size: the default of --size.
      required: whether the command cannot do without masks.
    """
    source = parser.add_mutually_exclusive_group(required=required)
    source.add_argument(
        "--saliency",
        type=Path,
        metavar="PLAN",
        help="a plan that finds the photos' objects, which cgnrt-export makes of U2-Net's weights",
    )
    source.add_argument(
        "--masks",
        type=Path,
        metavar="FOLDER",
        help="grey pictures with the photos' names, PNGs for example: white is the object",
    )
    parser.add_argument(
        "--min-object",
        type=float,
        default=MIN_OBJECT,
        metavar="SHARE",
        help=f"leave out photos whose object covers less of the picture ({MIN_OBJECT})",
    )
    parser.add_argument(
        "--max-object",
        type=float,
        default=MAX_OBJECT,
        metavar="SHARE",
        help=f"leave out photos whose object covers more of the picture ({MAX_OBJECT})",
    )
    parser.add_argument(
        "--size", type=int, default=size, help=f"side that photos are cropped and scaled to ({size})"
    )
    parser.add_argument(
        "--strict", action="store_true", help="end at a photo that cannot be used, instead of leaving it out"
    )


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """What runs the plan of --saliency, where the command has no such options of its own."""
    names = ", ".join(entry.name for entry in BACKENDS.values() if "cpu" in entry.extras)
    parser.add_argument("--backend", default="auto", help=f"of the saliency: auto, {names}")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads (all cores)")


def check_photo_options(arguments: argparse.Namespace) -> None:
    """Refuse sizes and shares that no photo could have.

    Raises:
      ValueError: one is out of its range.
    """
    from cgnrt.real.photos import check_shares

    if arguments.size < _SMALLEST:
        raise ValueError(f"{arguments.command}: size is {arguments.size}, expected at least {_SMALLEST}.")
    check_shares(arguments.command, arguments.min_object, arguments.max_object)


def read_photos(arguments: argparse.Namespace, given: Sequence[Path]) -> Photos:
    """The photos at some paths that can be used, with their masks; the others are named on stderr.

    Raises:
      ValueError: fewer than two can be used; with --strict, one cannot.
    """
    from cgnrt import real
    from cgnrt.real.files import find_photos, pair_masks

    saliency = None
    if arguments.saliency is not None:
        saliency = real.Saliency(arguments.saliency, backend=arguments.backend, threads=arguments.threads)
    found = find_photos(given)
    _tell_others(found.others)
    masks = None if saliency is not None else pair_masks(found.photos, arguments.masks)
    photos = Photos(arguments.size, arguments.strict)
    photos.read(found, masks)
    if saliency is not None:
        photos.find_objects(saliency)
    photos.leave_unusable(arguments.min_object, arguments.max_object)
    if photos.left_out:
        say(f"Left out {len(photos.left_out)} of {len(found.photos)} photos.", sys.stderr)
    if len(photos.files) < 2:
        reasons = [f" Left out '{file}': {reason}" for file, reason in photos.left_out[:1]]
        raise ValueError(
            f"{arguments.command}: usable photos are {len(photos.files)}, expected at least 2 to exchange parts."
            f"{''.join(reasons)}"
        )
    return photos


class Photos:
    """The photos that can be used, cropped to their middle squares.

    Attributes:
      files: their paths.
      classes: the name of each one's class.
      images: (n, size, size, 3) uint8.
      masks: (n, 1, size, size): uint8 of files, float32 of a network.
      left_out: the others, with the reasons.
    """

    def __init__(self, size: int, strict: bool) -> None:
        import numpy as np

        self._size, self._strict = size, strict
        self.files: list[Path] = []
        self.classes: list[str] = []
        self.images = np.empty((0, size, size, 3), np.uint8)
        self.masks: np.ndarray = np.empty((0, 1, size, size), np.uint8)
        self.left_out: list[tuple[Path, str]] = []

    def read(self, found: Found, masks: Sequence[Path] | None) -> None:
        """Read the photos, and their masks if they are files."""
        import numpy as np

        from cgnrt._support.pictures import PictureError
        from cgnrt.real.files import hides_its_turn, read_mask, read_photo

        files = found.photos
        images = np.empty((len(files), *self.images.shape[1:]), np.uint8)
        planes = np.empty((0 if masks is None else len(files), *self.masks.shape[1:]), np.uint8)
        with progress_bar(len(files), unit="photo") as bar:
            for k, file in enumerate(files):
                at = len(self.files)
                try:
                    images[at], picture = read_photo(file, self._size)
                    if masks is not None:
                        planes[at, 0] = read_mask(masks[k], picture, self._size)
                        if hides_its_turn(picture):
                            say(
                                f"note {file}: EXIF turns it; its mask must be of the photo as shown",
                                sys.stderr,
                            )
                except PictureError as error:
                    self._leave_out(file, str(error))
                else:
                    self.files.append(file)
                    self.classes.append(found.classes[k])
                bar.update()
        self.images, self.masks = images[: len(self.files)], planes[: len(self.files)]

    def find_objects(self, saliency: Saliency) -> None:
        """Masks by a network, with a progress bar."""
        import numpy as np

        self.masks = np.empty((len(self.images), 1, self._size, self._size), np.float32)
        with progress_bar(len(self.images), unit="mask") as bar:
            for first in range(0, len(self.images), _STEP):
                part = slice(first, first + _STEP)
                self.masks[part] = saliency(self.images[part])
                bar.update(len(self.masks[part]))

    def leave_unusable(self, smallest: float, largest: float) -> None:
        """Leave out photos without an object of a share within these, or without a background beside it."""
        from cgnrt.real.photos import read_masks, unusable

        masks = read_masks(self.masks, len(self.files), (self._size, self._size), "read")
        reasons = [unusable(mask, smallest, largest) for mask in masks]
        for file, reason in zip(self.files, reasons, strict=True):
            if reason is not None:
                self._leave_out(file, reason)
        good = [k for k, reason in enumerate(reasons) if reason is None]
        if len(good) < len(reasons):
            self.files = [self.files[k] for k in good]
            self.classes = [self.classes[k] for k in good]
            self.images, self.masks = self.images[good], self.masks[good]

    def digest(self) -> str:
        """Of everything that the counterfactuals are made of."""
        digest = hashlib.sha256(self.images.data)
        digest.update(self.masks.data)
        digest.update(json.dumps(self.classes).encode())
        return digest.hexdigest()

    def _leave_out(self, file: Path, reason: str) -> None:
        if self._strict:
            raise ValueError(f"read '{file}': {reason}")
        self.left_out.append((file, reason))
        say(f"left out {file}: {reason}", sys.stderr)


def _tell_others(others: Sequence[Path]) -> None:
    """Say what in the folders is not read."""
    if others:
        kinds = {"folders" if path.is_dir() else path.suffix.lower() or "no suffix" for path in others}
        say(f"not read, since not called like photos: {len(others)} ({', '.join(sorted(kinds))})", sys.stderr)
