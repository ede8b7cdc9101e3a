"""Pictures on a torus for the engine of small generators, read from graphs that make each picture with its border.

`cgnrt-export` gives a graph whose convolutions pad with the opposite side a form without padding: the linear layer
makes the first picture with a periodic border of one pixel, and every layer keeps it, up-sampling as a 2x2 convolution
and depth-to-space. The engine needs none of this: it makes the pictures without their border, and its convolutions read
the opposite side (`wrap`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cgnrt.backends.native.graph import UnsupportedGraphError

# The two outputs of the window at pixels j and j + 1 as taps of the transposed convolution, by output and pixel.
_TAPS = ((2, 0), (3, 1))
_ELEMENTWISE = ("leaky_relu", "tanh", "clip")


@dataclass
class LayerProgram:
    """Constructor arguments of `_core.SmallGenerator`. `inputs` are the graph's, in the order that joins them."""

    inputs: list[str]
    widths: list[int]
    weight: np.ndarray
    bias: np.ndarray
    shape: list[int]
    layers: list[dict[str, Any]] = field(default_factory=list)


class Border:
    """Whether the graph's picture has a periodic border at the layer that is being read.

    The first convolution tells: one without padding needs it, and then the linear layer must have made it.
    """

    def __init__(self, program: LayerProgram) -> None:
        self._program = program
        self._there: bool | None = None  # None until a layer tells

    def follow(self, layer: dict[str, Any]) -> None:
        """Read one more layer.

        Raises:
          UnsupportedGraphError: the layer cannot be where it is.
        """
        if layer["kind"] in _ELEMENTWISE:
            return
        wrap = bool(layer.get("wrap"))
        if self._there is None:
            self._there = wrap
            if wrap:
                self._cut()
        if wrap != self._there:
            kind = "with" if self._there else "without"
            raise UnsupportedGraphError(
                f"{layer['kind']} of another padding on a picture {kind} a periodic border"
            )
        if layer["kind"] == "conv3":
            self._there = False

    def finish(self) -> None:
        """After the last layer."""
        if self._there:
            raise UnsupportedGraphError("graphs whose output has a periodic border")

    def _cut(self) -> None:
        """Leave the border's rows out of the linear layer, where they repeat the others."""
        program = self._program
        channels, height, width = program.shape
        inside = (slice(None), slice(1, -1), slice(1, -1))
        for name in ("weight", "bias"):
            values: np.ndarray = getattr(program, name)
            pictures = values.reshape(channels, height, width, -1)
            core = pictures[inside]
            if 0 in core.shape or not np.array_equal(
                np.pad(core, ((0, 0), (1, 1), (1, 1), (0, 0)), "wrap"), pictures
            ):
                raise UnsupportedGraphError(
                    "convolutions without padding on a picture without a periodic border"
                )
            setattr(program, name, np.ascontiguousarray(core).reshape(-1, *values.shape[1:]))
        program.shape = [channels, height - 2, width - 2]


def unpack_windows(weight: np.ndarray, bias: np.ndarray, mode: object) -> tuple[np.ndarray, np.ndarray]:
    """The transposed convolution of a 2x2 convolution and depth-to-space by 2.

    Args:
      weight: (4 out, in, 2, 2).  bias: (4 out,).
      mode: of depth-to-space, "DCR" or "CRD".
    Returns:
      (in, out, 4, 4) and (out,).
    Raises:
      UnsupportedGraphError: there are not four outputs a channel, or their biases differ.
    """
    if len(weight) % 4:
        raise UnsupportedGraphError(f"depth-to-space of {len(weight)} channels")
    c_out, c_in = len(weight) // 4, weight.shape[1]
    if mode == "DCR":
        windows, offsets = weight.reshape(4, c_out, c_in, 2, 2).swapaxes(0, 1), bias.reshape(4, c_out).T
    else:
        windows, offsets = weight.reshape(c_out, 4, c_in, 2, 2), bias.reshape(c_out, 4)
    if (offsets != offsets[:, :1]).any():
        raise UnsupportedGraphError("depth-to-space of outputs with different biases")
    windows = windows.reshape(c_out, 2, 2, c_in, 2, 2)  # out, y, x, in, window y, window x
    taps = np.empty((c_in, c_out, 4, 4), weight.dtype)
    for y in range(2):
        for x in range(2):
            for j in range(2):
                for k in range(2):
                    taps[:, :, _TAPS[y][j], _TAPS[x][k]] = windows[:, y, x, :, j, k].T
    return taps, np.ascontiguousarray(offsets[:, 0])
