"""Test sets that take photos apart: which part does a classifier need? (Xiao et al., Noise or Signal, 2020)

The names are those of the folders of the Backgrounds Challenge.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from cgnrt._support.suggest import did_you_mean
from cgnrt.real.donors import PARTS, Donors
from cgnrt.real.parts import Parts
from cgnrt.real.photos import OBJECT

# Names of the sets, and what is in them.
SETS: Mapping[str, str] = {
    "original": "the photos",
    "mixed_same": "objects on the backgrounds of other photos of their class",
    "mixed_rand": "objects on the backgrounds of any other photos",
    "only_fg": "objects on black",
    "only_bg_b": "backgrounds with the object's rectangle in black",
    "only_bg_t": "backgrounds with the object filled in",
    "no_fg": "backgrounds with the object's shape in black",
}


def parse_sets(text: str) -> tuple[str, ...]:
    """The sets of a list like "mixed_same,mixed_rand"; "all" is every one.

    Raises:
      ValueError: there is no set of a name.
    """
    if text == "all":
        return tuple(SETS)
    names = dict.fromkeys(name.strip() for name in text.split(","))
    for name in names:
        if name not in SETS:
            raise ValueError(
                f"real: set is '{name}', expected all, or some of {', '.join(SETS)}.{did_you_mean(name, SETS)}"
            )
    return tuple(names)


class TestSets:
    """Makes the pictures of each set: number i shows photo ``i % N`` or its parts.

    Args:
      labels: (N,) int64, the photos' classes.
    """

    __test__ = False  # pytest takes classes of such names for tests

    def __init__(self, parts: Parts, labels: np.ndarray, seed: int, threads: int) -> None:
        self._parts, self._seed = parts, seed
        self._form = parts.own_form(threads)
        self._donors = {
            "mixed_same": Donors(len(parts), labels, "same"),
            "mixed_rand": Donors(len(parts), labels, "any"),
        }
        self._make: dict[str, Callable[[np.ndarray, np.ndarray], None]] = {
            "original": self._original,
            "only_fg": self._only_object,
            "only_bg_b": self._black_rectangle,
            "only_bg_t": self._filled,
            "no_fg": self._black_object,
        }

    def make(self, name: str, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pictures of a set.

        Returns:
          Images like the photos, and (n, 3) the photos that gave shape, texture and background; -1 where none did.
        Raises:
          ValueError: a photo has no donor.
        """
        photos = numbers % len(self._parts)
        index = np.repeat(photos[:, None], 3, axis=1)
        h, w = self._parts.pictures.size
        first = (len(numbers), 3, h, w) if self._parts.pictures.layout == "NCHW" else (len(numbers), h, w, 3)
        out = np.empty(first, self._parts.pictures.dtype)
        if name in self._donors:
            index = self._donors[name].index(numbers, self._seed, PARTS[1:])
            self._parts.objects(index, out, self._form)
            return out, index
        self._make[name](photos, out)
        if name == "only_fg":
            index[:, 2] = -1
        elif name != "original":
            index[:, 1] = -1
            if name == "only_bg_t":
                index[:, 0] = -1
        return out, index

    def _original(self, photos: np.ndarray, out: np.ndarray) -> None:
        self._write(self._parts.pictures.pixels(photos), out)

    def _only_object(self, photos: np.ndarray, out: np.ndarray) -> None:
        index = np.repeat(photos[:, None], 3, axis=1)
        self._parts.objects(index, out, self._form, grounds=self._black)

    def _black_rectangle(self, photos: np.ndarray, out: np.ndarray) -> None:
        pixels = self._parts.pictures.pixels(photos)
        for picture, mask in zip(pixels, self._parts.masks.values(photos), strict=True):
            rows, columns = np.nonzero(mask[0] >= OBJECT)
            picture[:, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = self._black[0, 0, 0]
        self._write(pixels, out)

    def _filled(self, photos: np.ndarray, out: np.ndarray) -> None:
        self._write(self._parts.backgrounds(photos), out)

    def _black_object(self, photos: np.ndarray, out: np.ndarray) -> None:
        masks = self._parts.masks.values(photos)
        self._write(masks * self._black + (1 - masks) * self._parts.pictures.pixels(photos), out)

    @property
    def _black(self) -> np.ndarray:
        """(3, h, w)."""
        pictures = self._parts.pictures
        return np.full((3, *pictures.size), pictures.range[0], np.float32)

    def _write(self, pixels: np.ndarray, out: np.ndarray) -> None:
        """Pixels (n, 3, h, w) in the photos' range as images like the photos."""
        pictures = self._parts.pictures
        kept = np.rint(pixels) if pictures.dtype == "uint8" else pixels
        out[...] = kept if pictures.layout == "NCHW" else kept.transpose(0, 2, 3, 1)
