"""What the networks read: host arrays sent to the device once for a request, and cut into chunks there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from cgnrt.plan import Mechanism
from cgnrt.render.device import RenderDevice
from cgnrt.sampling import NoiseDraw


class Uploaded:
    """Host arrays and their copies on the device, made in one upload. `uploaded[array]` is the copy of an array."""

    def __init__(self, device: RenderDevice, arrays: Iterable[np.ndarray | None]) -> None:
        here = {id(array): array for array in arrays if array is not None}
        self._here = here  # keeps them alive: their ids are the keys
        self._there = dict(zip(here, device.upload(list(here.values())), strict=True))

    def __getitem__(self, array: np.ndarray) -> Any:
        return self._there[id(array)]


@dataclass(eq=False)
class NoiseInput:
    """The noise that one mechanism reads for n samples.

    Attributes:
      indices: int64 (n,), what it is drawn for.
      given: float32 (n, z), which is read instead.
      truncation: float32 (n, 1) factors, or None.
    """

    seed: int
    draw: NoiseDraw
    indices: np.ndarray
    given: np.ndarray | None = None
    truncation: np.ndarray | None = None

    def arrays(self) -> list[np.ndarray | None]:
        """What has to be uploaded first."""
        return [self.indices if self.given is None else self.given, self.truncation]

    def same(self, other: NoiseInput) -> bool:
        """Whether another mechanism of the same request reads the same noise."""
        return self.given is None and other.given is None and self.draw.slot == other.draw.slot

    def make(self, device: RenderDevice, uploaded: Uploaded, part: slice) -> Any:
        """The noise of some of the samples on the device, float32 (n, z) after truncation."""
        if self.given is None:
            drawn_for = self.indices[part]
            noise = device.draw_noise(self.draw, self.seed, drawn_for, uploaded[self.indices][part])
        else:
            noise = uploaded[self.given][part]
        if self.truncation is None:
            return noise
        return device.scale_rows(noise, uploaded[self.truncation][part])


def network_inputs(
    mechanism: Mechanism, noise: Any, embedding: Any, truncation: Any | None
) -> dict[str, Any]:
    """The named inputs of a mechanism's graph; `truncation`, (n, 1), only where it reads that."""
    inputs = {"noise": noise, "class_embedding": embedding}
    if truncation is not None and any(spec.name == "truncation" for spec in mechanism.spec.inputs):
        inputs["truncation"] = truncation
    return inputs


def output_shapes(mechanism: Mechanism) -> dict[str, tuple[int, ...]]:
    """Name and shape (c, h, w) of a mechanism's outputs."""
    return {spec.name: tuple(int(size) for size in spec.shape[1:]) for spec in mechanism.spec.outputs}
