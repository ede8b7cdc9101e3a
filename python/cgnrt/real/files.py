"""Photos and masks in files: which belong together, and what is in them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from cgnrt._support.pictures import SUFFIXES, Picture, PictureError, has_suffix, read_picture


@dataclass(frozen=True)
class Found:
    """What was found at the paths that a user gives.

    Attributes:
      photos: the files, sorted by name in each folder.
      classes: the class of each: the name of the sub-folder that it lies in or, without sub-folders, of its folder.
      others: what else is in the folders, which is not read.
    """

    photos: tuple[Path, ...]
    classes: tuple[str, ...]
    others: tuple[Path, ...]


def find_photos(given: Sequence[Path]) -> Found:
    """The given photos, those in the given folders, and those in folders of classes (as torchvision's ImageFolder).

    If a folder has photos, these are taken, and no sub-folders. Otherwise each sub-folder is a class, whose photos may
    lie deeper in it. Hidden sub-folders are not looked at.

    Raises:
      ValueError: a photo is missing, or a folder has no photos.
    """
    photos: list[tuple[Path, str]] = []
    others: list[Path] = []
    for path in given:
        if not path.is_dir():
            if not os.path.lexists(path):
                raise ValueError(f"read '{path}': file is missing, expected a picture. Check the path.")
            photos.append((path, path.resolve().parent.name))
            continue
        inside = sorted(path.iterdir())
        named = [file for file in inside if _is_photo(file)]
        folders = [file for file in inside if file.is_dir() and not file.name.startswith(".")]
        if named:
            photos += [(file, path.resolve().name) for file in named]
            others += [file for file in inside if not _is_photo(file)]
            continue
        _refuse_splits(path, folders)
        deeper = [(file, folder.name) for folder in folders for file in _files_below(folder)]
        if not any(_is_photo(file) for file, _ in deeper):
            raise ValueError(
                f"read '{path}': photos are missing, expected {', '.join(SUFFIXES)} files in the folder, or in "
                "a sub-folder for each class."
            )
        photos += [(file, name) for file, name in deeper if _is_photo(file)]
        others += [file for file in inside if file not in folders]
        others += [file for file, _ in deeper if not _is_photo(file)]
    return Found(tuple(file for file, _ in photos), tuple(name for _, name in photos), tuple(others))


def _is_photo(path: Path) -> bool:
    return has_suffix(path) and not path.is_dir()


def _files_below(folder: Path) -> Iterator[Path]:
    for place, inside, files in os.walk(folder):
        inside[:] = sorted(name for name in inside if not name.startswith("."))
        yield from (Path(place) / file for file in sorted(files))


def _refuse_splits(path: Path, folders: Sequence[Path]) -> None:
    """Refuse a data set's own folder, whose sub-folders are not classes but parts."""
    for folder in folders:
        if folder.name in ("train", "val", "test") and any(inside.is_dir() for inside in folder.iterdir()):
            raise ValueError(
                f"read '{path}': its sub-folders are parts of a data set ('{folder.name}'), expected photos or a "
                f"sub-folder for each class. Give '{folder}'."
            )


def pair_masks(photos: Sequence[Path], folder: Path) -> list[Path]:
    """The mask of each photo.

    It has the photo's name, or the photo's name without its suffix, and the suffix of any picture; a PNG comes first.
    Folders in `folder` that are called like the photo's own (`cat/more`, `more`) come before `folder` itself.

    Returns:
      Paths; those of photos without a mask do not exist.
    Raises:
      ValueError: there is no such folder, two photos have one mask, or a photo has two.
    """
    if not folder.is_dir():
        raise ValueError(f"read '{folder}': folder is missing, expected one with masks. Check the path.")
    known: dict[Path, dict[str, list[Path]]] = {}
    masks: list[Path] = []
    owners: dict[Path, Path] = {}
    for photo in photos:
        mask = folder / f"{photo.stem}.png"
        parent = photo.resolve().parent
        for place in (folder / parent.parent.name / parent.name, folder / parent.name, folder):
            if place not in known:
                known[place] = _by_stem(place)
            found = known[place].get(photo.name) or known[place].get(photo.stem) or []
            found = [path for path in found if not os.path.samefile(path, photo)]
            if found:
                mask = _only(photo, found)
                break
        owner = owners.setdefault(mask, photo)
        if owner != photo:
            raise ValueError(
                f"read '{mask}': this mask is of two photos, '{owner}' and '{photo}', expected one. Put the masks of "
                "each folder into a folder of its name, or call masks like their photos, suffix and all "
                f"('{photo.name}.png')."
            )
        masks.append(mask)
    return masks


def _by_stem(folder: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    if folder.is_dir():
        for path in sorted(folder.iterdir()):
            if has_suffix(path) and not path.name.startswith("._") and path.is_file():
                found.setdefault(path.stem, []).append(path)
    return found


def _only(photo: Path, found: Sequence[Path]) -> Path:
    first = [path for path in found if path.suffix.lower() == ".png"] or found
    if len(first) > 1:
        raise ValueError(
            f"read '{photo}': its masks are two, '{first[0]}' and '{first[1]}', expected one. Remove the other."
        )
    return first[0]


def read_photo(path: Path, size: int) -> tuple[np.ndarray, Picture]:
    """A photo's middle square, (size, size, 3) uint8, and the picture itself.

    Raises:
      PictureError: the file is not a picture that can be read.
    """
    picture = read_picture(path, "RGB")
    return square(picture, size), picture


def read_mask(
    path: Path, photo: Picture, size: int, resampling: Image.Resampling = Image.Resampling.LANCZOS
) -> np.ndarray:
    """A mask's middle square, (size, size) uint8.

    Raises:
      PictureError: the file is not a picture that can be read, or it has other proportions than the photo.
    """
    try:
        mask = read_picture(path, "L")
    except PictureError as error:
        raise PictureError(f"mask '{path}': {error}") from error
    if not _alike(photo.image.size, mask.image.size):
        seen, got = (f"{width} x {height}" for width, height in (photo.image.size, mask.image.size))
        reason = "Make the mask of the whole photo."
        if photo.orientation != 1 and _alike(photo.image.size, mask.image.size[::-1]):
            reason = "EXIF turns the photo: make the mask of the photo as it is shown, upright."
        raise PictureError(
            f"mask '{path}': width x height is {got}, expected the photo's {seen}, or the same proportions. {reason}"
        )
    return square(mask, size, resampling)


def hides_its_turn(photo: Picture) -> bool:
    """Whether a mask of the file's own frame would pass for one of the photo as it is shown."""
    width, height = photo.image.size
    return photo.orientation in (2, 3, 4) or (
        photo.orientation != 1 and _alike((width, height), (height, width))
    )


def _alike(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two sizes have the same proportions, except for the rounding of a pixel."""
    (width, height), (its_width, its_height) = one, other
    return abs(its_height * width - height * its_width) <= max(*one, *other)


def square(
    picture: Picture, size: int, resampling: Image.Resampling = Image.Resampling.LANCZOS
) -> np.ndarray:
    """A picture's middle square, (size, size, 3) or, of a mask, (size, size) uint8."""
    return np.asarray(ImageOps.fit(picture.image, (size, size), resampling))
