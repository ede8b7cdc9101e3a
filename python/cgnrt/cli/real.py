"""`cgnrt real`: counterfactuals of a folder of photos."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgnrt._support.files import refuse_existing, written_beside
from cgnrt._support.terminal import progress_bar, say
from cgnrt.cli.arguments import Commands
from cgnrt.cli.photos import Photos, add_engine_options, add_photo_options, check_photo_options, read_photos
from cgnrt.plan.limits import STREAM_VERSION
from cgnrt.real.donors import DONORS

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from cgnrt.real import Counterfactuals, Exchange

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
    add_photo_options(parser, size=256)
    add_engine_options(parser)
    parser.add_argument("--tile", type=int, default=128, help="pixels of a picture's side on a sheet (128)")
    parser.add_argument("--force", action="store_true", help="replace existing files")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    """Find the objects, exchange parts, write the images."""
    from cgnrt import real
    from cgnrt.real.folder import refuse_foreign
    from cgnrt.sampling import check_seed, check_span

    if arguments.tile < 8:
        raise ValueError(f"real: tile is {arguments.tile}, expected at least 8.")
    if arguments.n is not None and arguments.n < 1:
        raise ValueError(f"real: n is {arguments.n}, expected at least 1.")
    check_photo_options(arguments)
    check_seed(arguments.seed)
    check_span(arguments.n or 0, arguments.start)
    as_sheet = arguments.output.suffix.lower() == ".png"
    if as_sheet:
        refuse_existing(arguments.output, force=arguments.force)
    else:
        refuse_foreign(arguments.output, force=arguments.force)
    photos = read_photos(arguments, arguments.photos)
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


def _write_sheet(arguments: argparse.Namespace, photos: Photos, exchange: Exchange, n: int) -> None:
    batch = exchange(seed=arguments.seed, n=n, start=arguments.start, threads=arguments.threads or 0)
    with written_beside(arguments.output, force=arguments.force) as beside:
        _sheet(batch, photos, arguments.tile).save(beside, format="PNG")


def _sheet(batch: Counterfactuals, photos: Photos, tile: int) -> Image.Image:
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


def _write_folder(arguments: argparse.Namespace, photos: Photos, exchange: Exchange, n: int) -> None:
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
