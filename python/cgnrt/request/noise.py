"""A caller's noise and truncation, checked."""

from __future__ import annotations

from typing import Any

import numpy as np

from cgnrt._support.values import host_array
from cgnrt.sampling import MECHANISMS, Sampler


def check_noise(sampler: Sampler, noise: Any, n: int) -> tuple[np.ndarray | None, ...]:
    """A caller's (shape, texture, background[, rolls]) as float32 (n, z), int32 (n, 2, 2); None stays None."""
    if noise is None:
        return (None,) * 4
    given = noise_parts(noise)
    checked: list[np.ndarray | None] = []
    for name, array in zip(MECHANISMS, given, strict=False):
        if array is None:
            checked.append(None)
            continue
        array = host_array("sample", f"noise of {name}", array)
        expected = (n, sampler.mechanisms[name].noise_size)
        if sampler.mechanisms[name].distribution == "entry":
            checked.append(_check_words(name, array, expected))
            continue
        if array.dtype.kind != "f" or array.shape != expected:
            raise ValueError(
                f"sample: noise of {name} is {array.dtype} {array.shape}, expected float32 {expected}."
            )
        with np.errstate(over="ignore"):
            array = np.ascontiguousarray(array, np.float32)
        if not np.isfinite(array).all():
            raise ValueError(f"sample: noise of {name} has values that are not finite in float32.")
        checked.append(array)
    for name, leader in sampler.following.items():
        mine, its = MECHANISMS.index(name), MECHANISMS.index(leader)
        own, other = checked[mine], checked[its]
        if own is not None and (other is None or not np.array_equal(own, other)):
            raise ValueError(
                f"sample: noise of {name} is given, expected None or that of {leader}, which {name} follows in this "
                "plan."
            )
        checked[mine] = other
    rolls = given[3]
    if rolls is not None:
        rolls = host_array("sample", "rolls", rolls)
        if rolls.dtype.kind != "i" or rolls.shape != (n, 2, 2):
            raise ValueError(f"sample: rolls are {rolls.dtype} {rolls.shape}, expected int32 {(n, 2, 2)}.")
        if rolls.size and not -(2**31) <= rolls.min() <= rolls.max() < 2**31:
            raise ValueError(f"sample: rolls are {rolls.min()}..{rolls.max()}, expected what int32 holds.")
        rolls = np.ascontiguousarray(rolls, np.int32)
    return (*checked, rolls)


def _check_words(name: str, array: np.ndarray, expected: tuple[int, int]) -> np.ndarray:
    """A caller's noise of a bank as uint32 (n, 1)."""
    if array.dtype.kind not in "iu" or array.shape != expected:
        raise ValueError(
            f"sample: noise of {name} is {array.dtype} {array.shape}, expected uint32 {expected}, since {name} is a "
            "bank of pictures."
        )
    if array.size and not 0 <= array.min() <= array.max() <= 0xFFFF_FFFF:
        raise ValueError(
            f"sample: noise of {name} is {array.min()}..{array.max()}, expected what uint32 holds."
        )
    return np.ascontiguousarray(array, np.uint32)


def noise_parts(noise: Any) -> tuple[Any, Any, Any, Any]:
    """The three mechanisms' parts of a caller's noise, and its rolls or None."""
    if not isinstance(noise, list | tuple):
        raise TypeError(f"sample: noise is {noise!r}, expected (shape, texture, background[, rolls]).")
    if len(noise) not in (3, 4):
        raise ValueError(
            f"sample: noise has {len(noise)} parts, expected 3 or 4 (shape, texture, background, rolls)."
        )
    return noise[0], noise[1], noise[2], noise[3] if len(noise) == 4 else None


def check_truncation(bounds: Any, truncation: Any, n: int) -> np.ndarray | None:
    """The truncation of every sample, float32 (n, 1), from a number or (n,); `bounds` is the manifest's."""
    if bounds is None:
        if truncation is not None:
            raise ValueError("sample: truncation is given, but this plan has no truncation. Leave it out.")
        return None
    values = host_array("sample", "truncation", bounds.default if truncation is None else truncation)
    if values.dtype.kind not in "fiu":
        raise TypeError(f"sample: truncation is {truncation!r}, expected a number or ({n},) of them.")
    values = values.astype(np.float32)
    if values.shape not in ((), (n,)):
        raise ValueError(f"sample: truncation has shape {values.shape}, expected a number or ({n},).")
    if not ((values >= bounds.minimum) & (values <= bounds.maximum)).all():
        raise ValueError(f"sample: truncation is {truncation}, expected {bounds.minimum}..{bounds.maximum}.")
    return np.ascontiguousarray(np.broadcast_to(values, (n,)).reshape(n, 1))
