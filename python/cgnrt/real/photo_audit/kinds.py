"""The kinds of images that an audit of photos asks about: each changes one thing of a photo."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cgnrt.real.donors import PARTS, Donors
from cgnrt.real.parts import Form, Parts
from cgnrt.real.photo_audit.naming import Naming
from cgnrt.real.photo_audit.places import POSITIONS, SIZES, Places
from cgnrt.sampling import patch_picks

_GREY = 0.5  # of the photos' range

Make = Callable[[np.ndarray, np.ndarray], None]  # of the samples' numbers into (m, 3, h, w)


@dataclass(frozen=True)
class Kind:
    """One kind of image.

    Attributes:
      name: its key in the results.
      title: what it shows, for messages and sheets.
    """

    name: str
    title: str


PHOTO = Kind("photo", "the photo itself")
SAME = Kind("same", "on a background of its class")
OTHER = Kind("other", "on a background of another class")
GREY = Kind("grey", "on grey")
TEXTURE = Kind("texture", "with the texture of another class")
BACKGROUND = Kind("background", "the background alone")
SWAPS = (PHOTO, SAME, OTHER, GREY, TEXTURE, BACKGROUND)
AT = {name: Kind(name, f"small, at the {name}") for name in POSITIONS}
SIZED = {size: Kind(f"size {size:g}", f"at {size:g} times its area") for size in SIZES}


class PhotoKinds:
    """Makes the images of each kind: sample i shows the object of photo ``i % N``.

    Args:
      labels: (N,) int64, the photos' classes.
      places: whether objects are moved and scaled, too.
    Raises:
      ValueError: a photo has no donor of its class, or of another one.
    """

    def __init__(
        self, parts: Parts, labels: np.ndarray, naming: Naming, seed: int, *, places: bool, threads: int
    ) -> None:
        self._parts, self._seed, self._threads = parts, seed, threads
        self._same = Donors(len(parts), labels, "same", operation="audit", name=naming.photo)
        self._other = Donors(len(parts), labels, "other", operation="audit", name=naming.photo)
        for donors in (self._same, self._other):
            donors.require()
        self._places = Places(parts.masks) if places else None
        self._make: dict[str, Make] = {
            PHOTO.name: self._photo,
            SAME.name: lambda where, out: self._over(self._same, where, out),
            OTHER.name: lambda where, out: self._over(self._other, where, out),
            GREY.name: self._over_grey,
            TEXTURE.name: self._texture,
            BACKGROUND.name: self._background,
        }
        self.kinds: tuple[Kind, ...] = SWAPS
        if self._places is not None:
            self.kinds += (*AT.values(), *SIZED.values())
        self.sizes = SIZES if places else ()

    def make(self, kind: Kind, where: np.ndarray) -> np.ndarray:
        """Images of a kind for the samples of some numbers: float32 (m, 3, h, w) in [0, 1], new memory."""
        out = np.empty((len(where), 3, *self._parts.pictures.size), np.float32)
        if kind.name in self._make:
            self._make[kind.name](where, out)
        else:
            self._placed(kind, where, out)
        return out

    def texture_donors(self, where: np.ndarray) -> np.ndarray:
        """The photos that give the textures."""
        found: np.ndarray = self._other.index(where, self._seed, PARTS[:1])[:, 1]
        return found

    def clipped(self, size: float) -> np.ndarray:
        """The photos whose objects reach beyond the picture's edge at a size, (N,) bool."""
        assert self._places is not None
        return self._places.clipped(size)

    @property
    def _form(self) -> Form:
        """Pixels in [0, 1], clamped to the photos' range before."""
        low, high = self._parts.pictures.range
        scale = 1 / (high - low)
        return {
            "dtype": "float32",
            "layout": "NCHW",
            "clamp": (low, high),
            "scale": scale,
            "bias": -low * scale,
            "threads": self._threads,
        }

    def _unit(self, pixels: np.ndarray, out: np.ndarray) -> None:
        low, high = self._parts.pictures.range
        np.subtract(pixels, np.float32(low), out=out)
        np.multiply(out, np.float32(1 / (high - low)), out=out)
        np.clip(out, 0, 1, out=out)

    def _own(self, where: np.ndarray) -> np.ndarray:
        """Index triples of the photos' own parts."""
        return np.repeat((where % len(self._parts))[:, None], 3, axis=1)

    def _photo(self, where: np.ndarray, out: np.ndarray) -> None:
        self._unit(self._parts.pictures.pixels(where % len(self._parts)), out)

    def _over(self, donors: Donors, where: np.ndarray, out: np.ndarray) -> None:
        self._parts.objects(donors.index(where, self._seed, PARTS[1:]), out, self._form)

    def _over_grey(self, where: np.ndarray, out: np.ndarray) -> None:
        low, high = self._parts.pictures.range
        grey = np.full((3, *self._parts.pictures.size), low + _GREY * (high - low), np.float32)
        self._parts.objects(self._own(where), out, self._form, grounds=grey)

    def _texture(self, where: np.ndarray, out: np.ndarray) -> None:
        index = self._other.index(where, self._seed, PARTS[:1])
        grids = self._parts.grids
        picks = patch_picks(self._seed, where, top=grids.top, grid=grids.grid)
        self._parts.textures(index, picks, out, self._form, filled=False)

    def _background(self, where: np.ndarray, out: np.ndarray) -> None:
        self._unit(self._parts.backgrounds(where % len(self._parts)), out)

    def _placed(self, kind: Kind, where: np.ndarray, out: np.ndarray) -> None:
        assert self._places is not None
        photos = where % len(self._parts)
        at = {shown.name: place for place, shown in AT.items()}
        sized = {shown.name: size for size, shown in SIZED.items()}
        if kind.name in at:
            place = self._places.at(at[kind.name], photos)
        else:
            place = self._places.sized(sized[kind.name], photos)
        self._parts.objects(self._own(where), out, self._form, place=place)
