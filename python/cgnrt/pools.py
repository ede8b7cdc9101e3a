"""Pools: the networks run once an entry, the composer once an image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cgnrt.networks import PICTURES, Networks, chunks
from cgnrt.plan import Plan
from cgnrt.sampling import MECHANISMS, DrawOptions, Labels, Noise, Sampler


@dataclass(frozen=True)
class PoolKey:
    """What the entries of a pool depend on."""

    options: DrawOptions
    sizes: tuple[int, int, int]
    truncation: float | None


@dataclass(frozen=True)
class Pool:
    """Pictures and labels of the entries. Entry j is what stream sample j draws for its mechanism.

    Attributes:
      pictures: (M, 1, h, w), (F, 3, h, w), (B, 3, h, w) float32, before any roll.
      labels: int64 (M,), (F,), (B,).
    """

    key: PoolKey
    pictures: tuple[np.ndarray, np.ndarray, np.ndarray]
    labels: Labels

    @classmethod
    def build(cls, key: PoolKey, plan: Plan, sampler: Sampler, networks: Networks) -> Pool:
        """Run each mechanism for the entries of its pool."""
        pictures, labels = [], []
        height, width = plan.manifest.resolution
        for name, size in zip(MECHANISMS, key.sizes, strict=True):
            entries = np.arange(size, dtype=np.int64)
            found = sampler.labels(key.options, name, entries)
            picture = np.empty((size, 1 if name == "shape" else 3, height, width), np.float32)
            for part in chunks(size, (height, width)):
                noise = sampler.noise(key.options, name, entries[part])
                truncation = None
                if key.truncation is not None:
                    truncation = np.full((len(noise), 1), key.truncation, np.float32)
                with networks.lock:
                    outputs = networks.run(
                        name, noise, plan.mechanisms[name].embedding[found[part]], truncation
                    )
                    picture[part] = outputs[PICTURES[name]]
            pictures.append(picture)
            labels.append(found)
        return cls(key, (pictures[0], pictures[1], pictures[2]), Labels(*labels))


@dataclass(frozen=True)
class PoolNoise:
    """The noise behind samples that were composed from `index`, (n, 3), drawn when called."""

    sampler: Sampler
    options: DrawOptions
    index: np.ndarray
    indices: np.ndarray

    def __call__(self) -> Noise:
        shape, texture, background = (
            self.sampler.noise(self.options, name, self.index[:, column].astype(np.int64))
            for column, name in enumerate(MECHANISMS)
        )
        return Noise(shape, texture, background, self.sampler.rolls(self.options, self.indices))
