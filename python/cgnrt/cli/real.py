"""`cgnrt real`: counterfactuals of a folder of photos."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgnrt._support.files import refuse_existing, written_beside
from cgnrt._support.terminal import progress_bar, say
from cgnrt.cli.arguments import Commands
from cgnrt.cli.photos import Photos, add_engine_options, add_photo_options, check_photo_options, read_photos
from cgnrt.plan.limits import STREAM_VERSION
from cgnrt.real.donors import DONORS
from cgnrt.real.sets import SETS, parse_sets

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from cgnrt.real import Counterfactuals, Exchange
    from cgnrt.real.sets import TestSets

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
    parser.add_argument("-n", type=int, help="counterfactuals, or pictures of each set (one for each photo)")
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
        "--sets",
        metavar="NAMES",
        help=f"make test sets instead, a folder for each with a sub-folder for each class: all, or some of "
        f"{','.join(SETS)}",
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
    sets = _sets(arguments)
    as_sheet = arguments.output.suffix.lower() == ".png"
    if as_sheet:
        refuse_existing(arguments.output, force=arguments.force)
    else:
        for folder in [arguments.output / name for name in sets] or [arguments.output]:
            refuse_foreign(folder, force=arguments.force)
    photos = read_photos(arguments, arguments.photos)
    n = len(photos.files) if arguments.n is None else arguments.n
    if sets:
        makers = _test_sets(arguments, photos, sets)
        write_sets = _write_sets_sheet if as_sheet else _write_sets
        write_sets(arguments, photos, makers, sets, n)
        say(arguments.output)
        return
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

    from cgnrt.real.folder import writing

    settings = _settings(arguments, photos, n, swap=list(_swap(arguments)), donors=arguments.donors)
    with (
        writing(arguments.output, settings, force=arguments.force) as folder,
        progress_bar(n, initial=n - len(folder.missing), unit="image") as bar,
    ):
        for numbers in _steps(folder.missing):
            batch = exchange(seed=arguments.seed, indices=numbers, threads=arguments.threads or 0)
            for image, parts, number in zip(batch.images, batch.index, numbers.tolist(), strict=True):
                files, classes = ([which[part] for part in parts] for which in (photos.files, photos.classes))
                folder.add(number, image, arguments.seed, files, classes)
                bar.update()
            folder.flush()
        folder.finish()


def _sets(arguments: argparse.Namespace) -> tuple[str, ...]:
    """The names of the test sets that are to be made, if any.

    Raises:
      ValueError: a name is not a set's, or options do not go with sets.
    """
    if arguments.sets is None:
        return ()
    for name, default in (("swap", "both"), ("donors", "any")):
        if getattr(arguments, name) != default:
            raise ValueError(
                f"real: --{name} is not supported with --sets: every set has its own. Leave it out."
            )
    return parse_sets(arguments.sets)


def _test_sets(arguments: argparse.Namespace, photos: Photos, sets: Sequence[str]) -> TestSets:
    from cgnrt.real.parts import Grids, Parts
    from cgnrt.real.photos import read_masks, read_pictures
    from cgnrt.real.sets import TestSets

    labels = _class_numbers(photos.classes, "same" if "mixed_same" in sets else "any")
    pictures = read_pictures(photos.images, "real")
    masks = read_masks(photos.masks, len(pictures), pictures.size, "real")
    parts = Parts(pictures, masks, Grids(), filled=True, operation="real")
    return TestSets(parts, labels, arguments.seed, arguments.threads or 0)


def _write_sets(
    arguments: argparse.Namespace, photos: Photos, makers: TestSets, sets: Sequence[str], n: int
) -> None:
    """A folder for each set, with a sub-folder for each class."""
    from cgnrt.real.folder import picture_name, writing

    def name_of(number: int) -> str:
        return f"{photos.classes[number % len(photos.classes)]}/{picture_name(number)}"

    settings = _settings(arguments, photos, n)
    with progress_bar(n * len(sets), unit="image") as bar:
        for name in sets:
            target = arguments.output / name
            with writing(target, settings | {"set": name}, force=arguments.force, name_of=name_of) as folder:
                bar.update(n - len(folder.missing))
                for numbers in _steps(folder.missing):
                    images, index = makers.make(name, numbers)
                    for image, row, number in zip(images, index.tolist(), numbers.tolist(), strict=True):
                        files = ["" if k < 0 else photos.files[k] for k in row]
                        classes = ["" if k < 0 else photos.classes[k] for k in row]
                        folder.add(number, image, arguments.seed, files, classes)
                        bar.update()
                    folder.flush()
                folder.finish()


def _write_sets_sheet(
    arguments: argparse.Namespace, photos: Photos, makers: TestSets, sets: Sequence[str], n: int
) -> None:
    """A row for each set, a column for each photo."""
    import numpy as np

    from cgnrt.sheets import picture_grid

    numbers = np.arange(arguments.start, arguments.start + n)
    rows = [list(makers.make(name, numbers)[0]) for name in sets]
    with written_beside(arguments.output, force=arguments.force) as beside:
        picture_grid(rows, sets, arguments.tile).save(beside, format="PNG")


def _settings(arguments: argparse.Namespace, photos: Photos, n: int, **kind: Any) -> dict[str, Any]:
    """What the pictures of a folder depend on."""
    return {
        "start": arguments.start,
        "n": n,
        "seed": arguments.seed,
        **kind,
        "size": arguments.size,
        "photos": photos.digest(),
        "stream_version": STREAM_VERSION,
    }


def _steps(missing: Sequence[int]) -> Iterator[np.ndarray]:
    """Numbers of pictures that are made at a time."""
    import numpy as np

    for first in range(0, len(missing), _STEP):
        yield np.array(missing[first : first + _STEP], np.int64)


def _swap(arguments: argparse.Namespace) -> tuple[str, ...]:
    return _PARTS if arguments.swap == "both" else (arguments.swap,)
