"""How images leave: dtype, layout and scale, as `compose` takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_DTYPES = ("float32", "float16", "bfloat16", "uint8")
_LAYOUTS = ("NCHW", "NHWC")
_CHANNELS = 3


@dataclass(frozen=True)
class PixelFormat:
    """The output form of a batch; `scale` and `bias` map the plan's range onto it, None where it is that already."""

    dtype: str
    layout: str
    scale: tuple[float, ...] | None
    bias: tuple[float, ...] | None

    @classmethod
    def make(
        cls,
        *,
        dtype: str,
        layout: str,
        range: Sequence[float] | None,
        normalize: tuple[Sequence[float], Sequence[float]] | None,
        source: tuple[float, float],
    ) -> PixelFormat:
        """Check the user's wishes and turn them into one multiply-add per channel.

        Args:
          dtype: "float32", "float16", "bfloat16" or "uint8".
          layout: "NCHW" or "NHWC".
          range: (low, high) that the plan's value range maps to; (-1, 1) where None, (0, 255) for uint8.
          normalize: (mean, std) per channel of images in [0, 1], as classifiers take them; not with `range`.
          source: the plan's value range.
        Raises:
          ValueError: an unknown name, or wishes that exclude each other.
        """
        if dtype not in _DTYPES:
            raise ValueError(f"load: dtype is {dtype!r}, expected one of {', '.join(_DTYPES)}.")
        if layout not in _LAYOUTS:
            raise ValueError(f"load: layout is {layout!r}, expected one of {', '.join(_LAYOUTS)}.")
        if dtype == "uint8" and (normalize is not None or (range is not None and tuple(range) != (0, 255))):
            raise ValueError("load: dtype is uint8 beside a range or normalize, expected 0..255 alone.")
        if range is not None and normalize is not None:
            raise ValueError("load: both range and normalize are given, expected one of the two.")
        if normalize is not None:
            if len(normalize) != 2:
                raise ValueError(f"load: normalize has {len(normalize)} parts, expected (mean, std).")
            mean, std = (_per_channel(name, v) for name, v in zip(("mean", "std"), normalize, strict=True))
            if (std <= 0).any():
                raise ValueError(f"load: normalize std is {std.tolist()}, expected positive numbers.")
            low, high = (0 - mean) / std, (1 - mean) / std
        else:
            wanted = range if range is not None else (0, 255) if dtype == "uint8" else (-1, 1)
            if len(wanted) != 2 or not np.isfinite(np.asarray(wanted, float)).all() or wanted[0] >= wanted[1]:
                raise ValueError(f"load: range is {wanted}, expected (low, high) with low < high.")
            low, high = (np.full(_CHANNELS, float(end)) for end in wanted)
        scale = (high - low) / (source[1] - source[0])
        bias = low - scale * source[0]
        if (scale == 1).all() and (bias == 0).all():
            return cls(dtype, layout, None, None)
        return cls(dtype, layout, tuple(scale.tolist()), tuple(bias.tolist()))

    def shape(self, n: int, height: int, width: int) -> tuple[int, int, int, int]:
        """The shape of n images."""
        return (n, _CHANNELS, height, width) if self.layout == "NCHW" else (n, height, width, _CHANNELS)

    def empty(self, n: int, height: int, width: int) -> np.ndarray:
        """Memory for n images; bfloat16 as its uint16 bits."""
        return np.empty(self.shape(n, height, width), np.uint16 if self.dtype == "bfloat16" else self.dtype)


def _per_channel(name: str, values: Sequence[float]) -> np.ndarray:
    array = np.asarray(values, np.float64)
    if array.shape != (_CHANNELS,) or not np.isfinite(array).all():
        raise ValueError(f"load: normalize {name} is {values}, expected {_CHANNELS} finite numbers.")
    return array
