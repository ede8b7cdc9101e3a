"""From what a caller asks for to a checked `Request`: options, labels, noise, interpolation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cgnrt.sampling import MECHANISMS, DrawOptions, Labels, Noise, Sampler


@dataclass(frozen=True)
class Request:
    """A checked request for n images: labels are set, noise is drawn chunk by chunk.

    Attributes:
      indices: (n,) int64 stream indices.
      options: what the draws depend on.
      labels: int64 (n,) each.
      given: the caller's noise; None entries are drawn.
      truncation: (n, 1) float32 factor of the noise, None for plans without one.
    """

    sampler: Sampler
    indices: np.ndarray
    options: DrawOptions
    labels: Labels
    given: tuple[np.ndarray | None, ...]
    truncation: np.ndarray | None

    def noise(self, part: slice = slice(None)) -> Noise:
        """Noise and rolls of some of the samples."""
        indices = self.indices[part]
        shape, texture, background = (
            self.sampler.noise(self.options, name, indices) if given is None else given[part]
            for name, given in zip(MECHANISMS, self.given[:3], strict=True)
        )
        return Noise(shape, texture, background, self.rolls(part))

    def rolls(self, part: slice = slice(None)) -> np.ndarray:
        """The rolls of some of the samples, int32 (n, 2, 2)."""
        given = self.given[3]
        return self.sampler.rolls(self.options, self.indices[part]) if given is None else given[part]

    def cut(self, part: slice) -> Request:
        """A request for some of the samples."""
        return replace(
            self,
            indices=self.indices[part],
            labels=Labels(*(column[part] for column in self.labels)),
            given=tuple(None if array is None else array[part] for array in self.given),
            truncation=None if self.truncation is None else self.truncation[part],
        )


def merge_requests(requests: Sequence[Request]) -> Request:
    """One request for the samples of several, whose noise is drawn here: of one plan, whatever their seeds."""
    first = requests[0]
    noise = [request.noise() for request in requests]
    truncation = None
    if first.truncation is not None:
        truncation = np.concatenate([request.truncation for request in requests])
    return replace(
        first,
        indices=np.concatenate([request.indices for request in requests]),
        labels=Labels(*map(np.concatenate, zip(*(request.labels for request in requests), strict=True))),
        given=tuple(map(np.concatenate, zip(*noise, strict=True))),
        truncation=truncation,
    )
