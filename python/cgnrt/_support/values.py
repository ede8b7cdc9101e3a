"""What callers give: numbers and arrays, told from what only happens to have a length or a buffer."""

from __future__ import annotations

import array
import sys
from typing import Any, TypeGuard

import numpy as np


def is_int(value: object) -> TypeGuard[int | np.integer[Any]]:
    """Whether a value is an integer, Python's or NumPy's."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def check_threads(threads: Any) -> int | None:
    """A number of threads, None for as many as the process may use.

    Raises:
      ValueError: it is neither.
    """
    if threads is not None and (not is_int(threads) or threads < 1):
        raise ValueError(f"load: threads is {threads!r}, expected an int of at least 1, or None.")
    return None if threads is None else int(threads)


def refuse_masked(operation: str, **given: object) -> None:
    """Refuse NumPy's masked arrays, whose masks would be lost.

    Raises:
      TypeError: one of the arguments is a masked array.
    """
    masked = sys.modules.get("numpy.ma")
    if masked is None:  # not imported, so that no array is masked
        return
    for name, value in given.items():
        if isinstance(value, masked.MaskedArray):
            raise TypeError(
                f"{operation}: {name} is a masked array, expected one without a mask. Pass {name}.compressed(), "
                f"or {name}.filled(...)."
            )


def host_array(operation: str, name: str, value: Any) -> np.ndarray:
    """An array, tensor, list or tuple of a caller, or a number, as a NumPy array.

    Raises:
      TypeError: it is something else, such as text, bytes, a set or an iterator; or a masked array.
    """
    refuse_masked(operation, **{name: value})
    if isinstance(value, np.ndarray | np.generic | int | float):
        return np.asarray(value)
    if isinstance(value, list | tuple | range | array.array):
        try:
            return np.asarray(value)
        except ValueError as error:  # rows of different lengths
            raise TypeError(
                f"{operation}: {name} is {_short(value)}, expected an array ({error})."
            ) from error
    if callable(getattr(value, "detach", None)):  # a torch tensor, on any device
        value = value.detach().cpu()
    if hasattr(type(value), "__array__"):
        return np.asarray(value)
    if hasattr(type(value), "__dlpack__"):
        return np.from_dlpack(value)
    raise TypeError(f"{operation}: {name} is {_short(value)}, expected an array, a tensor or a list.")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
