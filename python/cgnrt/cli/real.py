"""`cgnrt real`: counterfactuals of a folder of photos."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgnrt._support.files import refuse_existing, written_beside
from cgnrt._support.terminal import progress_bar, say
from cgnrt.backends.choice import BACKENDS
from cgnrt.cli.arguments import Commands
from cgnrt.plan.limits import STREAM_VERSION
from cgnrt.real.donors import DONORS
from cgnrt.real.photos import MAX_OBJECT, MIN_OBJECT

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from cgnrt.real import Counterfactuals, Exchange, Saliency
    from cgnrt.real.files import Found

_STEP = 16  # counterfactuals that are made between two moves of the progress bar
_PARTS = ("texture", "background")
_SHEET_ROWS = ("shape", "mask", "texture", "background", "result")


def add_parser(commands: Commands) -> None:
    parser = commands.add_parser("real", help="exchange textures and backgrounds between photos")
    parser.add_argument(
        "photos",
        type=Path,
        nargs="+",
        help="photos (JPEG, PNG, WebP, BMP, TIFF, GIF), folders of them, or folders with a sub-folder for each "
        "class",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--saliency", type=Path, metavar="PLAN", help="a plan that finds their objects")
    source.add_argument(
        "--masks",
        type=Path,
        metavar="FOLDER",
        help="grey pictures with the photos' names, PNGs for example: white is the object",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        help="a .png for a sheet, else a folder of PNGs with index.csv; a run that was stopped goes on",
    )
    parser.add_argument("-n", type=int, help="counterfactuals (one for each photo)")
    parser.add_argument("--seed", type=int, default=0, help="number of the stream (0)")
    parser.add_argument("--start", type=int, default=0, help="first sample of the stream (0)")
    parser.add_argument(
        "--swap", choices=(*_PARTS, "both"), default="both", help="what other photos give (both)"
    )
    parser.add_argument(
        "--donors",
        choices=DONORS,
        default="any",
        help="photos that give parts: any other one, only those of the same class, or only those of another class; "
        "the class is the name of a photo's folder (any)",
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
        "--size", type=int, default=256, help="side that photos are cropped and scaled to (256)"
    )
    parser.add_argument("--tile", type=int, default=128, help="pixels of a picture's side on a sheet (128)")
    names = ", ".join(entry.name for entry in BACKENDS.values() if "cpu" in entry.extras)
    parser.add_argument("--backend", default="auto", help=f"of the saliency: auto, {names}")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads (all cores)")
    parser.add_argument(
        "--strict", action="store_true", help="end at a photo that cannot be used, instead of leaving it out"
    )
    parser.add_argument("--force", action="store_true", help="replace existing files")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    """Find the objects, exchange parts, write the images."""
    from cgnrt import real
    from cgnrt.real.files import find_photos, pair_masks
    from cgnrt.real.folder import refuse_foreign
    from cgnrt.real.photos import check_shares
    from cgnrt.sampling import check_seed, check_span

    if arguments.size < 32 or arguments.tile < 8:
        raise ValueError(
            f"real: size is {arguments.size} and tile {arguments.tile}, expected at least 32 and 8."
        )
    if arguments.n is not None and arguments.n < 1:
        raise ValueError(f"real: n is {arguments.n}, expected at least 1.")
    check_shares("real", arguments.min_object, arguments.max_object)
    check_seed(arguments.seed)
    check_span(arguments.n or 0, arguments.start)
    as_sheet = arguments.output.suffix.lower() == ".png"
    if as_sheet:
        refuse_existing(arguments.output, force=arguments.force)
    else:
        refuse_foreign(arguments.output, force=arguments.force)
    saliency = None
    if arguments.saliency is not None:
        saliency = real.Saliency(arguments.saliency, backend=arguments.backend, threads=arguments.threads)
    found = find_photos(arguments.photos)
    _tell_others(found.others)
    masks = None if saliency is not None else pair_masks(found.photos, arguments.masks)
    photos = _Photos(arguments.size, arguments.strict)
    photos.read(found, masks)
    if saliency is not None:
        photos.find_objects(saliency)
    photos.leave_unusable(arguments.min_object, arguments.max_object)
    if photos.left_out:
        say(f"Left out {len(photos.left_out)} of {len(found.photos)} photos.", sys.stderr)
    if len(photos.files) < 2:
        reasons = [f" Left out '{file}': {reason}" for file, reason in photos.left_out[:1]]
        raise ValueError(
            f"real: usable photos are {len(photos.files)}, expected at least 2 to exchange parts.{''.join(reasons)}"
        )
    n = len(photos.files) if arguments.n is None else arguments.n
    exchange = real.Exchange(
        photos.images,
        photos.masks,
        swap=_swap(arguments),
        labels=_class_numbers(photos.classes, arguments.donors),
        donors=arguments.donors,
    )
    if as_sheet:
        _write_sheet(arguments, photos, exchange, n)
    else:
        _write_folder(arguments, photos, exchange, n)
    say(arguments.output)


def _tell_others(others: Sequence[Path]) -> None:
    """Say what in the folders is not read."""
    if others:
        kinds = {"folders" if path.is_dir() else path.suffix.lower() or "no suffix" for path in others}
        say(f"not read, since not called like photos: {len(others)} ({', '.join(sorted(kinds))})", sys.stderr)


def _class_numbers(classes: Sequence[str], donors: str) -> np.ndarray:
    """A number for each class, after a check that every photo has a donor."""
    import numpy as np

    names, numbers, counts = np.unique(classes, return_inverse=True, return_counts=True)
    if donors == "other" and len(names) < 2:
        raise ValueError(
            f"real: donors is 'other', but all usable photos are of class '{names[0]}', expected at least 2 classes. "
            "Give a folder with a sub-folder for each class."
        )
    if donors == "same" and counts.min() < 2:
        raise ValueError(
            f"real: donors is 'same', but class '{names[counts.argmin()]}' has 1 usable photo, expected at least 2 of "
            "each class. Add photos of it, or leave the class out."
        )
    return numbers


class _Photos:
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

        masks = read_masks(self.masks, len(self.files), (self._size, self._size), "real")
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
            raise ValueError(f"real '{file}': {reason}")
        self.left_out.append((file, reason))
        say(f"left out {file}: {reason}", sys.stderr)


def _write_sheet(arguments: argparse.Namespace, photos: _Photos, exchange: Exchange, n: int) -> None:
    batch = exchange(seed=arguments.seed, n=n, start=arguments.start, threads=arguments.threads or 0)
    with written_beside(arguments.output, force=arguments.force) as beside:
        _sheet(batch, photos, arguments.tile).save(beside, format="PNG")


def _sheet(batch: Counterfactuals, photos: _Photos, tile: int) -> Image.Image:
    """A column for each counterfactual: the photos that gave its parts, the mask of its shape, and the result."""
    import numpy as np

    from cgnrt.sheets import picture_grid

    shape, texture, background = batch.index.T
    grey = photos.masks[shape].transpose(0, 2, 3, 1)
    if grey.dtype != np.uint8:
        grey = np.rint(grey * 255).astype(np.uint8)
    images = photos.images
    rows = [images[shape], np.repeat(grey, 3, axis=3), images[texture], images[background], batch.images]
    return picture_grid([list(row) for row in rows], _SHEET_ROWS, tile)


def _write_folder(arguments: argparse.Namespace, photos: _Photos, exchange: Exchange, n: int) -> None:
    import numpy as np

    from cgnrt.real.folder import writing

    settings: dict[str, Any] = {
        "start": arguments.start,
        "n": n,
        "seed": arguments.seed,
        "swap": list(_swap(arguments)),
        "donors": arguments.donors,
        "size": arguments.size,
        "photos": photos.digest(),
        "stream_version": STREAM_VERSION,
    }
    with (
        writing(arguments.output, settings, force=arguments.force) as folder,
        progress_bar(n, initial=n - len(folder.missing), unit="image") as bar,
    ):
        for first in range(0, len(folder.missing), _STEP):
            numbers = np.array(folder.missing[first : first + _STEP], np.int64)
            batch = exchange(seed=arguments.seed, indices=numbers, threads=arguments.threads or 0)
            for image, parts, number in zip(batch.images, batch.index, numbers.tolist(), strict=True):
                files, classes = ([which[part] for part in parts] for which in (photos.files, photos.classes))
                folder.add(number, image, arguments.seed, files, classes)
                bar.update()
            folder.flush()
        folder.finish()


def _swap(arguments: argparse.Namespace) -> tuple[str, ...]:
    return _PARTS if arguments.swap == "both" else (arguments.swap,)
