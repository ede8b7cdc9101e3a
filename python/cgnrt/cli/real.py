"""`cgnrt real`: counterfactuals of a folder of photos."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cgnrt._support.files import refuse_existing, written_beside
from cgnrt._support.terminal import progress_bar, say
from cgnrt.backends.choice import BACKENDS
from cgnrt.cli.arguments import Commands
from cgnrt.errors import CgnrtError
from cgnrt.plan import MECHANISMS

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from cgnrt.real import Counterfactuals, Saliency

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
_STEP = 16  # counterfactuals that are made between two moves of the progress bar
_PARTS = ("texture", "background")
_SHEET_ROWS = ("shape", "mask", "texture", "background", "result")


def add_parser(commands: Commands) -> None:
    parser = commands.add_parser("real", help="exchange textures and backgrounds between photos")
    parser.add_argument("photos", type=Path, nargs="+", help="photos, or folders of photos")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--saliency", type=Path, metavar="PLAN", help="a plan that finds their objects")
    source.add_argument(
        "--masks", type=Path, metavar="FOLDER", help="grey PNGs with the photos' names: white is the object"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        help="a .png for a sheet, else a folder of PNGs with index.csv",
    )
    parser.add_argument("-n", type=int, help="counterfactuals (one for each photo)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=int, default=0, help="first sample of the stream (0)")
    parser.add_argument(
        "--swap", choices=(*_PARTS, "both"), default="both", help="what other photos give (both)"
    )
    parser.add_argument(
        "--size", type=int, default=256, help="side that photos are cropped and scaled to (256)"
    )
    parser.add_argument("--tile", type=int, default=128, help="pixels of a picture's side on a sheet (128)")
    names = ", ".join(entry.name for entry in BACKENDS.values() if "cpu" in entry.extras)
    parser.add_argument("--backend", default="auto", help=f"of the saliency: auto, {names}")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--force", action="store_true", help="replace existing files")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    """Find the objects, exchange parts, write the images."""
    from cgnrt import real

    if arguments.size < 32 or arguments.tile < 8:
        raise ValueError(
            f"real: size is {arguments.size} and tile {arguments.tile}, expected at least 32 and 8."
        )
    as_sheet = arguments.output.suffix.lower() == ".png"
    _refuse_target(arguments.output, as_sheet, arguments.force)
    saliency = None
    if arguments.saliency is not None:
        saliency = real.Saliency(arguments.saliency, backend=arguments.backend, threads=arguments.threads)
    files = _files(arguments.photos)
    photos = _read(files, arguments.size)
    masks = (
        _read_masks(files, arguments.masks, arguments.size) if saliency is None else _find(saliency, photos)
    )
    good = real.usable(masks)
    for file in (file for file, fine in zip(files, good, strict=True) if not fine):
        say(f"left out {file}: no object, or no background beside it", sys.stderr)
    files = [file for file, fine in zip(files, good, strict=True) if fine]
    photos, masks = photos[good], masks[good]
    if len(files) < 2:
        raise ValueError(f"real: usable photos are {len(files)}, expected at least 2 to exchange parts.")
    n = len(files) if arguments.n is None else arguments.n
    if n < 1:
        raise ValueError(f"real: n is {n}, expected at least 1.")
    if as_sheet:
        _write_sheet(arguments, photos, masks, n)
    else:
        _write_folder(arguments, files, photos, masks, n)
    say(arguments.output)


def _refuse_target(target: Path, as_sheet: bool, force: bool) -> None:
    if as_sheet:
        refuse_existing(target, force=force)
    elif target.is_dir():
        if not force and any(target.iterdir()):
            raise CgnrtError(
                f"write '{target}': the folder has files in it, expected an empty or a new one. "
                "Pass --force to replace those of the same names."
            )
    elif target.exists():
        raise CgnrtError(f"write '{target}': it is a file, expected a folder, or a name that ends in .png.")


def _files(given: Sequence[Path]) -> list[Path]:
    """The given photos, and those in the given folders, sorted by name in each folder."""
    files: list[Path] = []
    for path in given:
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in _SUFFIXES and p.is_file())
            if not inside:
                raise ValueError(
                    f"real '{path}': photos are missing, expected {', '.join(_SUFFIXES)} files in the folder."
                )
            files += inside
        else:
            files.append(path)
    return files


def _read(files: Sequence[Path], size: int) -> np.ndarray:
    """Photos cropped to their middle square, (n, size, size, 3) uint8."""
    import numpy as np

    return np.stack([_square(file, "RGB", size) for file in files])


def _read_masks(files: Sequence[Path], folder: Path, size: int) -> np.ndarray:
    import numpy as np

    masks = [_square(folder / f"{file.stem}.png", "L", size) for file in files]
    return np.stack(masks)[:, None].astype(np.float32) / np.float32(255)


def _square(file: Path, mode: str, size: int) -> np.ndarray:
    import numpy as np
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(file) as image:
            upright = ImageOps.exif_transpose(image).convert(mode)
            return np.asarray(ImageOps.fit(upright, (size, size), Image.Resampling.LANCZOS))
    except FileNotFoundError:
        raise ValueError(f"real '{file}': file is missing, expected a picture. Check the path.") from None
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise ValueError(f"real '{file}': file is unreadable ({error}), expected a picture.") from error


def _find(saliency: Saliency, photos: np.ndarray) -> np.ndarray:
    """Masks, with a progress bar."""
    import numpy as np

    found = []
    with progress_bar(len(photos), unit="mask") as bar:
        for first in range(0, len(photos), _STEP):
            found.append(saliency(photos[first : first + _STEP]))
            bar.update(len(found[-1]))
    return np.concatenate(found)


def _write_sheet(arguments: argparse.Namespace, photos: np.ndarray, masks: np.ndarray, n: int) -> None:
    from cgnrt import real

    batch = real.counterfactuals(
        photos, masks, seed=arguments.seed, n=n, start=arguments.start, swap=_swap(arguments)
    )
    with written_beside(arguments.output, force=arguments.force) as beside:
        _sheet(batch, photos, masks, arguments.tile).save(beside, format="PNG")


def _sheet(batch: Counterfactuals, photos: np.ndarray, masks: np.ndarray, tile: int) -> Image.Image:
    """A column for each counterfactual: the photos that gave its parts, the mask of its shape, and the result."""
    import numpy as np

    from cgnrt.sheets import picture_grid

    shape, texture, background = batch.index.T
    grey = np.rint(masks[shape].transpose(0, 2, 3, 1) * 255).astype(np.uint8)
    rows = [photos[shape], np.repeat(grey, 3, axis=3), photos[texture], photos[background], batch.images]
    return picture_grid([list(row) for row in rows], _SHEET_ROWS, tile)


def _write_folder(
    arguments: argparse.Namespace, files: Sequence[Path], photos: np.ndarray, masks: np.ndarray, n: int
) -> None:
    from PIL import Image

    from cgnrt import real

    folder: Path = arguments.output
    rows: list[list[object]] = []
    with progress_bar(n, unit="image") as bar:
        for first in range(arguments.start, arguments.start + n, _STEP):
            count = min(_STEP, arguments.start + n - first)
            batch = real.counterfactuals(
                photos, masks, seed=arguments.seed, n=count, start=first, swap=_swap(arguments)
            )
            for image, parts, index in zip(batch.images, batch.index, batch.indices, strict=True):
                name = f"{index:06d}.png"
                with written_beside(folder / name, force=arguments.force) as beside:
                    Image.fromarray(image).save(beside, format="PNG")
                rows.append([name, int(index), arguments.seed, *(files[part] for part in parts)])
            bar.update(count)
    _write_index(folder / "index.csv", rows, arguments.force)


def _write_index(target: Path, rows: Iterable[list[object]], force: bool) -> None:
    with (
        written_beside(target, force=force) as beside,
        beside.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["file", "index", "seed", *MECHANISMS])
        writer.writerows(rows)


def _swap(arguments: argparse.Namespace) -> tuple[str, ...]:
    return _PARTS if arguments.swap == "both" else (arguments.swap,)
