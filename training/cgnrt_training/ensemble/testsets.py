"""Test sets that tell whether a classifier leans on the background: Table 4's, of photos and their masks.

After Xiao et al. (2020): the object on the background of another photo of its class (Mixed-Same) or of any photo
(Mixed-Rand), and the photo with its object filled in (only background).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from cgnrt.real import fill_object

from ..photos.pack import Photos
from .sources import open_exchange, usable_photos

SETS = ("original", "mixed_same", "mixed_rand", "only_background")
_SEED = 0  # of the choice of backgrounds: one choice for all classifiers
_PART = 1024  # photos at a time

Pictures = tuple[NDArray[np.uint8], NDArray[np.int64]]  # (n, 3, h, w), and labels (n,)


class TestSets:
    """The four sets of some photos, which are made once and kept.

    Raises:
      ValueError: photos have no masks, or too few can be used, or a class has but one that can.
    """

    __test__ = False  # pytest does not collect it

    def __init__(self, photos: Photos) -> None:
        chosen = usable_photos(photos)
        images, masks = photos.images[chosen], photos.masks
        assert masks is not None
        masks = masks[chosen]
        labels = np.asarray(photos.labels)
        self._sets: dict[str, Pictures] = {"original": (photos.images, labels)}
        for name, donors in (("mixed_same", "same"), ("mixed_rand", "any")):
            exchange = open_exchange(photos, "background", donors)
            self._sets[name] = (exchange(seed=_SEED, n=len(chosen)).images, labels[chosen])
        filled = np.empty_like(images)
        for photo, (pixels, mask) in enumerate(zip(images, masks, strict=True)):
            found = fill_object(pixels.astype(np.float32), mask.astype(np.float32) / 255)
            filled[photo] = found.round().clip(0, 255).astype(np.uint8)
        self._sets["only_background"] = (filled, labels[chosen])

    def parts(self, name: str) -> Iterator[Pictures]:
        """A set, some pictures at a time."""
        images, labels = self._sets[name]
        for start in range(0, len(labels), _PART):
            yield images[start : start + _PART], labels[start : start + _PART]

    def sizes(self) -> dict[str, int]:
        """The number of pictures of each set."""
        return {name: len(labels) for name, (_, labels) in self._sets.items()}
