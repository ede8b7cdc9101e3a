"""A renewing pool on the host: a few entries are new for every batch, the others are composed from again."""

from __future__ import annotations

import numpy as np

from cgnrt.plan import Plan
from cgnrt.render.networks import Networks, chunks
from cgnrt.render.pools import PoolKey, Renewal, Slots, outputs_of
from cgnrt.sampling import MECHANISMS, Sampler


class RenewingPool:
    """Pictures of the entries that samples were last composed from, in slots that are used again.

    Attributes:
      pictures: as `pools.Pool` has them, one row for each slot.
    """

    def __init__(self, key: PoolKey, renewal: Renewal, plan: Plan, *, parts: bool) -> None:
        self.key = key
        self.renewal = renewal
        self._plan = plan
        self._resolution = (plan.manifest.resolution[0], plan.manifest.resolution[1])
        self._slots = {name: Slots(count) for name, count in zip(MECHANISMS, renewal.slots, strict=True)}
        self._outputs = {name: outputs_of(plan, name, parts) for name in MECHANISMS}
        self.pictures = {
            output: np.empty((count, *shape), np.float32)
            for name, count in zip(MECHANISMS, renewal.slots, strict=True)
            for output, shape in self._outputs[name].items()
        }

    def has(self, *, parts: bool) -> bool:
        """Whether every picture is kept that is composed or, with `parts`, handed out."""
        return all(
            set(outputs_of(self._plan, name, parts)) <= set(kept) for name, kept in self._outputs.items()
        )

    def index(
        self, entries: np.ndarray, indices: np.ndarray, sampler: Sampler, networks: Networks
    ) -> np.ndarray:
        """The slots, int32 (n, 3), of the entries that samples are composed from; makes those that are not held.

        The caller holds the networks' lock, and until the samples are composed.
        """
        found = []
        windows = self.renewal.windows(indices)
        for name, wanted, window in zip(MECHANISMS, entries.T, windows, strict=True):
            places = self._slots[name].place(wanted, window)
            for part in chunks(len(places.missing), self._resolution):
                self._make(name, places.missing[part], places.slots[part], sampler, networks)
                self._slots[name].fill(places.slots[part], places.missing[part])
            found.append(places.index)
        return np.stack(found, axis=1)

    def _make(
        self, name: str, entries: np.ndarray, slots: np.ndarray, sampler: Sampler, networks: Networks
    ) -> None:
        labels = sampler.labels(self.key.options, name, entries)
        noise = sampler.noise(self.key.options, name, entries)
        truncation = None
        if self.key.truncation is not None:
            truncation = np.full((len(entries), 1), self.key.truncation, np.float32)
        embedding = self._plan.mechanisms[name].embedding[labels]
        outputs = networks.run(name, noise, embedding, truncation)
        for output in self._outputs[name]:
            self.pictures[output][slots] = outputs[output]
