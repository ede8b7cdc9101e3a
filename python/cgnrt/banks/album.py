"""Which photos a bank is made of, and their classes."""

from __future__ import annotations

import hashlib
import json
import os
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cgnrt.banks.workers import PhotoTask
from cgnrt.errors import printable
from cgnrt.plan.names import alike, refused_character
from cgnrt.real.files import find_photos, pair_masks

_NAME_CHARS = 200  # of a class


@dataclass(frozen=True)
class Album:
    """The photos of a bank, class by class.

    Attributes:
      labels: the class of each, rising.
    """

    classes: tuple[str, ...]
    tasks: tuple[PhotoTask, ...]
    labels: np.ndarray
    title: str

    @classmethod
    def find(cls, given: Sequence[Path], masks: Path | None, note: Callable[[str], object]) -> Album:
        """The photos at the given paths; errors as for `from_folders`."""
        found: list[tuple[str, Path]] = []
        folders: dict[str, Path] = {}
        others: list[Path] = []
        for path in given:
            here = find_photos([path])
            others += here.others
            for photo in here.photos:
                folder = _class_folder(path, photo)
                name = unicodedata.normalize("NFC", folder.name)
                if folders.setdefault(name, folder) != folder:
                    raise ValueError(
                        f"bank: the folders '{folders[name]}' and '{folder}' are both of a class '{name}', expected "
                        "one folder for each class. Rename one, or move its photos into the other."
                    )
                found.append((name, photo))
        classes = tuple(sorted(folders))
        number = {name: label for label, name in enumerate(classes)}
        _check_names(folders)
        found.sort(key=lambda pair: pair[0])  # stable: the order within a class is that of the files' names
        files = [photo for _, photo in found]
        if len({photo.resolve() for photo in files}) < len(files):
            raise ValueError(
                "bank: a photo is given twice, expected each once. Give no folder within another."
            )
        if others:
            kinds = {"folders" if path.is_dir() else path.suffix.lower() or "no suffix" for path in others}
            note(f"not read, since not called like photos: {len(others)} ({', '.join(sorted(kinds))})")
        paired: Sequence[Path | None] = [None] * len(files) if masks is None else pair_masks(files, masks)
        tasks = tuple(PhotoTask(k, *pair) for k, pair in enumerate(zip(files, paired, strict=True)))
        labels = np.array([number[name] for name, _ in found], np.int64)
        title = ", ".join(sorted({path.resolve().name for path in given}))
        return cls(classes, tasks, labels, printable(title, keep="")[:1000])

    def fingerprint(self) -> str:
        """Of the files: names, sizes and times, which are known without reading them."""
        files = [path for task in self.tasks for path in (task.photo, task.mask) if path is not None]
        digest = hashlib.sha256()
        for path in files:
            try:
                found = path.stat()
                known: list[Any] = [found.st_size, found.st_mtime_ns]
            except OSError:
                known = []
            digest.update(json.dumps([os.fsencode(path.absolute()).hex(), *known]).encode())
        return digest.hexdigest()


def _class_folder(given: Path, photo: Path) -> Path:
    """The folder that names a photo's class."""
    if not given.is_dir():
        return photo.resolve().parent
    inside = photo.relative_to(given).parts
    return (given if len(inside) == 1 else given / inside[0]).resolve()


def _check_names(folders: dict[str, Path]) -> None:
    """Refuse folders whose names no class may have, before the work.

    Raises:
      ValueError: one has such a name, or two look the same.
    """
    for name, folder in folders.items():
        if not 1 <= len(name) <= _NAME_CHARS or refused_character(name) is not None:
            raise ValueError(
                f"bank '{folder}': its name cannot be a class name, expected 1..{_NAME_CHARS} characters that are "
                "seen. Rename the folder."
            )
    if (pair := alike(folders)) is not None:
        one, other = (folders[name] for name in pair)
        raise ValueError(
            f"bank: the names of '{one}' and '{other}' look the same, expected names that people can tell apart. "
            "Rename one."
        )
