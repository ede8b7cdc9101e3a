"""The three mechanisms of one plan, compiled in this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np

from cgnrt.backends import Choice
from cgnrt.backends.base import Engine
from cgnrt.plan import Mechanism, Plan
from cgnrt.plan.limits import PICTURES as PICTURES
from cgnrt.sampling import MECHANISMS

# Beyond some 64 pictures of 32 x 32 no engine gained from a larger batch, and the activations of such a chunk stay in
# the last-level cache. Larger pictures get fewer per chunk.
_CHUNK_PIXELS = 128 * 32 * 32


class Networks:
    """Engines of a plan. `lock` is held while outputs, which the engines own, are in use."""

    def __init__(self, plan: Plan, choice: Choice, threads: int | None) -> None:
        self.lock = threading.Lock()
        self._mechanisms = plan.mechanisms
        self._engines: dict[str, Engine] = {}
        for name in MECHANISMS:
            self._engines[name] = choice.load(name, threads)
            # An engine that keeps reading the plan gets its pages back; one with a copy of its own frees them.
            plan.release_pages()

    def run(
        self, name: str, noise: np.ndarray, embedding: np.ndarray, truncation: np.ndarray | None
    ) -> dict[str, np.ndarray]:
        """One mechanism's named outputs for one chunk, good until its next run.

        Args:
          noise: (n, z) float32 before truncation.  embedding: (n, e) float32.  truncation: (n, 1) float32.
        """
        mechanism: Mechanism = self._mechanisms[name]
        inputs = {"noise": noise, "class_embedding": embedding}
        if truncation is not None:
            inputs["noise"] = noise * truncation
            if any(spec.name == "truncation" for spec in mechanism.spec.inputs):
                inputs["truncation"] = truncation
        return self._engines[name].run(inputs)


def chunks(n: int, resolution: tuple[int, int], pixels: int = _CHUNK_PIXELS) -> Iterator[slice]:
    """Cut n samples into slices of nearly one size, none of more pixels than suit the engines."""
    count = -(-n // largest_chunk(resolution, pixels))
    for k in range(count):
        yield slice(n * k // count, n * (k + 1) // count)


def largest_chunk(resolution: tuple[int, int], pixels: int = _CHUNK_PIXELS) -> int:
    """How many samples a chunk has at most."""
    return max(1, pixels // (resolution[0] * resolution[1]))
