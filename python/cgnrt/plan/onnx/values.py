"""Arithmetic on the values that sizes are computed from, only as far as every engine comes to the same numbers.

A size that is small here and large in an engine is what a hostile graph would look for. Engines convert int64 to int32
(some of them saturating), and may calculate in float32, bfloat16 or float16, divide by multiplying, and fuse two steps
into one. So a value is known only if none of this can change it, and unknown (None) otherwise.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from cgnrt.errors import PlanError
from cgnrt.plan.onnx.shapes import Info, Operands, Rule, Values, broadcast, is_small
from cgnrt.plan.onnx.sizes import Linear, count_elements, fixed

# Of more operands no size is computed in any graph of an exporter that we know.
_MOST_OPERANDS = 8
# With these coefficients a value of 32 bits holds for every batch that runs (`limits.MAX_BATCH`).
_MOST_SLOPE = 1 << 14


def elementwise(function: Callable[..., Any], arity: int = 2) -> Rule:
    """The rule of an elementwise operator that carries values; those of any number of operands go two by two."""

    def rule(op: Operands) -> list[Info]:
        operands = op.all()
        dims = broadcast([info.dims for info in operands])
        values: Values | None = None
        if (
            len(operands) <= _MOST_OPERANDS
            and all(info.values is not None for info in operands)
            and is_small(dims)
            and op.effort.spend(len(operands) * (1 + int(count_elements(dims))))  # type: ignore[arg-type]
        ):
            apply = np.frompyfunc(exactly(function), arity, 1)
            found: Any = [info.values for info in operands]
            found = apply(*found) if arity != 2 else functools.reduce(apply, found)
            values = known(np.array(found, dtype=object).reshape(fixed(dims)))
        return [Info(dims, values)]

    return rule


def exactly(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` with None (unknown) where an engine could come to another number than Python does."""

    def guarded(*operands: Any) -> Any:
        if not all(map(is_exact, operands)):
            return None
        try:
            result = function(*operands)
        except (PlanError, TypeError):  # not decided alike for every batch
            return None
        return result if is_exact(result) else None

    return guarded


def is_exact(value: Any) -> bool:
    """Whether every engine holds this number as it is.

    Integers do in 32 bits. Floats do if they have eight significant bits and are neither tiny nor huge, as in bfloat16
    and float16 both.
    """
    if isinstance(value, float):
        mantissa, exponent = math.frexp(value)
        return value == 0 or (
            -13 <= exponent <= 15 and math.isfinite(value) and (mantissa * 256).is_integer()
        )
    if isinstance(value, Linear):
        return abs(value.slope) <= _MOST_SLOPE and abs(value.offset) <= _MOST_SLOPE
    return value is not None and -(2**31) < value < 2**31


def known(values: Values) -> Values | None:
    """The values, None if one of them is unknown."""
    return None if any(value is None for value in values.reshape(-1)) else values


def divide(a: Any, b: Any) -> Any:
    """A quotient in which engines agree."""
    if isinstance(b, float):
        # Another divisor than a power of two may be a factor that is rounded.
        return a / b if b and math.frexp(b)[0] in (0.5, -0.5) else None
    if b == 0:
        return None
    # Engines disagree on which way negative quotients are rounded.
    return a // b if a % b == 0 or (a < 0) == (b < 0) else None
