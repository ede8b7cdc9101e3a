"""What the networks read: noise, labels and truncation of requests, on the host and on the device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cgnrt.plan import MECHANISMS, Mechanism
from cgnrt.render.device import RenderDevice, Uploaded
from cgnrt.request.resolver import Request
from cgnrt.sampling import NoiseDraw


@dataclass(eq=False)
class NoiseInput:
    """The noise that one mechanism reads for n samples; that of a bank stays on the host (`words`).

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

    def arrays(self) -> Iterator[np.ndarray | None]:
        """What has to be uploaded first."""
        if self.is_word:
            return
        yield self.indices if self.given is None else self.given
        yield self.truncation

    @property
    def is_word(self) -> bool:
        """Whether it is an integer that picks an entry of a bank."""
        return self.draw.distribution == "entry"

    def words(self, part: slice) -> np.ndarray:
        """The noise of a bank for some of the samples, uint32 (n, 1)."""
        if self.given is not None:
            return self.given[part]
        drawn: np.ndarray = self.draw.draw(self.seed, self.indices[part])
        return drawn

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


class RequestInputs:
    """What the networks read for requests that differ in labels only, on the host.

    Attributes:
      rolls: int32 (n, 2, 2), None: nothing is rolled.  place: float32 (n, 4), or None.
      truncation: float32 (n, 1), or None.
      labels: of each request, int64 (n,) each.
      embeddings: float32 (n, e) by mechanism, instead of those of the labels; empty: those of the labels.
    """

    def __init__(
        self,
        requests: Sequence[Request],
        embeddings: Mapping[str, np.ndarray],
        *,
        has_rolls: bool,
    ) -> None:
        first = requests[0]
        rolls = first.rolls()
        self.rolls = rolls if has_rolls or rolls.any() else None
        self.place = first.place
        self.truncation = first.truncation
        self.labels = [request.labels for request in requests]
        self.embeddings = {name: np.asarray(rows, np.float32) for name, rows in embeddings.items()}
        self._indices = first.indices
        self._noise: dict[str, NoiseInput] = {}
        drawn: dict[int, NoiseInput] = {}  # by slot: mechanisms that share their noise read one
        grouped: dict[int, np.ndarray] = {}
        for column, name in enumerate(MECHANISMS):
            given, draw = first.given[column], first.sampler.noise_draw(first.options, name)
            if draw.group not in grouped:
                grouped[draw.group] = draw.indices(first.indices)
            read = NoiseInput(first.options.seed, draw, grouped[draw.group], given, first.truncation)
            self._noise[name] = drawn.setdefault(draw.slot, read) if given is None else read

    def arrays(self) -> Iterator[np.ndarray | None]:
        """What has to be uploaded first."""
        yield self._indices
        yield self.rolls
        yield self.place
        for labels in self.labels:
            yield from labels
        yield from self.embeddings.values()
        for read in self._noise.values():
            yield from read.arrays()

    def draw(self, device: RenderDevice, uploaded: Uploaded, part: slice) -> dict[str, Any]:
        """Each mechanism's noise for some of the samples; what several share is drawn once."""
        made = {
            read: read.words(part) if read.is_word else read.make(device, uploaded, part)
            for read in dict.fromkeys(self._noise.values())
        }
        return {name: made[read] for name, read in self._noise.items()}


def network_inputs(
    mechanism: Mechanism, noise: Any, embedding: Any, truncation: Any | None
) -> dict[str, Any]:
    """The named inputs of a mechanism's graph; `truncation`, (n, 1), only where it reads that."""
    inputs = {"noise": noise, "class_embedding": embedding}
    if truncation is not None and any(spec.name == "truncation" for spec in mechanism.spec.inputs):
        inputs["truncation"] = truncation
    return inputs
