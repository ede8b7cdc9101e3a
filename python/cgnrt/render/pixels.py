"""How images leave: dtype, layout and scale, as `compose` takes them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cgnrt._support.values import host_array

_DTYPES = ("float32", "float16", "bfloat16", "uint8")
_LAYOUTS = ("NCHW", "NHWC")
_CHANNELS = 3


@dataclass(frozen=True)
class PixelFormat:
    """The output form of a batch.

    Attributes:
      scale, bias: map the plan's range onto that of the images, per channel; None where they are the same.
      clamp: the plan's range, to which images are clamped before.
    """

    dtype: str
    layout: str
    scale: tuple[float, ...] | None
    bias: tuple[float, ...] | None
    clamp: tuple[float, float]

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
        """Check what the user asks for, and turn it into one multiply-add per channel.

        Args:
          dtype: "float32", "float16", "bfloat16" or "uint8".
          layout: "NCHW" or "NHWC".
          range: (low, high) that the plan's value range maps to; (-1, 1) where None, (0, 255) for uint8.
          normalize: (mean, std) per channel of images in [0, 1], as classifiers take them; not with `range`.
          source: the plan's value range.
        Raises:
          ValueError: an unknown name, or options that exclude each other.
        """
        if dtype not in _DTYPES:
            raise ValueError(f"load: dtype is {dtype!r}, expected one of {', '.join(_DTYPES)}.")
        if layout not in _LAYOUTS:
            raise ValueError(f"load: layout is {layout!r}, expected one of {', '.join(_LAYOUTS)}.")
        bounds = None if range is None else _numbers("range", range)
        if dtype == "uint8" and (
            normalize is not None or (bounds is not None and bounds.tolist() != [0, 255])
        ):
            raise ValueError("load: dtype is uint8 beside a range or normalize, expected 0..255 only.")
        if range is not None and normalize is not None:
            raise ValueError("load: both range and normalize are given, expected one of the two.")
        if normalize is not None:
            if not isinstance(normalize, list | tuple | np.ndarray):
                raise TypeError(f"load: normalize is {normalize!r}, expected (mean, std).")
            if len(normalize) != 2:
                raise ValueError(f"load: normalize has {len(normalize)} parts, expected (mean, std).")
            mean, std = (_per_channel(name, v) for name, v in zip(("mean", "std"), normalize, strict=True))
            if (std <= 0).any():
                raise ValueError(f"load: normalize std is {std.tolist()}, expected positive numbers.")
            low, high = (0 - mean) / std, (1 - mean) / std
        else:
            wanted = np.asarray((0, 255) if dtype == "uint8" else (-1, 1)) if bounds is None else bounds
            if wanted.shape != (2,) or not np.isfinite(wanted).all() or wanted[0] >= wanted[1]:
                raise ValueError(f"load: range is {range}, expected (low, high) with low < high.")
            low, high = (np.full(_CHANNELS, float(end)) for end in wanted)
        scale = (high - low) / (source[1] - source[0])
        bias = low - scale * source[0]
        if (scale == 1).all() and (bias == 0).all():
            return cls(dtype, layout, None, None, source)
        return cls(dtype, layout, tuple(scale.tolist()), tuple(bias.tolist()), source)

    def shape(self, n: int, height: int, width: int) -> tuple[int, int, int, int]:
        """The shape of n images."""
        return (n, _CHANNELS, height, width) if self.layout == "NCHW" else (n, height, width, _CHANNELS)

    @property
    def item_bytes(self) -> int:
        """Bytes of one number of an image."""
        return {"float32": 4, "uint8": 1}.get(self.dtype, 2)

    @functools.cached_property
    def compose_options(self) -> dict[str, Any]:
        """The keyword arguments of `cgnrt.ops.compose` that give this form."""
        return {
            "dtype": self.dtype,
            "layout": self.layout,
            "scale": self.scale,
            "bias": self.bias,
            "clamp": self.clamp,
        }


def _per_channel(name: str, values: Sequence[float]) -> np.ndarray:
    array = _numbers(f"normalize {name}", values)
    if array.shape != (_CHANNELS,) or not np.isfinite(array).all():
        raise ValueError(f"load: normalize {name} is {values}, expected {_CHANNELS} finite numbers.")
    return array


def _numbers(name: str, values: Any) -> np.ndarray:
    array = host_array("load", name, values)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"load: {name} is {values!r}, expected numbers.")
    return array.astype(np.float64)
