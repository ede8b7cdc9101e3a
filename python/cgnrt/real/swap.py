"""The exchange: chooses the photos that give each part, and makes the images."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from cgnrt import ops
from cgnrt._support.forking import ForkLock
from cgnrt._support.values import host_array
from cgnrt.real.donors import PARTS, Donors
from cgnrt.real.fill import Rectangle, fill_from, free_rectangle
from cgnrt.real.photos import Masks, has_object, read_masks, read_pictures
from cgnrt.sampling import Labels, patch_picks, resolve_indices, resolve_seed

_CHUNK_PIXELS = 64 * 256 * 256  # of results made at a time, which limits the memory needed beside them
_KEPT_BYTES = 1 << 30  # of what was made of photos and may be used again


@dataclass(frozen=True)
class Counterfactuals:
    """A batch of counterfactuals of photos.

    Attributes:
      images: uint8 or float32, with the photos' layout and range.
      index: (n, 3) int64, the photos that gave shape, texture and background.
      labels: the labels of these photos; None if no labels were given.
      seed: of the stream.
      indices: (n,) int64, the numbers of the samples in the stream.
    """

    images: np.ndarray
    index: np.ndarray
    labels: Labels | None
    seed: int
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)


def counterfactuals(
    images: Any,
    masks: Any,
    *,
    seed: int | None = None,
    n: int | None = None,
    start: int = 0,
    indices: Any = None,
    swap: str | Sequence[str] = PARTS,
    labels: Any = None,
    donors: str = "any",
    range: Sequence[float] | None = None,
    working_size: int = 128,
    patch: int = 15,
    grid: int = 6,
    top: int = 100,
    threads: int = 0,
) -> Counterfactuals:
    """Exchange textures and backgrounds between photos.

    Sample i has the shape (the place and outline of the object) of photo ``i % len(images)``. If backgrounds are
    swapped, its background is another photo's, whose object is filled in (`fill_object`). If textures are swapped, its
    texture is a patch grid (App. C.2) of another photo's object, blended in through the shape's mask (Eq. 2); otherwise
    it is the object itself. ``swap="background"`` is Mixed-Rand of Table 4, and with ``donors="same"`` Mixed-Same.
    All photos and masks are checked in every call: for many batches of the same photos make an `Exchange` once.

    Args:
      images: (N, 3, h, w) or (N, h, w, 3), uint8 or floats. All photos have one size.
      masks: (N, 1, h, w) or (N, h, w), 1 where the object is: floats in [0, 1], bool, or uint8 up to 255.
      seed: 0 to 2**64 - 1; None draws a seed, which is in the result.
      n: the number of samples; None means the number of photos. May be 0.
      start, indices: which samples of the stream: `start` .. `start + n - 1`, or any int64 (n,) >= 0.
      swap: the parts that come from other photos: "texture", "background" or both.
      labels: (N,) integers, the photos' classes.
      donors: the photos that parts may come from: "any" other one, those of the "same" label, or of an "other" label.
      range: (low, high) of float images; None means (0, 1).
      working_size: side of the pictures that patches are cut from, scaled bicubically (128 in the authors' code).
      patch, grid, top: of the patch grid, see `ops.patch_grid`.
      threads: the largest number of threads; 0 chooses by size.
    Returns:
      Counterfactuals. Sample i depends only on images, masks, labels, options, seed and i: not on n, start or threads.
    Raises:
      TypeError, ValueError: an argument is not as above; a pixel is NaN or out of range; photos and masks differ in
        number or size; a mask has no object (no value of at least 0.5); backgrounds are swapped and a mask leaves too
        little background; a photo has no donor. `usable` tells which masks can be used.
    """
    exchange = Exchange(
        images,
        masks,
        swap=swap,
        labels=labels,
        donors=donors,
        range=range,
        working_size=working_size,
        patch=patch,
        grid=grid,
        top=top,
    )
    return exchange(seed=seed, n=n, start=start, indices=indices, threads=threads)


class Exchange:
    """Photos and masks that are checked once, for many batches of counterfactuals.

        exchange = real.Exchange(photos, masks)
        batch = exchange(seed=0, n=256, start=step * 256)

    A batch takes time by its samples, not by the number of photos. Backgrounds without their objects, and photos at
    the working size, are made when they are first needed and kept (up to 1 GiB of each).

    Args:
      images, masks, swap, labels, donors, range, working_size, patch, grid, top: as for `counterfactuals`. Images and
        masks are not copied, and must not change.
    Raises:
      TypeError, ValueError: as for `counterfactuals`.
    """

    def __init__(
        self,
        images: Any,
        masks: Any,
        *,
        swap: str | Sequence[str] = PARTS,
        labels: Any = None,
        donors: str = "any",
        range: Sequence[float] | None = None,
        working_size: int = 128,
        patch: int = 15,
        grid: int = 6,
        top: int = 100,
    ) -> None:
        self._pictures = read_pictures(images, "counterfactuals", range)
        self._masks = read_masks(masks, len(self._pictures), self._pictures.size, "counterfactuals")
        self._swapped = _parts(swap)
        self._rectangles = _rectangles(self._masks, "background" in self._swapped)
        self._labels = _labels(labels, len(self))
        self._donors = Donors(len(self), self._labels, donors)
        self._working_size = working_size
        self._patch, self._grid, self._top = patch, grid, top
        self._grounds, self._working = _Kept(), _Kept()

    def __len__(self) -> int:
        """The number of photos."""
        return len(self._pictures)

    def __call__(
        self,
        *,
        seed: int | None = None,
        n: int | None = None,
        start: int = 0,
        indices: Any = None,
        threads: int = 0,
    ) -> Counterfactuals:
        """A batch of samples; arguments, result and errors are those of `counterfactuals`."""
        where = _samples(n, start, indices, len(self))
        chosen = resolve_seed(seed)
        index = self._donors.index(where, chosen, self._swapped)
        h, w = self._pictures.size
        shape = (len(where), 3, h, w) if self._pictures.layout == "NCHW" else (len(where), h, w, 3)
        out = np.empty(shape, self._pictures.dtype)
        step = max(1, _CHUNK_PIXELS // (h * w))
        for first in range(0, len(where), step):
            part = slice(first, first + step)
            self._make(chosen, where[part], index[part], out[part], threads)
        named = None if self._labels is None else Labels(*(self._labels[column] for column in index.T))
        return Counterfactuals(out, index, named, chosen, where)

    def _make(self, seed: int, where: np.ndarray, index: np.ndarray, out: np.ndarray, threads: int) -> None:
        """Write some samples to `out`. Only the photos that they are made of are read."""
        used = [np.unique(column, return_inverse=True) for column in index.T]
        shapes, textures, backgrounds = (photos for photos, _ in used)
        rows = np.ascontiguousarray(np.stack([places for _, places in used], 1))
        masks = self._masks.values(shapes)
        if "background" in self._swapped:
            grounds = np.stack(self._grounds.of(backgrounds, self._fill))
        else:
            grounds = self._pictures.pixels(backgrounds)
        form: dict[str, Any] = {
            "dtype": self._pictures.dtype,
            "layout": self._pictures.layout,
            "clamp": self._pictures.range,
            "threads": threads,
        }
        if "texture" not in self._swapped:
            ops.compose(masks, self._pictures.pixels(textures), grounds, rows, out=out, **form)
            return
        working = np.stack(self._working.of(textures, partial(self._shrink, threads=threads)))
        ops.patch_grid(
            np.ascontiguousarray(working[:, :1]),
            np.ascontiguousarray(working[:, 1:]),
            patch_picks(seed, where, top=self._top, grid=self._grid),
            rows,
            size=self._pictures.size,
            patch=self._patch,
            grid=self._grid,
            top=self._top,
            over=(masks, grounds),
            out=out,
            **form,
        )

    def _fill(self, photos: np.ndarray) -> list[np.ndarray]:
        """Backgrounds without their objects, (3, h, w) each."""
        pixels, masks = self._pictures.pixels(photos), self._masks.values(photos)
        filled = []
        for photo, picture, mask in zip(photos, pixels, masks, strict=True):
            rectangle = self._rectangles[photo]
            assert rectangle is not None
            filled.append(fill_from(picture, mask[0], rectangle))
        return filled

    def _shrink(self, photos: np.ndarray, threads: int) -> list[np.ndarray]:
        """Mask and photo at the size from which patches are cut, (4, s, s) each."""
        size = self._working_size
        masks = ops.resize(self._masks.values(photos), size, clamp=(0.0, 1.0), threads=threads)
        pixels = ops.resize(self._pictures.pixels(photos), size, clamp=self._pictures.range, threads=threads)
        return list(np.concatenate([masks, pixels], 1))


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


def _parts(swap: str | Sequence[str]) -> tuple[str, ...]:
    parts = (swap,) if isinstance(swap, str) else tuple(swap)
    if not parts or any(part not in PARTS for part in parts):
        raise ValueError(f"counterfactuals: swap is {swap!r}, expected 'texture', 'background' or both.")
    return parts


def _rectangles(masks: Masks, backgrounds: bool) -> list[Rectangle | None]:
    """The largest rectangle of each photo without its object, where backgrounds are swapped.

    Raises:
      ValueError: a mask has no object, or too little background.
    """
    found: list[Rectangle | None] = []
    for photo, mask in enumerate(masks):
        if not has_object(mask):
            raise ValueError(
                f"counterfactuals masks: the maximum of masks[{photo}] is {mask.max():.3g}, expected an object "
                "(at least 0.5). Leave out photos that cgnrt.real.usable refuses."
            )
        found.append(free_rectangle(mask) if backgrounds else None)
        if backgrounds and found[-1] is None:
            raise ValueError(
                f"counterfactuals masks: the background of masks[{photo}] is too small, expected a rectangle without "
                "object of at least 1/16 of height and width. Leave out photos that cgnrt.real.usable refuses."
            )
    return found


def _labels(labels: Any, photos: int) -> np.ndarray | None:
    if labels is None:
        return None
    array = host_array("counterfactuals", "labels", labels)
    if array.shape != (photos,) or array.dtype.kind not in "iu":
        raise ValueError(
            f"counterfactuals: labels are {array.dtype} {array.shape}, expected integers ({photos},), "
            "one for each photo."
        )
    return array.astype(np.int64)


def _samples(n: int | None, start: int, indices: Any, photos: int) -> np.ndarray:
    where = resolve_indices(photos if n is None and indices is None else n, start, indices)
    if len(where) and where.min() < 0:
        raise ValueError(f"counterfactuals: smallest index is {where.min()}, expected at least 0.")
    if len(where) and not photos:
        raise ValueError(
            f"counterfactuals: number of images is 0, expected at least 2 for {len(where)} samples."
        )
    return where
