"""The exchange: chooses the photos that give each part, and makes the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cgnrt.real.donors import PARTS, Donors
from cgnrt.real.parts import Grids, Parts
from cgnrt.real.photos import read_labels, read_masks, read_pictures
from cgnrt.sampling import Labels, patch_picks, resolve_indices, resolve_seed

_CHUNK_PIXELS = 64 * 256 * 256  # of results made at a time, which limits the memory needed beside them


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
        pictures = read_pictures(images, "counterfactuals", range)
        read = read_masks(masks, len(pictures), pictures.size, "counterfactuals")
        self._swapped = _swapped_parts(swap)
        self._parts = Parts(
            pictures,
            read,
            Grids(working_size, patch, grid, top),
            filled="background" in self._swapped,
            operation="counterfactuals",
        )
        self._labels = None if labels is None else read_labels(labels, len(self), "counterfactuals")
        self._donors = Donors(len(self), self._labels, donors)

    def __len__(self) -> int:
        """The number of photos."""
        return len(self._parts)

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
        pictures = self._parts.pictures
        h, w = pictures.size
        shape = (len(where), 3, h, w) if pictures.layout == "NCHW" else (len(where), h, w, 3)
        out = np.empty(shape, pictures.dtype)
        step = max(1, _CHUNK_PIXELS // (h * w))
        for first in range(0, len(where), step):
            part = slice(first, first + step)
            self._make(chosen, where[part], index[part], out[part], threads)
        named = None if self._labels is None else Labels(*(self._labels[column] for column in index.T))
        return Counterfactuals(out, index, named, chosen, where)

    def _make(self, seed: int, where: np.ndarray, index: np.ndarray, out: np.ndarray, threads: int) -> None:
        """Write some samples to `out`. Only the photos that they are made of are read."""
        form, filled = self._parts.own_form(threads), "background" in self._swapped
        if "texture" not in self._swapped:
            self._parts.objects(index, out, form, filled=filled)
            return
        grids = self._parts.grids
        picks = patch_picks(seed, where, top=grids.top, grid=grids.grid)
        self._parts.textures(index, picks, out, form, filled=filled)


def _swapped_parts(swap: str | Sequence[str]) -> tuple[str, ...]:
    parts = (swap,) if isinstance(swap, str) else tuple(swap)
    if not parts or any(part not in PARTS for part in parts):
        raise ValueError(f"counterfactuals: swap is {swap!r}, expected 'texture', 'background' or both.")
    return parts


def _samples(n: int | None, start: int, indices: Any, photos: int) -> np.ndarray:
    where = resolve_indices(photos if n is None and indices is None else n, start, indices)
    if len(where) and where.min() < 0:
        raise ValueError(f"counterfactuals: smallest index is {where.min()}, expected at least 0.")
    if len(where) and not photos:
        raise ValueError(
            f"counterfactuals: number of images is 0, expected at least 2 for {len(where)} samples."
        )
    return where
