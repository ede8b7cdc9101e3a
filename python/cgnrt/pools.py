"""Pools: the networks run once an entry, the composer once an image."""

from __future__ import annotations

from collections.abc import Mapping
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
      pictures: by output name, float32, before any roll: mask (M, 1, h, w), foreground (F, 3, h, w), background
        (B, 3, h, w); and pre_mask (M, c, h, w) if it was asked for and the plan has it.
      labels: int64 (M,), (F,), (B,).
    """

    key: PoolKey
    pictures: dict[str, np.ndarray]
    labels: Labels

    @classmethod
    def build(
        cls,
        key: PoolKey,
        plan: Plan,
        sampler: Sampler,
        networks: Networks,
        *,
        parts: bool = False,
        kept: Mapping[str, np.ndarray] | None = None,
    ) -> Pool:
        """Run each mechanism for the entries of its pool.

        Args:
          parts: keep every output, also those that are not composed.
          kept: pictures of a pool with this key; a mechanism whose outputs are all there does not run again.
        """
        pictures = dict(kept or {})
        labels = []
        height, width = plan.manifest.resolution
        for name, size in zip(MECHANISMS, key.sizes, strict=True):
            entries = np.arange(size, dtype=np.int64)
            found = sampler.labels(key.options, name, entries)
            labels.append(found)
            wanted = outputs_of(plan, name, parts)
            if set(wanted) <= set(pictures):
                continue
            arrays = {output: np.empty((size, *shape), np.float32) for output, shape in wanted.items()}
            for part in chunks(size, (height, width)):
                noise = sampler.noise(key.options, name, entries[part])
                truncation = None
                if key.truncation is not None:
                    truncation = np.full((len(noise), 1), key.truncation, np.float32)
                with networks.lock:
                    outputs = networks.run(
                        name, noise, plan.mechanisms[name].embedding[found[part]], truncation
                    )
                    for output, array in arrays.items():
                        array[part] = outputs[output]
            pictures |= arrays
        return cls(key, pictures, Labels(*labels))

    def has(self, plan: Plan, *, parts: bool) -> bool:
        """Whether every picture is here that is composed or, with `parts`, handed out."""
        return all(set(outputs_of(plan, name, parts)) <= set(self.pictures) for name in MECHANISMS)


def outputs_of(plan: Plan, mechanism: str, parts: bool) -> dict[str, tuple[int, ...]]:
    """Name and shape (c, h, w) of the outputs that a pool keeps: the picture, with `parts` all."""
    return {
        spec.name: tuple(int(size) for size in spec.shape[1:])
        for spec in plan.mechanisms[mechanism].spec.outputs
        if parts or spec.name == PICTURES[mechanism]
    }


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
