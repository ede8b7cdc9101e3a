"""The composer C (Eq. 2) on a device: pictures in, images in the consumer's form out, on one stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cgnrt import cuda, ops
from cgnrt.plan import Plan
from cgnrt.render.composer import check_out
from cgnrt.render.pixels import PixelFormat


class CudaComposer:
    """Blends, rolls, scales, casts and lays out the pictures of one plan, all in one pass."""

    def __init__(self, plan: Plan, pixels: PixelFormat, stream: cuda.Stream) -> None:
        self._resolution = (plan.manifest.resolution[0], plan.manifest.resolution[1])
        self._clamp = plan.mechanisms["texture"].spec.range
        self._pixels = pixels
        self._stream = stream
        self.has_rolls = any(m.spec.roll for m in plan.mechanisms.values())
        # Masks of zero and of one: what is under the one, or behind the other, comes through as it is.
        ends = np.stack([np.zeros((1, *self._resolution)), np.ones((1, *self._resolution))])
        self._ends = cuda.DeviceArray.empty(ends.shape, "float32", stream)
        self._ends.upload(ends.astype(np.float32))

    def images(self, n: int, out: Any) -> Any:
        """Where n images go: `out` if it is fit for them, else new memory."""
        shape = self._pixels.shape(n, *self._resolution)
        if out is None:
            return cuda.DeviceArray.empty(shape, self._pixels.dtype, self._stream)
        check_out(out, shape)
        # No image is composed, but what else is wrong with `out` is told before the networks run.
        nothing = {
            "mask": cuda.DeviceArray.empty((0, 1, *self._resolution), "float32", self._stream),
            "foreground": cuda.DeviceArray.empty((0, 3, *self._resolution), "float32", self._stream),
            "background": cuda.DeviceArray.empty((0, 3, *self._resolution), "float32", self._stream),
        }
        self.compose(nothing, None, None, out[:0])
        return out

    def compose(
        self,
        pictures: Mapping[str, cuda.DeviceArray],
        index: cuda.DeviceArray | None,
        rolls: cuda.DeviceArray | None,
        images: Any,
    ) -> None:
        """Write images; arguments as `Composer.compose` has them, on the device."""
        ops.compose(
            pictures["mask"],
            pictures["foreground"],
            pictures["background"],
            index,
            rolls=rolls,
            dtype=self._pixels.dtype,
            layout=self._pixels.layout,
            scale=self._pixels.scale,
            bias=self._pixels.bias,
            clamp=self._clamp,
            out=images,
            stream=self._stream,
        )

    @staticmethod
    def rows(name: str, entries: np.ndarray) -> np.ndarray:
        """What `keep` takes of a part's entries (n,): int32 (n, 3)."""
        through = np.full(len(entries), int(name == "foreground"))
        return np.stack([through, entries, entries], axis=1).astype(np.int32)

    def keep(
        self,
        name: str,
        picture: cuda.DeviceArray,
        rows: cuda.DeviceArray,
        rolls: cuda.DeviceArray | None,
        out: cuda.DeviceArray,
    ) -> None:
        """Copy entries of a picture into `out`, foreground and background as composed, after the roll.

        Args:
          picture: (k, c, h, w) float32.  rows: (n, 3), as `rows` makes them.  out: (n, c, h, w) float32.
          rolls: as for `compose`.
        """
        moved = rolls if name in ("foreground", "background") else None
        ops.compose(self._ends, picture, picture, rows, rolls=moved, out=out, stream=self._stream)
