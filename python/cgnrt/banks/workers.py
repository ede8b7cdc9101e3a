"""Photos in worker processes, results in the order of the photos."""

from __future__ import annotations

import hashlib
import multiprocessing
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cgnrt._support.children import follow_parent
from cgnrt._support.pictures import PictureError
from cgnrt._support.reading import open_file
from cgnrt.banks.entries import Recipe
from cgnrt.errors import CgnrtError
from cgnrt.real import Saliency
from cgnrt.real.files import hides_its_turn, read_mask, read_photo

_AHEAD = 2  # tasks for each process that are made or wait


@dataclass(frozen=True)
class PhotoTask:
    """A photo file, its number among all, and the file of its mask; None: the network finds it."""

    number: int
    photo: Path
    mask: Path | None


@dataclass
class PhotoResult:
    """What was made of a photo.

    Attributes:
      sha256: of the file (hex); empty if it could not be read.
      pictures: by mechanism; empty if it was left out.
      left_out: why it was.
      turned: whether EXIF turns it in a way that a mask may have missed.
    """

    sha256: str = ""
    pictures: dict[str, np.ndarray] = field(default_factory=dict)
    left_out: str | None = None
    turned: bool = False


@dataclass(frozen=True)
class Maker:
    """Makes entries of photo files; pickles to worker processes."""

    recipe: Recipe
    size: int
    saliency: Saliency | None

    def make(self, tasks: Sequence[PhotoTask]) -> list[PhotoResult]:
        """The results of some photos, in their order."""
        results = [PhotoResult() for _ in tasks]
        images: dict[int, np.ndarray] = {}  # uint8 (size, size, 3), by place
        masks: dict[int, np.ndarray] = {}  # float32 (size, size)
        for place, (task, result) in enumerate(zip(tasks, results, strict=True)):
            try:
                images[place], picture = read_photo(task.photo, self.size)
                if task.mask is not None:
                    plane = read_mask(task.mask, picture, self.size)
                    masks[place] = plane.astype(np.float32) / np.float32(255)
                    result.turned = hides_its_turn(picture)
                result.sha256 = _file_hash(task.photo)
            except PictureError as error:
                images.pop(place, None)
                result.left_out = str(error)
        if self.saliency is not None and images:
            found = self.saliency(np.stack(list(images.values())))
            masks = dict(zip(images, found[:, 0], strict=True))
        for place, image in images.items():
            pixels = np.ascontiguousarray(image.transpose(2, 0, 1), np.float32)
            made = self.recipe.entry(pixels, masks[place], tasks[place].number)
            if isinstance(made, str):
                results[place].left_out = made
            else:
                results[place].pictures = made
        return results


def make_in_order(
    maker: Maker, tasks: Iterable[Sequence[PhotoTask]], processes: int
) -> Iterator[list[PhotoResult]]:
    """The results of each group of photos, in order, made by this process or by several others.

    Raises:
      CgnrtError: a worker was killed. An error in a worker is raised here too.
    """
    if processes == 1:
        yield from map(maker.make, tasks)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, context, initializer=_begin, initargs=(maker,))
    waiting: deque[Future[list[PhotoResult]]] = deque()
    try:
        for group in tasks:
            waiting.append(pool.submit(_make, group))
            if len(waiting) > _AHEAD * processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise CgnrtError(
            "bank: a worker process ended before its photos were finished. Run the same command again to go on; with "
            "fewer --processes if memory ran out."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


_maker: Maker | None = None  # of a worker process


def _begin(maker: Maker) -> None:
    global _maker
    follow_parent()
    _maker = maker


def _make(tasks: Sequence[PhotoTask]) -> list[PhotoResult]:
    assert _maker is not None
    return _maker.make(tasks)


def _file_hash(path: Path) -> str:
    try:
        with open_file(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:  # it was there a moment ago
        raise PictureError(f"file cannot be read ({error.strerror or error}), expected a picture.") from error
