"""One photo with a mask as an entry of each bank: shape, texture, background."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cgnrt._support.suggest import did_you_mean
from cgnrt.plan import BankContents, BankSource
from cgnrt.real import textures
from cgnrt.real.fill import fill_from, free_rectangle
from cgnrt.real.photos import MAX_OBJECT, MIN_OBJECT, check_shares, unusable
from cgnrt.sampling import check_seed, patch_picks

FAMILY = "photos, as a bank"  # of plans of them
TEXTURES = ("patches", "filled", "own")


@dataclass(frozen=True)
class Recipe:
    """What is made of photos.

    Args:
      texture: "patches": a patch grid of the photo's object (App. C.2); "filled": the photo, in which the object goes
        on beyond its outline; "own": the photo, whose object keeps its own pixels, since this texture is drawn only
        with this shape (Mixed-Rand).
      seed: of the windows of patch grids.
      min_object, max_object: the smallest and largest share of the picture that the object of a photo may cover.
    Raises:
      TypeError, ValueError: an argument is not as above.
    """

    texture: str = "patches"
    seed: int = 0
    min_object: float = MIN_OBJECT
    max_object: float = MAX_OBJECT

    def __post_init__(self) -> None:
        if self.texture not in TEXTURES:
            raise ValueError(
                f"bank: texture is {self.texture!r}, expected one of {', '.join(TEXTURES)}."
                f"{did_you_mean(self.texture, TEXTURES)}"
            )
        check_seed(self.seed)
        check_shares("bank", self.min_object, self.max_object)

    def entry(self, pixels: np.ndarray, mask: np.ndarray, number: int) -> dict[str, np.ndarray] | str:
        """A photo's pictures, uint8 (c, h, w) by mechanism; or why it cannot be used.

        Args:
          pixels: float32 (3, h, w) in [0, 255].  mask: float32 (h, w) in [0, 1].
          number: of the photo among all, for its draws.
        """
        if (reason := unusable(mask, self.min_object, self.max_object)) is not None:
            return reason
        rectangle = free_rectangle(mask)
        assert rectangle is not None
        texture: np.ndarray | None = pixels
        if self.texture == "patches":
            texture = textures.patches(pixels, mask, patch_picks(self.seed, np.array([number]))[0])
        elif self.texture == "filled":
            texture = textures.filled(pixels, mask)
        if texture is None:
            return "its object is too thin to go on beyond its outline (texture 'filled')"
        return {
            "shape": to_bytes(mask[None] * np.float32(255)),
            "texture": to_bytes(texture),
            "background": to_bytes(fill_from(pixels, mask, rectangle)),
        }


def contents(
    pictures: Mapping[str, np.ndarray],
    labels: np.ndarray,
    classes: Sequence[str],
    sources: Sequence[BankSource],
    recipe: Recipe,
) -> dict[str, BankContents]:
    """The banks of entries: uint8 (n, c, h, w) by mechanism, and the class of each, (n,)."""
    follows = {"texture": "shape"} if recipe.texture == "own" else {}
    return {
        name: BankContents(found, labels, classes, sources=sources, follows=follows.get(name))
        for name, found in pictures.items()
    }


def to_bytes(values: np.ndarray) -> np.ndarray:
    """Numbers in [0, 255], rounded."""
    if values.dtype == np.uint8:
        return values
    rounded: np.ndarray = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return rounded
