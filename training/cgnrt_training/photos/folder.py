"""A folder of photos, one sub-folder a class (torchvision's ImageFolder layout): which files are photos of what."""

from __future__ import annotations

import hashlib
import json
import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cgnrt._support.pictures import SUFFIXES, has_suffix
from cgnrt.plan.names import alike, refused_character

SPLITS = ("train", "val")
FEWEST = 2  # photos of a class that one can train on
LONGEST_NAME = 200  # of a class, in characters
_NAMED = 5  # files that a message names


@dataclass(frozen=True)
class Entry:
    """A photo's file.

    Attributes:
      name: its path in the folder of its split, with forward slashes.
      label: index of its class.
    """

    path: Path
    name: str
    label: int


@dataclass(frozen=True)
class PhotoFolder:
    """What a folder holds.

    Attributes:
      classes: the sub-folders' names in Unicode's composed form, sorted.
      parts: the folder of each split: "train", and "val" if there is one.
      splits: the photos of each, by class, then by name.
      others: files in the folders of classes that are not called like pictures, and are not read.
    """

    path: Path
    classes: tuple[str, ...]
    parts: Mapping[str, Path]
    splits: Mapping[str, tuple[Entry, ...]]
    others: tuple[Path, ...]

    def fingerprint(self) -> str:
        """A digest of the names, sizes and times of the photos: another one if the folder is changed."""
        return fingerprint(
            (f"{split}/{entry.name}", entry.path)
            for split, entries in self.splits.items()
            for entry in entries
        )


def scan_photos(folder: Path) -> PhotoFolder:
    """Find the photos of a folder, without reading them.

    Args:
      folder: has a sub-folder for each class; or `train`, and `val` if there are photos to test on, which have them.
        Photos may lie deeper in the folder of a class. Hidden files and folders are not looked at.
    Raises:
      ValueError: there are no folders of classes, a class has too few photos, or `val` has other classes than `train`.
    """
    if not folder.is_dir():
        raise ValueError(f"photos '{folder}': folder is missing, expected one with photos. Check the path.")
    parts = {"train": folder}
    if _folders(folder / "train"):
        parts = {split: folder / split for split in SPLITS if (folder / split).is_dir()}
    classes = tuple(_folders(parts["train"]))
    if not classes:
        raise ValueError(
            f"photos '{parts['train']}': folders of classes are missing, expected one sub-folder for each class. "
            "Put the photos of each class into a folder that is called as the class."
        )
    _check_names(parts["train"], classes)
    splits: dict[str, tuple[Entry, ...]] = {}
    others: list[Path] = []
    for split, part in parts.items():
        found = _folders(part)
        if tuple(found) != classes:
            raise ValueError(_differ(part, tuple(found), classes))
        splits[split] = tuple(_entries(found, others))
        check_counts(part, splits[split], classes, 1 if split == "val" else FEWEST)
    return PhotoFolder(folder, classes, parts, splits, tuple(others))


def check_counts(folder: Path, entries: Sequence[Entry], classes: Sequence[str], fewest: int) -> None:
    """Refuse a class of too few photos.

    Raises:
      ValueError: naming each such class.
    """
    counts = [0] * len(classes)
    for entry in entries:
        counts[entry.label] += 1
    few = [f"'{name}' has {count}" for name, count in zip(classes, counts, strict=True) if count < fewest]
    if few:
        kinds = ", ".join(suffix.removeprefix(".") for suffix in SUFFIXES)
        raise ValueError(
            f"photos '{folder}': number of photos of class {shortened(few)}, expected at least {fewest} ({kinds}). "
            "Add photos, or remove the folder of the class."
        )


def fingerprint(files: Iterable[tuple[str, Path]]) -> str:
    """A digest of files' names, sizes and times; their order counts."""
    digest = hashlib.sha256()
    for name, path in files:
        status = path.stat()
        digest.update(json.dumps([name, status.st_size, status.st_mtime_ns]).encode() + b"\n")
    return digest.hexdigest()


def shortened(items: Sequence[object]) -> str:
    """Some of the items for a message, and how many more there are."""
    shown = ", ".join(map(str, items[:_NAMED]))
    return shown if len(items) <= _NAMED else f"{shown} and {len(items) - _NAMED} more"


def _folders(folder: Path) -> dict[str, Path]:
    """The folders of classes by the classes' names, sorted by these."""
    if not folder.is_dir():
        return {}
    found = [path for path in folder.iterdir() if path.is_dir() and not _hidden(path)]
    named = [(unicodedata.normalize("NFC", path.name), path) for path in found]
    return dict(sorted(named))


def _check_names(folder: Path, classes: Sequence[str]) -> None:
    """Refuse names that a plan could not have, before hours of training.

    Raises:
      ValueError: naming one.
    """
    for name in classes:
        if refused_character(name) is not None or len(name) > LONGEST_NAME:
            raise ValueError(
                f"photos '{folder}': name of a class is {name!a:.80}, expected at most {LONGEST_NAME} characters that "
                "can be printed. Rename the folder."
            )
    if (pair := alike(classes)) is not None:
        raise ValueError(
            f"photos '{folder}': names of classes are {pair[0]!a:.80} and {pair[1]!a:.80}, which look the same, "
            "expected names that people can tell apart. Rename a folder."
        )


def _hidden(path: Path) -> bool:
    return path.name.startswith(".")


def _entries(folders: Mapping[str, Path], others: list[Path]) -> Iterator[Entry]:
    for label, folder in enumerate(folders.values()):
        for place, inside, files in os.walk(folder):
            inside[:] = sorted(entry for entry in inside if not entry.startswith("."))
            for path in (Path(place) / file for file in sorted(files)):
                if has_suffix(path) and not _hidden(path):
                    yield Entry(path, path.relative_to(folder.parent).as_posix(), label)
                else:
                    others.append(path)


def _differ(folder: Path, found: Sequence[str], classes: Sequence[str]) -> str:
    missing = [f"'{name}'" for name in classes if name not in found]
    more = [f"'{name}'" for name in found if name not in classes]
    faults = [f"{shortened(missing)} missing"] * bool(missing) + [f"{shortened(more)} besides"] * bool(more)
    return (
        f"photos '{folder}': folders of classes are others than those of train ({'; '.join(faults)}), expected the "
        "same. Rename, add or remove folders."
    )
