"""`from_folders` and `from_arrays`: photos with masks of their objects, as banks."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cgnrt._support.files import refuse_existing
from cgnrt._support.machine import available_cores
from cgnrt._support.terminal import progress_bar
from cgnrt.banks.album import Album
from cgnrt.banks.entries import FAMILY, Recipe, contents
from cgnrt.banks.storage import Storage
from cgnrt.banks.unfinished import Shape, Unfinished, unfinished
from cgnrt.banks.workers import Maker, make_in_order
from cgnrt.plan import MECHANISMS, BankSource, write_bank
from cgnrt.plan.limits import MAX_RESOLUTION, MAX_STRING_CHARS
from cgnrt.real import Saliency

_GROUP = 4  # photos of one call of a worker
_MOST_PROCESSES = 16
_SMALLEST = 32  # side of a photo
_NAME_CHARS = 200  # of a class


@dataclass(frozen=True)
class PhotoBank:
    """What `from_folders` has made.

    Attributes:
      digest: of the plan.
      classes: the class names, in the order of their indices.
      used: the photos that are in it, class by class.
      left_out: the others, with the reasons.
    """

    digest: str
    classes: tuple[str, ...]
    used: tuple[Path, ...]
    left_out: tuple[tuple[Path, str], ...]


def from_folders(
    path: str | os.PathLike[str],
    photos: Sequence[str | os.PathLike[str]] | str | os.PathLike[str],
    *,
    saliency: Saliency | str | os.PathLike[str] | None = None,
    masks: str | os.PathLike[str] | None = None,
    size: int = 224,
    texture: str = Recipe.texture,
    seed: int = Recipe.seed,
    min_object: float = Recipe.min_object,
    max_object: float = Recipe.max_object,
    licence: str | None = None,
    processes: int | None = None,
    backend: str = "auto",
    threads: int | None = None,
    store: str = "raw",
    quality: int | None = None,
    force: bool = False,
    note: Callable[[str], object] = lambda text: None,
) -> PhotoBank:
    """Write a plan of photos: their masks, their objects' textures, and their backgrounds without the objects.

    A run that is stopped keeps what it has made in a folder beside `path`, `<name>.unfinished`, and the same call goes
    on with it. The folder needs as much room as the plan.

    Args:
      path: the plan to make.
      photos: folders with a sub-folder for each class, folders that are a class, or photos.
      saliency: finds their objects; a plan of such a network, or a `cgnrt.real.Saliency`.
      masks: a folder of masks instead, as for `cgnrt real --masks`.
      size: side in pixels; photos are cropped to their middle square.
      texture, seed, min_object, max_object: what is made of a photo, see `cgnrt.banks.Recipe`.
      licence: the photos' licence, which the plan then says.
      processes: None is as many as there are cores, up to 16. They are spawned: a script that calls this needs
        `if __name__ == "__main__":`.
      backend, threads: of the saliency network's engine in each process, if `saliency` is a path.
      store, quality: how the plan stores the pictures, see `cgnrt.plan.write_bank`.
      force: replace an existing file, and start again where a run with other photos or options was stopped.
      note: called with messages: which photo is left out, and why.
    Raises:
      CgnrtError: the file exists; another run was stopped here; the disk has too little room, or was full.
      PlanError: the saliency plan cannot be read.
      TypeError, ValueError: an argument is not as above; two folders are one class; a class has no photo that can be
        used.
    """
    target = Path(path)
    recipe = Recipe(texture, seed, min_object, max_object)
    storage = Storage(store, quality)
    if not _SMALLEST <= size <= MAX_RESOLUTION:
        raise ValueError(f"bank: size is {size}, expected {_SMALLEST}..{MAX_RESOLUTION}.")
    if (saliency is None) == (masks is None):
        raise ValueError("bank: both or none of saliency and masks are given, expected one of them.")
    if licence is not None and not 1 <= len(licence) <= MAX_STRING_CHARS:
        raise ValueError(
            f"bank: licence has {len(licence)} characters, expected 1..{MAX_STRING_CHARS}. Name it only."
        )
    if processes is not None and processes < 1:
        raise ValueError(f"bank: processes is {processes}, expected at least 1.")
    refuse_existing(target, force=force)
    given = [photos] if isinstance(photos, str | os.PathLike) else list(photos)
    album = Album.find([Path(one) for one in given], None if masks is None else Path(masks), note)
    groups = -(-len(album.tasks) // _GROUP)
    several = min(processes or min(available_cores(), _MOST_PROCESSES), groups)
    if saliency is not None and not isinstance(saliency, Saliency):
        shared = max(1, available_cores() // several)
        saliency = Saliency(saliency, backend=backend, threads=shared if threads is None else threads)
    run = _PhotoRun(album, Maker(recipe, size, saliency), licence, storage, note)
    return run.to(target, several, force)


class _PhotoRun:
    """One run: what is made of an album."""

    def __init__(
        self,
        album: Album,
        maker: Maker,
        licence: str | None,
        storage: Storage,
        note: Callable[[str], object],
    ) -> None:
        self._album, self._maker, self._licence = album, maker, licence
        self._storage, self._note = storage, note
        self._taken = 0  # photos whose results are known
        self._photos = np.bincount(album.labels, minlength=len(album.classes))  # of each class, still to come
        self._usable = np.zeros(len(album.classes), np.int64)
        self._first_reasons: dict[int, str] = {}
        side = maker.size
        self._shapes: dict[str, Shape] = {m: (1 if m == "shape" else 3, side, side) for m in MECHANISMS}

    def to(self, target: Path, processes: int, force: bool) -> PhotoBank:
        """Make what is missing, and write the plan."""
        tasks = self._album.tasks
        with unfinished(target, self._settings(), self._shapes, force=force) as run:
            self._take(list(_flat(run.notes)), run)
            done = self._taken
            run.require_room(dict.fromkeys(self._shapes, len(tasks) - done), target)
            groups = [tasks[first : first + _GROUP] for first in range(done, len(tasks), _GROUP)]
            with progress_bar(len(tasks), initial=done, unit="photo") as bar:
                made = make_in_order(self._maker, groups, min(processes, len(groups)) or 1)
                for group, results in zip(groups, made, strict=True):
                    for task, result in zip(group, results, strict=True):
                        if result.turned:
                            self._note(
                                f"note {task.photo}: EXIF turns it; its mask must be of the photo as shown"
                            )
                    good = [result.pictures for result in results if result.left_out is None]
                    pictures = {name: np.stack([one[name] for one in good]) for name in self._shapes if good}
                    told = [(result.sha256, result.left_out) for result in results]
                    run.add(pictures, told)
                    self._take(told, run)
                    bar.update(len(group))
            run.flush()
            return self._write(target, run, force)

    def _settings(self) -> dict[str, Any]:
        """Everything that the entries depend on."""
        saliency = self._maker.saliency
        found = None if saliency is None else [saliency.plan.digest, saliency.backend, saliency.precision]
        return {
            "photos": self._album.fingerprint(),
            "classes": list(self._album.classes),
            "size": self._maker.size,
            "saliency": found,
            **asdict(self._maker.recipe),
        }

    def _take(self, results: Sequence[tuple[str, str | None]], run: Unfinished) -> None:
        """Say what is left out, and refuse a class as soon as all of its photos are.

        Args:
          results: of the photos that follow those before: a file's SHA-256, and why it is left out or None.
        """
        album = self._album
        for _, left_out in results:
            task, label = album.tasks[self._taken], album.labels[self._taken]
            self._taken += 1
            if left_out is None:
                self._usable[label] += 1
            else:
                self._note(f"left out {task.photo}: {left_out}")
                self._first_reasons.setdefault(int(label), f"Left out '{task.photo}': {left_out}.")
            self._photos[label] -= 1
            if not self._photos[label] and not self._usable[label]:
                run.drop()
                raise ValueError(
                    f"bank: no photo of class '{album.classes[label]}' can be used, expected at least one. "
                    f"{self._first_reasons[int(label)]} Add photos, give masks, or leave the class out."
                )

    def _write(self, target: Path, run: Unfinished, force: bool) -> PhotoBank:
        album, recipe, saliency = self._album, self._maker.recipe, self._maker.saliency
        results = list(_flat(run.notes))
        good = [k for k, (_, left_out) in enumerate(results) if left_out is None]
        labels = album.labels[good]
        content = hashlib.sha256("".join(results[k][0] for k in good).encode()).hexdigest()
        source = BankSource(album.title, len(good), content, self._licence)
        pictures = {name: run.pictures(name) for name in MECHANISMS}
        parts = contents(pictures, labels, album.classes, (source,), recipe)
        sources = [
            {"name": album.title, "sha256": content, "texture": recipe.texture, "seed": str(recipe.seed)}
        ]
        if saliency is not None:
            sources.append(
                {"name": saliency.plan.manifest.family, "sha256": saliency.plan.digest, "for": "masks"}
            )
        with run.writing_plan(target):
            digest = write_bank(
                target,
                shape=parts["shape"],
                texture=parts["texture"],
                background=parts["background"],
                family=FAMILY,
                sources=sources,
                store=self._storage.store,
                quality=self._storage.quality,
                force=force,
            )
        left_out = tuple(
            (task.photo, result[1])
            for task, result in zip(album.tasks, results, strict=True)
            if result[1] is not None
        )
        return PhotoBank(digest, album.classes, tuple(album.tasks[k].photo for k in good), left_out)


def _flat(notes: Sequence[Sequence[Any]]) -> Iterator[Any]:
    """A result for each photo, of notes that have those of several."""
    return (result for note in notes for result in note)
