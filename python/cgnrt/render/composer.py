"""The composer C (Eq. 2): from the mechanisms' pictures to images in the consumer's form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cgnrt import ops
from cgnrt.batch import BFloat16Array
from cgnrt.plan import Plan
from cgnrt.render.pixels import PixelFormat


class Composer:
    """Blends, rolls, scales, casts and lays out the pictures of one plan, all in one pass."""

    def __init__(self, plan: Plan, pixels: PixelFormat, threads: int | None) -> None:
        self._resolution = plan.manifest.resolution
        self._outputs = [spec for m in plan.mechanisms.values() for spec in m.spec.outputs]
        self._clamp = plan.mechanisms["texture"].spec.range
        self._has_rolls = any(m.spec.roll for m in plan.mechanisms.values())
        self._pixels = pixels
        self._threads = threads or 0

    def images(self, n: int, out: Any) -> Any:
        """Where n images go: `out` if its shape is right, else new memory (bfloat16 as its bits)."""
        if out is None:
            return self._pixels.empty(n, *self._resolution)
        check_out(out, self._pixels.shape(n, *self._resolution))
        # No image is composed, but what else is wrong with `out` is told before the networks run.
        self.compose(self.empty_parts(0), None, np.zeros((0, 2, 2), np.int32), out[:0])
        return out

    def wrap(self, images: Any) -> Any:
        """The images as the batch shows them."""
        bits = self._pixels.dtype == "bfloat16" and isinstance(images, np.ndarray)
        return BFloat16Array(images) if bits else images

    def compose(
        self, pictures: Mapping[str, np.ndarray], index: np.ndarray | None, rolls: np.ndarray, images: Any
    ) -> None:
        """Write images.

        Args:
          pictures: "mask" (M, 1, h, w), "foreground" (F, 3, h, w), "background" (B, 3, h, w), float32.
          index: (n, 3) int32 rows of them; None pairs them in order.
          rolls: (n, 2, 2) int32, of foreground and background.
          images: what `images` gave.
        """
        ops.compose(
            pictures["mask"],
            pictures["foreground"],
            pictures["background"],
            index,
            rolls=rolls if self._has_rolls or rolls.any() else None,
            dtype=self._pixels.dtype,
            layout=self._pixels.layout,
            scale=self._pixels.scale,
            bias=self._pixels.bias,
            clamp=self._clamp,
            out=images,
            threads=self._threads,
        )

    def empty_parts(self, n: int) -> dict[str, np.ndarray]:
        """Memory for every named output of the plan, float32 (n, c, h, w)."""
        return {
            spec.name: np.empty((n, *(int(size) for size in spec.shape[1:])), np.float32)
            for spec in self._outputs
        }

    @staticmethod
    def keep(
        parts: Mapping[str, np.ndarray], pictures: Mapping[str, np.ndarray], rolls: np.ndarray, where: slice
    ) -> None:
        """Copy pictures into `parts[...][where]`, foreground and background as composed, after the roll."""
        for name, picture in pictures.items():
            if name in ("foreground", "background"):
                picture = roll_each(picture, rolls[:, 0 if name == "foreground" else 1])
            parts[name][where] = picture


def check_out(out: Any, expected: tuple[int, ...]) -> None:
    """Refuse an `out` of another shape than the images."""
    if tuple(getattr(out, "shape", ())) != expected:
        found = tuple(out.shape) if hasattr(out, "shape") else out
        raise ValueError(f"sample: out is {found!r}, expected shape {expected}.")


def roll_each(pictures: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Shift picture i of (n, c, h, w) cyclically by `shifts[i]` = (dy, dx)."""
    n, _, height, width = pictures.shape
    rows = (np.arange(height) - shifts[:, :1]) % height
    columns = (np.arange(width) - shifts[:, 1:]) % width
    rolled: np.ndarray = pictures[np.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return rolled.transpose(0, 3, 1, 2)
