"""In which order a run sees its samples: a function of their numbers alone, so that a resumed run sees the same."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class Order:
    """Numbers 0, 1, ... -> indices below n, every epoch in an order of its own."""

    def __init__(self, n: int, seed: int) -> None:
        self.n = n
        self.seed = seed
        self._orders: dict[int, NDArray[np.int64]] = {}

    def __call__(self, start: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Epochs (count,) and indices within them (count,) of numbers start, start + 1, ..."""
        epochs, places = np.divmod(np.arange(start, start + count, dtype=np.int64), self.n)
        wanted = np.unique(epochs).tolist()
        self._orders = {e: self._orders[e] if e in self._orders else self._order(e) for e in wanted}
        indices = np.empty(count, np.int64)
        for epoch in wanted:
            chosen = epochs == epoch
            indices[chosen] = self._orders[epoch][places[chosen]]
        return epochs, indices

    def _order(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng([self.seed, epoch]).permutation(self.n)
