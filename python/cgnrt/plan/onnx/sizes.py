"""Sizes that grow with the batch: what rules calculate with in place of one batch's numbers.

A graph could behave for one batch and not for the next: `(n - 11)^2` is nothing for 11 images. So that a graph
is checked for every batch, dimensions are either numbers or linear in the batch, `slope * n + offset`, and
whatever is neither, or is not decided in the same way for every n from 1 on, is refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TypeAlias

from cgnrt.errors import PlanError, refuse


class Linear:
    """The integer `slope * n + offset` for a batch of n >= 1; `slope` is not 0.

    Arithmetic gives another one or an int. What would be neither, and a comparison that not every n decides alike, is a
    `PlanError`.
    """

    __slots__ = ("offset", "slope")

    def __init__(self, slope: int, offset: int = 0) -> None:
        self.slope = slope
        self.offset = offset

    def __repr__(self) -> str:
        factor = {1: "", -1: "-"}.get(self.slope, str(self.slope))
        return f"{factor}n" + (f" {'+-'[self.offset < 0]} {abs(self.offset)}" if self.offset else "")

    def __add__(self, other: Size) -> Size:
        if isinstance(other, Linear):
            return _size(self.slope + other.slope, self.offset + other.offset)
        return _size(self.slope, self.offset + _whole(other))

    __radd__ = __add__

    def __neg__(self) -> Size:
        return _size(-self.slope, -self.offset)

    def __sub__(self, other: Size) -> Size:
        return self + -other

    def __rsub__(self, other: Size) -> Size:
        return -self + other

    def __mul__(self, other: Size) -> Size:
        if isinstance(other, Linear):
            raise refuse("size", f"({self}) x ({other})", "one that is linear in the batch n")
        return _size(self.slope * _whole(other), self.offset * other)

    __rmul__ = __mul__

    def __floordiv__(self, other: Size) -> Size:
        if isinstance(other, Linear):
            if self.slope * other.offset == self.offset * other.slope and self.slope % other.slope == 0:
                return self.slope // other.slope
            raise refuse("size", f"({self}) / ({other})", "one that is linear in the batch n")
        if _whole(other) == 0 or self.slope % other or self.offset % other:
            raise refuse("size", f"({self}) / {other}", "a whole number for every batch n")
        return _size(self.slope // other, self.offset // other)

    def __rfloordiv__(self, other: Size) -> Size:
        raise refuse("size", f"{other} / ({self})", "one that is linear in the batch n")

    def __mod__(self, other: Size) -> int:
        if isinstance(other, Linear) or _whole(other) == 0 or self.slope % other:
            raise refuse("size", f"({self}) modulo {other}", "one that is the same for every batch n")
        return self.offset % other

    def __rmod__(self, other: Size) -> int:
        raise refuse("size", f"{other} modulo ({self})", "one that is the same for every batch n")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, int | Linear):
            return NotImplemented
        difference = self - other
        if isinstance(difference, int):
            return difference == 0
        slope, offset = difference.slope, difference.offset
        if offset % slope == 0 and -offset // slope >= 1:  # equal for this one n
            raise refuse("comparison", f"{self} with {other}", "one that every batch n decides alike")
        return False

    __hash__ = None  # type: ignore[assignment]

    def __ge__(self, other: Size) -> bool:
        return _at_least_0(self - other, self, other)

    def __le__(self, other: Size) -> bool:
        return _at_least_0(other - self, self, other)

    def __lt__(self, other: Size) -> bool:
        return not self >= other

    def __gt__(self, other: Size) -> bool:
        return not self <= other

    def __bool__(self) -> bool:
        return self != 0


Size: TypeAlias = int | Linear
Shape: TypeAlias = tuple[Size, ...]


def _size(slope: int, offset: int) -> Size:
    return Linear(slope, offset) if slope else offset


def _whole(value: object) -> int:
    if type(value) is not int:
        raise refuse("size", f"calculated with {value!r}", "whole numbers")
    return value


def _at_least_0(difference: Size, one: Size, other: Size) -> bool:
    if isinstance(difference, int):
        return difference >= 0
    slope, first = difference.slope, difference.slope + difference.offset  # for n = 1
    if slope > 0 and first >= 0:
        return True
    if slope < 0 and first < 0:
        return False
    raise refuse("comparison", f"{one} with {other}", "one that every batch n decides alike")


def fixed(dims: Shape) -> tuple[int, ...]:
    """Dimensions that are the same for every batch, as numbers.

    Raises:
      PlanError: one of them grows with the batch.
    """
    found = tuple(dim for dim in dims if isinstance(dim, int))
    if len(found) < len(dims):
        raise refuse("shape", str(list(dims)), "one that is the same for every batch")
    return found


def is_one(size: Size) -> bool:
    """Whether a size is 1 for every batch. One that is 1 for some alone is not."""
    return isinstance(size, int) and size == 1


def count_elements(dims: Iterable[Size]) -> Size:
    """The product of dimensions.

    Raises:
      PlanError: it is not linear in the batch.
    """
    found: Size = math.prod(dims)
    return found


def fits(size: Size, limit: int) -> bool:
    """Whether a size is at most `limit` for each image of the batch, whatever n is."""
    if isinstance(size, int):
        return size <= limit
    return size.slope <= limit and size.slope + size.offset <= limit


def same(one: Shape, other: Shape) -> bool:
    """Whether two shapes are equal for every batch. Two that are equal for some alone are not."""
    if len(one) != len(other):
        return False
    try:
        return all(a == b for a, b in zip(one, other, strict=True))
    except PlanError:
        return False
