"""Pools: the networks run once an entry, the composer once an image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from cgnrt.plan import Plan
from cgnrt.render.networks import PICTURES, Networks, chunks
from cgnrt.sampling import MECHANISMS, DrawOptions, Labels, Noise, Sampler

_LEAST_EXTRA = 64  # so that a renewing pool of few entries is not made one by one


@dataclass(frozen=True)
class PoolKey:
    """What the entries of a pool depend on; `refresh` only that another one is another pool."""

    options: DrawOptions
    sizes: tuple[int, int, int]
    truncation: float | None
    refresh: int | None = None


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


@dataclass(frozen=True)
class Places:
    """Where samples find their entries of one mechanism, once those that were missing are made.

    Attributes:
      index: int32 (n,) slots, one for each sample.
      missing, slots: int64 (m,) the entries that are to be made, and the slots that they go to; both in order.
    """

    index: np.ndarray
    missing: np.ndarray
    slots: np.ndarray


class Slots:
    """Where the entries of one mechanism of a renewing pool are held: entry numbers to rows of its memory.

    Entries are told of only when their pictures are there, so that a network that fails, or a fork in between, leaves
    no entry that is none.
    """

    def __init__(self, count: int) -> None:
        self._slots: dict[int, int] = {}  # by entry
        self._free = set(range(count))

    def place(self, entries: np.ndarray, window: tuple[int, int]) -> Places:
        """Slots for one entry a sample. If there are not enough, other entries leave.

        First all that are outside the window (first, last + 1); if that is not enough, the oldest in it.
        """
        wanted = set(entries.tolist())
        missing = sorted(wanted - self._slots.keys())
        if len(missing) > len(self._free):
            low, high = window
            spare = sorted(self._slots.keys() - wanted)
            outside = [entry for entry in spare if not low <= entry < high]
            inside = [entry for entry in spare if low <= entry < high]
            short = max(0, len(missing) - len(self._free) - len(outside))
            self._free.update(self._slots.pop(entry) for entry in outside + inside[:short])
        found = dict(zip(missing, sorted(self._free), strict=False))
        slots = np.array(list(found.values()), np.int64)
        found |= self._slots
        index = np.array([found[entry] for entry in entries.tolist()], np.int32)
        return Places(index, np.array(missing, np.int64), slots)

    def fill(self, slots: np.ndarray, entries: np.ndarray) -> None:
        """The pictures of these entries are there now."""
        self._free.difference_update(slots.tolist())
        self._slots.update(zip(entries.tolist(), slots.tolist(), strict=True))


@dataclass(frozen=True)
class Renewal:
    """Which entries the samples of a renewing pool are composed from, and how many are held.

    Sample i is composed from entries `i // refresh + pick`, by picks below the pool's sizes.

    Attributes:
      chunk: how many entries the engines take at once.
    """

    sizes: tuple[int, int, int]
    refresh: int
    chunk: int

    @property
    def extra(self) -> int:
        """Slots beyond the window of one sample: entries that are made at once, but no pool more than doubles."""
        return min(self.chunk, max(_LEAST_EXTRA, *self.sizes))

    @property
    def slots(self) -> tuple[int, int, int]:
        """How many entries of each mechanism are held."""
        shape, texture, background = (size + self.extra for size in self.sizes)
        return shape, texture, background

    def entries(self, picks: np.ndarray, indices: np.ndarray) -> np.ndarray:
        """Stream numbers of each sample's entries, int64 (n, 3)."""
        return (indices // self.refresh)[:, None] + picks.astype(np.int64)

    def windows(self, indices: np.ndarray) -> list[tuple[int, int]]:
        """For each mechanism the first entry that these samples may be composed from, and the one after the last."""
        low, high = int(indices.min()) // self.refresh, int(indices.max()) // self.refresh
        return [(low, high + size) for size in self.sizes]

    def parts(self, n: int) -> Iterator[slice]:
        """Cut n samples so that each part's entries fit the slots, whatever its indices are.

        Of consecutive samples, no entry that a later part needs has to leave for one of this part.
        """
        most = min(min(self.slots), self.extra * self.refresh)
        for low in range(0, n, most):
            yield slice(low, min(low + most, n))

    @staticmethod
    def labels(sampler: Sampler, options: DrawOptions, entries: np.ndarray) -> Labels:
        """The labels of samples composed from `entries`, (n, 3)."""
        columns = np.ascontiguousarray(entries.T)
        shape, texture, background = (
            sampler.labels(options, name, column) for name, column in zip(MECHANISMS, columns, strict=True)
        )
        return Labels(shape, texture, background)


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
            self.sampler.noise(self.options, name, np.ascontiguousarray(self.index[:, column], np.int64))
            for column, name in enumerate(MECHANISMS)
        )
        return Noise(shape, texture, background, self.sampler.rolls(self.options, self.indices))
