"""The exchange: chooses the photos that give each part, and makes the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cgnrt import ops
from cgnrt._support.values import host_array
from cgnrt.real.fill import fill_object, free_rectangle
from cgnrt.real.photos import Pictures, has_object, read_masks, read_pictures
from cgnrt.sampling import Labels, donor_picks, patch_picks, resolve_indices, resolve_seed

PARTS = ("texture", "background")
DONORS = ("any", "same", "other")
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
    pictures = read_pictures(images, "counterfactuals", range)
    planes = read_masks(masks, pictures, "counterfactuals")
    swapped = _parts(swap)
    _check_masks(planes, "background" in swapped)
    given = _labels(labels, len(planes))
    where = _samples(n, start, indices, len(planes))
    chosen = resolve_seed(seed)
    index = _index(where, chosen, swapped, len(planes), given, donors)
    textures = None
    if "texture" in swapped and len(where):
        textures = _working(pictures, planes, working_size, threads)
    grounds = pictures.pixels
    if "background" in swapped:
        grounds = pictures.pixels.copy()
        for photo in np.unique(index[:, 2]):
            grounds[photo] = fill_object(grounds[photo], planes[photo, 0])
    h, w = pictures.size
    shape = (len(where), 3, h, w) if pictures.layout == "NCHW" else (len(where), h, w, 3)
    out = np.empty(shape, pictures.dtype)
    step = max(1, _CHUNK_PIXELS // (h * w))
    form: dict[str, Any] = {
        "dtype": pictures.dtype,
        "layout": pictures.layout,
        "clamp": pictures.range,
        "threads": threads,
    }
    for first in np.arange(0, len(where), step):
        rows = index[first : first + step]
        into = out[first : first + step]
        if textures is None:
            ops.compose(planes, pictures.pixels, grounds, rows, out=into, **form)
            continue
        ops.patch_grid(
            *textures,
            patch_picks(chosen, where[first : first + step], top=top, grid=grid),
            rows,
            size=(h, w),
            patch=patch,
            grid=grid,
            top=top,
            over=(planes, grounds),
            out=into,
            **form,
        )
    named = None if given is None else Labels(*(given[column] for column in index.T))
    return Counterfactuals(out, index, named, chosen, where)


def _parts(swap: str | Sequence[str]) -> tuple[str, ...]:
    parts = (swap,) if isinstance(swap, str) else tuple(swap)
    if not parts or any(part not in PARTS for part in parts):
        raise ValueError(f"counterfactuals: swap is {swap!r}, expected 'texture', 'background' or both.")
    return parts


def _check_masks(planes: np.ndarray, backgrounds: bool) -> None:
    for photo, mask in enumerate(planes[:, 0]):
        if not has_object(mask):
            raise ValueError(
                f"counterfactuals masks: the maximum of masks[{photo}] is {mask.max():.3g}, expected an object "
                "(at least 0.5). Leave out photos that cgnrt.real.usable refuses."
            )
        if backgrounds and free_rectangle(mask) is None:
            raise ValueError(
                f"counterfactuals masks: the background of masks[{photo}] is too small, expected a rectangle without "
                "object of at least 1/16 of height and width. Leave out photos that cgnrt.real.usable refuses."
            )


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


def _index(
    where: np.ndarray, seed: int, swapped: Sequence[str], photos: int, labels: np.ndarray | None, donors: str
) -> np.ndarray:
    """The photos of each sample's shape, texture and background, int64 (n, 3)."""
    if donors not in DONORS:
        raise ValueError(f"counterfactuals: donors is {donors!r}, expected one of {', '.join(DONORS)}.")
    if donors != "any" and labels is None:
        raise ValueError(
            f"counterfactuals: labels are None, expected (N,) integers, since donors is {donors!r}."
        )
    shapes = where % max(photos, 1)
    index = np.repeat(shapes[:, None], 3, axis=1)
    for column, part in enumerate(PARTS, 1):
        if part not in swapped:
            continue
        for photo in np.unique(shapes):
            those = shapes == photo
            candidates = _candidates(int(photo), photos, labels, donors)
            picks = donor_picks(seed, where[those], part, len(candidates))
            index[those, column] = candidates[picks]
    return index


def _candidates(photo: int, photos: int, labels: np.ndarray | None, donors: str) -> np.ndarray:
    """The photos that may give a part to this one, in order, beginning with the next one."""
    others = (photo + 1 + np.arange(photos - 1)) % photos
    if labels is not None and donors != "any":
        others = others[(labels[others] == labels[photo]) == (donors == "same")]
    if not len(others):
        kind = {
            "any": "another photo",
            "same": "another photo of its label",
            "other": "a photo of another label",
        }[donors]
        raise ValueError(f"counterfactuals: photo {photo} has no donor among {photos} photos. Add {kind}.")
    return others


def _working(
    pictures: Pictures, planes: np.ndarray, size: int, threads: int
) -> tuple[np.ndarray, np.ndarray]:
    """Masks and photos at the size from which patches are cut."""
    masks = ops.resize(planes, size, clamp=(0.0, 1.0), threads=threads)
    return masks, ops.resize(pictures.pixels, size, clamp=pictures.range, threads=threads)
