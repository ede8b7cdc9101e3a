"""What images are made of: photos, their objects, and their backgrounds without the objects."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from cgnrt import ops
from cgnrt._support.forking import ForkLock
from cgnrt.real.fill import Rectangle, fill_from, free_rectangle
from cgnrt.real.photos import Masks, Pictures, has_object
from cgnrt.real.textures import WORKING_SIZE, shrink

_KEPT_BYTES = 1 << 30  # of what was made of photos and may be used again

Form = dict[str, Any]  # options of `ops.compose` and `ops.patch_grid`: what is made of the pixels


@dataclass(frozen=True)
class Grids:
    """How patch grids are made of objects (App. C.2).

    Attributes:
      working_size: side of the pictures that patches are cut from, scaled bicubically (128 in the authors' code).
      patch, grid, top: see `ops.patch_grid`.
    """

    working_size: int = WORKING_SIZE
    patch: int = 15
    grid: int = 6
    top: int = 100


class Parts:
    """The parts of photos, put together by index.

    Backgrounds without their objects, and photos at the working size, are made when they are first needed and kept (up
    to 1 GiB of each). Images and masks are not copied, and must not change.

    Args:
      filled: whether backgrounds without their objects will be needed, so that every photo must have enough background.
      operation: the first word of a message.
    Raises:
      ValueError: a mask has no object, or too little background.
    """

    def __init__(
        self, pictures: Pictures, masks: Masks, grids: Grids, *, filled: bool, operation: str
    ) -> None:
        self.pictures, self.masks, self.grids = pictures, masks, grids
        self._rectangles = _rectangles(masks, filled, operation)
        self._grounds, self._working = _Kept(), _Kept()

    def __len__(self) -> int:
        """The number of photos."""
        return len(self.pictures)

    def own_form(self, threads: int) -> Form:
        """Images like the photos: their dtype, layout and range."""
        pictures = self.pictures
        return {
            "dtype": pictures.dtype,
            "layout": pictures.layout,
            "clamp": pictures.range,
            "threads": threads,
        }

    def objects(
        self,
        index: np.ndarray,
        out: np.ndarray,
        form: Form,
        *,
        filled: bool = True,
        grounds: np.ndarray | None = None,
        place: np.ndarray | None = None,
    ) -> None:
        """Write photos' objects over backgrounds (Eq. 2).

        Args:
          index: (n, 3), the photos of shape, texture and background. The last column is not used with `grounds`.
          filled: of backgrounds: without their objects, or the photos as they are.
          grounds: (3, h, w) float32, one background for all, instead of photos'.
          place: (n, 4) float32, where the objects go, see `ops.compose`.
        """
        (shapes, textures, backgrounds), rows = _unique(index)
        if grounds is not None:
            rows[:, 2] = 0
        pool = self._pool(backgrounds, filled) if grounds is None else grounds[None]
        masks, pixels = self.masks.values(shapes), self.pictures.pixels(textures)
        ops.compose(masks, pixels, pool, rows, place=place, out=out, **form)

    def textures(
        self, index: np.ndarray, picks: np.ndarray, out: np.ndarray, form: Form, *, filled: bool = True
    ) -> None:
        """Write photos' shapes, with patch grids of other photos' objects in them, over backgrounds.

        Args:
          index, filled: as for `objects`.
          picks: (n, grid * grid), see `ops.patch_grid`.
        """
        (shapes, textures, backgrounds), rows = _unique(index)
        working = np.stack(self._working.of(textures, partial(self._shrink, threads=form["threads"])))
        ops.patch_grid(
            np.ascontiguousarray(working[:, :1]),
            np.ascontiguousarray(working[:, 1:]),
            picks,
            rows,
            size=self.pictures.size,
            patch=self.grids.patch,
            grid=self.grids.grid,
            top=self.grids.top,
            over=(self.masks.values(shapes), self._pool(backgrounds, filled)),
            out=out,
            **form,
        )

    def backgrounds(self, photos: np.ndarray) -> np.ndarray:
        """Photos without their objects, float32 (n, 3, h, w) in the photos' range."""
        kept = self._grounds.of(photos, self._fill)
        return np.stack(kept) if kept else np.empty((0, 3, *self.pictures.size), np.float32)

    def _pool(self, photos: np.ndarray, filled: bool) -> np.ndarray:
        return self.backgrounds(photos) if filled else self.pictures.pixels(photos)

    def _fill(self, photos: np.ndarray) -> list[np.ndarray]:
        """Backgrounds without their objects, (3, h, w) each."""
        pixels, masks = self.pictures.pixels(photos), self.masks.values(photos)
        found = []
        for photo, picture, mask in zip(photos, pixels, masks, strict=True):
            rectangle = self._rectangles[photo]
            assert rectangle is not None
            found.append(fill_from(picture, mask[0], rectangle))
        return found

    def _shrink(self, photos: np.ndarray, threads: int) -> list[np.ndarray]:
        """Mask and photo at the size from which patches are cut, (4, s, s) each."""
        masks, pixels = self.masks.values(photos), self.pictures.pixels(photos)
        return list(shrink(masks, pixels, self.grids.working_size, self.pictures.range, threads))


class _Kept:
    """Arrays made of photos, of which the latest used are kept."""

    def __init__(self) -> None:
        self._arrays: OrderedDict[int, np.ndarray] = OrderedDict()  # the one used longest ago first
        self._bytes = 0
        self._lock = ForkLock()

    def of(self, photos: np.ndarray, make: Callable[[np.ndarray], list[np.ndarray]]) -> list[np.ndarray]:
        """The array of each photo. `make` gives those of the photos that have none yet."""
        with self._lock:
            missing = np.array([photo for photo in photos.tolist() if photo not in self._arrays], np.int64)
            made = dict(zip(missing.tolist(), make(missing), strict=True)) if len(missing) else {}
            for photo, array in made.items():
                self._arrays[photo] = array
                self._bytes += array.nbytes
            for photo in photos.tolist():
                self._arrays.move_to_end(photo)
            found = [self._arrays[photo] for photo in photos.tolist()]
            while self._bytes > _KEPT_BYTES:
                self._bytes -= self._arrays.popitem(last=False)[1].nbytes
            return found

    def __reduce__(self) -> tuple[Any, ...]:
        return _Kept, ()


def _unique(index: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """The photos of each column of (n, 3), each once, and the rows of their places, (n, 3)."""
    used = [np.unique(column, return_inverse=True) for column in index.T]
    return [photos for photos, _ in used], np.ascontiguousarray(np.stack([places for _, places in used], 1))


def _rectangles(masks: Masks, filled: bool, operation: str) -> list[Rectangle | None]:
    """The largest rectangle of each photo without its object, where it will be needed.

    Raises:
      ValueError: a mask has no object, or too little background.
    """
    found: list[Rectangle | None] = []
    for photo, mask in enumerate(masks):
        if not has_object(mask):
            raise ValueError(
                f"{operation} masks: the maximum of masks[{photo}] is {mask.max():.3g}, expected an object "
                "(at least 0.5). Leave out photos that cgnrt.real.usable refuses."
            )
        found.append(free_rectangle(mask) if filled else None)
        if filled and found[-1] is None:
            raise ValueError(
                f"{operation} masks: the background of masks[{photo}] is too small, expected a rectangle without "
                "object of at least 1/16 of height and width. Leave out photos that cgnrt.real.usable refuses."
            )
    return found
