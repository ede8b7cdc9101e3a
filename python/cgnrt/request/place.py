"""Where objects are put: what places are drawn from, and places as callers give them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cgnrt._support.suggest import did_you_mean
from cgnrt._support.values import host_array
from cgnrt.sampling import PlaceDraws

_MOST_SHIFT, _MOST_SCALE = 4.0, 16.0
FACTORS = ("dy", "dx", "scale", "flip")


@dataclass(frozen=True)
class Place:
    """Position and size of the objects as factors of their own: what the place of each sample is drawn from.

    A range is (low, high), or one number that every sample has. All are drawn uniformly and apart from each other: to
    fix one moves no other. In a batch, places are rows of (dy, dx, scale, flip) as `cgnrt.compose` takes them.

    Attributes:
      dy, dx: range of the shift down and to the right, in heights and widths of the picture, -4 to 4; whole pixels are
        drawn.
      scale: range of the size, above 0 and up to 16; 1 is as the plan draws the object. Below 0.5 pixels are skipped.
      flip: the chance from 0 to 1 that an object is mirrored left to right; True is always.

    Raises:
      TypeError, ValueError: the message names the field, what it is and what is expected.
    """

    dy: float | tuple[float, float] = 0.0
    dx: float | tuple[float, float] = 0.0
    scale: float | tuple[float, float] = 1.0
    flip: float = 0.0

    def __post_init__(self) -> None:
        keep = object.__setattr__
        for name in ("dy", "dx"):
            keep(self, name, _range(name, getattr(self, name), -_MOST_SHIFT, _MOST_SHIFT))
        scale = _range("scale", self.scale, 0.0, _MOST_SCALE)
        if scale[0] == 0:
            raise ValueError(f"sample: place scale is {self.scale!r}, expected numbers above 0.")
        keep(self, "scale", scale)
        chance = _number("flip", self.flip)
        if not 0 <= chance <= 1:
            raise ValueError(f"sample: place flip is {self.flip!r}, expected a chance from 0 to 1.")
        keep(self, "flip", chance)

    def bounds(self, name: str) -> tuple[float, float]:
        """The range of dy, dx or scale."""
        low, high = getattr(self, name)
        return low, high

    def to_dict(self) -> dict[str, Any]:
        """The fields in types of JSON, as `Place(**fields)` takes them."""
        return {name: list(self.bounds(name)) for name in FACTORS[:3]} | {"flip": self.flip}

    @classmethod
    def from_dict(cls, content: Any) -> Place:
        """The place that `to_dict` wrote.

        Raises:
          TypeError, ValueError: the content is something else.
        """
        if not isinstance(content, Mapping) or set(content) != set(FACTORS):
            raise ValueError(f"place is {str(content)[:60]}, expected an object of {', '.join(FACTORS)}")
        return cls(**content)

    def __str__(self) -> str:
        """As the command line takes it, without what stays as the plan draws it."""
        plain, texts = Place(), []
        for name in FACTORS[:3]:
            low, high = self.bounds(name)
            if (low, high) != plain.bounds(name):
                texts.append(f"{name}={low:g}" if low == high else f"{name}={low:g}:{high:g}")
        return ",".join([*texts, *([f"flip={self.flip:g}"] if self.flip else [])])

    def draws(self, resolution: tuple[int, int]) -> PlaceDraws:
        """What is drawn for pictures of (height, width)."""
        (top, bottom), (left, right) = self.bounds("dy"), self.bounds("dx")
        height, width = resolution
        return PlaceDraws(
            (round(top * height), round(bottom * height)),
            (round(left * width), round(right * width)),
            self.bounds("scale"),
            int(self.flip * 2**32),
        )


def with_factors(place: Any, do: dict[str, Any]) -> Any:
    """A place with some of its factors set, None being that of `Place()`.

    Raises:
      ValueError: places are given for each sample.
    """
    if not do:
        return place
    if place is not None and not isinstance(place, Place):
        raise ValueError(
            f"sample: do[{min(do)!r}] is set beside a place for each sample, expected one of the two."
        )
    return replace(place or Place(), **do)


def require_drawn(operation: str, place: Any) -> None:
    """Refuse places for each sample where samples are drawn without end, or by several processes.

    Raises:
      ValueError: it is neither a `Place` nor None.
    """
    if place is not None and not isinstance(place, Place):
        raise ValueError(
            f"{operation}: place is given for each sample ({type(place).__name__}), expected a cgnrt.Place, from which "
            "they are drawn."
        )


def read_place(texts: Iterable[str]) -> Place | None:
    """The place that texts such as "dx=-0.3:0.3,scale=0.5:1,flip" say together; None without a text.

    Raises:
      ValueError: a factor is unknown, given twice, or not written as a number or as LOW:HIGH; or as `Place`.
    """
    found: dict[str, Any] = {}
    for piece in (piece for text in texts for piece in text.split(",")):
        name, equals, value = (part.strip() for part in piece.partition("="))
        if name not in FACTORS:
            raise ValueError(
                f"sample: place has {name[:60]!r}, expected some of {', '.join(FACTORS)}.{did_you_mean(name, FACTORS)}"
            )
        if name in found:
            raise ValueError(f"sample: place has {name} twice, expected it once.")
        found[name] = 1.0 if name == "flip" and not equals else read_factor(name, value)
    return Place(**found) if found else None


def read_factor(name: str, text: str) -> float | tuple[float, ...]:
    """The number that a text says of a factor, or the range if it is LOW:HIGH.

    Raises:
      ValueError: it is neither; flip has no range.
    """
    try:
        ends = tuple(float(end) for end in text.split(":"))
    except ValueError:
        ends = ()
    if len(ends) == 2 and name != "flip":
        return ends
    if len(ends) != 1:
        rule = "a chance from 0 to 1" if name == "flip" else "a number or LOW:HIGH"
        raise ValueError(f"sample: place {name} is {text[:60]!r}, expected {rule}.")
    return ends[0]


def unmoved(n: int) -> np.ndarray:
    """The places of n objects that stay where they are, float32 (n, 4)."""
    return np.tile(np.array([0, 0, 1, 0], np.float32), (n, 1))


def check_places(places: Any, n: int) -> np.ndarray:
    """A caller's places for n samples, float32 (n, 4).

    Raises:
      TypeError, ValueError: they are not rows of (dy, dx, scale, flip).
    """
    array = host_array("sample", "place", places)
    if array.dtype.kind not in "fiub" or array.shape != (n, 4):
        raise ValueError(
            f"sample: place is {array.dtype} {array.shape}, expected a cgnrt.Place, or float32 {(n, 4)}: rows of "
            "(dy, dx, scale, flip) in pixels."
        )
    with np.errstate(over="ignore"):
        array = np.require(array, np.float32, ["C", "A"])  # a message may have it at any address
    good = np.isfinite(array).all(axis=1) & (array[:, 2] > 0) & np.isin(array[:, 3], (0, 1))
    if not good.all():
        at = int(good.argmin())
        raise ValueError(
            f"sample: place[{at}] is {tuple(array[at].tolist())}, expected (dy, dx, scale, flip): finite numbers, "
            "scale above 0, flip 0 or 1."
        )
    return array


def _range(name: str, value: Any, least: float, most: float) -> tuple[float, float]:
    ends = value if isinstance(value, tuple | list) else (value, value)
    if len(ends) != 2:
        raise ValueError(f"sample: place {name} is {value!r}, expected (low, high) or a number.")
    low, high = (_number(name, end) for end in ends)
    if not least <= low <= high <= most:
        raise ValueError(
            f"sample: place {name} is {value!r}, expected (low, high) with {least:g} <= low <= high <= {most:g}."
        )
    return low, high


def _number(name: str, value: Any) -> float:
    if not isinstance(value, int | float | np.number | np.bool_) or np.iscomplexobj(value):
        raise TypeError(f"sample: place {name} is {value!r}, expected numbers.")
    return float(value)
