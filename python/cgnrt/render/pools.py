"""Pools: each network runs once for an entry, the composer once for an image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any, NamedTuple

import numpy as np

from cgnrt._support.forking import cached_property
from cgnrt.plan import MECHANISMS, PICTURES, Plan
from cgnrt.render.banks import BankPictures
from cgnrt.render.device import RenderDevice, Uploaded, output_shapes
from cgnrt.render.inputs import NoiseInput, network_inputs
from cgnrt.sampling import DrawOptions, Labels, Noise, Sampler

_LEAST_EXTRA = 64  # so that a renewing pool of few entries is not made one by one


class PoolKey(NamedTuple):
    """What a pool depends on.

    Attributes:
      sizes: entries that a sample may be composed from: masks, foregrounds, backgrounds.
      refresh: after how many samples the oldest entries leave for new ones; None keeps the first ones, a fixed pool.
    """

    options: DrawOptions
    sizes: tuple[int, int, int]
    truncation: float | None
    refresh: int | None = None


@dataclass(frozen=True)
class PoolLayout:
    """Which entries the samples of a pool are composed from, and how many are held.

    A sample has a pick for each mechanism, below the pool's size. In a fixed pool the pick is the entry; in a renewing
    pool sample i is composed from entry `i // refresh + pick`.

    Attributes:
      chunk: how many entries the engines take at once.
      composed: how many samples are composed in one call, at most: Ctrl-C is answered between two calls.
    """

    sizes: tuple[int, int, int]
    refresh: int | None
    chunk: int
    composed: int = 1 << 14

    @cached_property
    def extra(self) -> int:
        """Rows beyond the window of one sample: entries that are made at once, but no pool more than doubles."""
        return 0 if self.refresh is None else min(self.chunk, max(_LEAST_EXTRA, *self.sizes))

    @cached_property
    def rows(self) -> tuple[int, int, int]:
        """How many entries of each mechanism are held."""
        shape, texture, background = (size + self.extra for size in self.sizes)
        return shape, texture, background

    def entries(self, picks: np.ndarray, indices: np.ndarray) -> np.ndarray:
        """Stream numbers of each sample's entries, (n, 3): int32 in a fixed pool, else int64."""
        if self.refresh is None:
            return picks
        return (indices // self.refresh)[:, None] + picks.astype(np.int64)

    def windows(self, indices: np.ndarray) -> list[tuple[int, int]]:
        """For each mechanism the first entry that these samples may be composed from, and the one after the last."""
        low, high = self._first(int(indices.min())), self._first(int(indices.max()))
        return [(low, high + size) for size in self.sizes]

    def _first(self, index: int) -> int:
        return 0 if self.refresh is None else index // self.refresh

    def parts(self, n: int) -> Iterator[slice]:
        """Cut n samples so that each part's entries fit the rows, whatever its indices are.

        Of consecutive samples, no entry that a later part needs has to leave for one of this part.
        """
        most = self.composed
        if self.refresh is not None:
            most = min(most, min(self.rows), self.extra * self.refresh)
        for low in range(0, n, most or 1):
            yield slice(low, min(low + most, n))


@dataclass(frozen=True)
class Places:
    """Where samples find their entries of one mechanism, once those that were missing are made.

    Attributes:
      index: int32 (n,) slots, one for each sample.
      missing, slots: int64 (m,): the entries that are to be made, and their slots; both in rising order.
    """

    index: np.ndarray
    missing: np.ndarray
    slots: np.ndarray


_NONE = np.empty(0, np.int64)


class Slots:
    """Where the entries of one mechanism of a renewing pool are held: entry numbers to rows of its memory.

    An entry is recorded only when its picture is there: a network that fails, or a fork in between, leaves no entry
    without one.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._entries = np.empty(0, np.int64)  # in rising order
        self._slots = np.empty(0, np.int64)  # of each

    def __len__(self) -> int:
        return len(self._entries)

    def place(self, entries: np.ndarray, window: tuple[int, int]) -> Places:
        """Slots for the entries of samples, one each. If there are not enough, other entries leave.

        First all outside the window (first, last + 1) leave; if that is not enough, the oldest inside.
        """
        at, held = self._find(entries)
        if held.all():
            return Places(self._slots[at].astype(np.int32), _NONE, _NONE)
        missing = np.unique(entries[~held])
        self._leave(entries, window, len(missing) + len(self) - self._count)
        taken = np.zeros(self._count, bool)
        taken[self._slots] = True
        slots = np.flatnonzero(~taken)[: len(missing)]
        at, held = self._find(entries)
        index = np.empty(len(entries), np.int32)
        index[held] = self._slots[at[held]]
        index[~held] = slots[np.searchsorted(missing, entries[~held])]
        return Places(index, missing, slots)

    def fill(self, slots: np.ndarray, entries: np.ndarray) -> None:
        """Record that the pictures of these entries are there."""
        every = np.concatenate([self._entries, entries])
        order = every.argsort()
        self._entries, self._slots = every[order], np.concatenate([self._slots, slots])[order]

    def _find(self, entries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where entries would be in `_entries`, and which of them are there."""
        if not len(self):
            return np.zeros(len(entries), np.int64), np.zeros(len(entries), bool)
        at = np.minimum(np.searchsorted(self._entries, entries), len(self) - 1)
        return at, self._entries[at] == entries

    def _leave(self, wanted: np.ndarray, window: tuple[int, int], count: int) -> None:
        """Make at least `count` slots free, if any."""
        if count <= 0:
            return
        low, high = np.searchsorted(self._entries, window)
        if (short := count - (len(self) - int(high - low))) > 0:
            oldest = np.setdiff1d(self._entries[low:high], wanted)[:short]
            stays = ~np.isin(self._entries[low:high], oldest)
            self._entries, self._slots = self._entries[low:high][stays], self._slots[low:high][stays]
        else:
            self._entries, self._slots = self._entries[low:high], self._slots[low:high]


class NewEntries(NamedTuple):
    """Entries of one mechanism that are to be made.

    Attributes:
      entries, rows, labels: int64 (m,): their stream numbers, their rows in the pool in rising order, their labels.
    """

    mechanism: str
    entries: np.ndarray
    rows: np.ndarray
    labels: np.ndarray
    noise: NoiseInput


class Pool:
    """Pictures on a device of entries that many images are composed from.

    Entry e of a mechanism is what stream sample e draws for it. A fixed pool holds entries 0 to size - 1, each in the
    row of its number. A renewing pool holds those that samples were last composed from, in rows that are used again.

    Attributes:
      pictures: by output name, float32, or bytes of banks, before any roll: mask (M, 1, h, w), foreground (F, 3, h, w),
        background (B, 3, h, w), a row for each entry that is held, or all of a raw bank; and every other output once
        `prepare` was asked for parts.
    """

    def __init__(
        self, key: PoolKey, layout: PoolLayout, plan: Plan, sampler: Sampler, pictures: BankPictures
    ) -> None:
        self.key = key
        self.layout = layout
        self.pictures: dict[str, Any] = {}
        self._networks, self._banks = plan.networks, plan.banks
        self._bank_pictures = pictures
        self._entries: dict[
            str, np.ndarray
        ] = {}  # of banks that are composed in place: the entry of each row
        self._shapes = {name: output_shapes(plan.mechanisms[name]) for name in MECHANISMS}
        self._resolution = (plan.manifest.resolution[0], plan.manifest.resolution[1])
        self._sampler = sampler
        self._slots: dict[str, Slots] = {}  # of a renewing pool
        self._labels = {name: np.empty(count, np.int64) for name, count in self._counts()}
        self._complete = False

    def has(self, *, parts: bool) -> bool:
        """Whether every picture is kept that is composed or, with `parts`, handed out."""
        return self._complete or not parts

    def prepare(self, device: RenderDevice, *, parts: bool) -> None:
        """Take memory for the pictures, and make those of a fixed pool.

        A mechanism whose pictures are all kept already does not run again.
        """
        new = []
        for name, count in self._counts():
            outputs = self._outputs(name, parts)
            if outputs.keys() <= self.pictures.keys():
                continue
            bytes_stay = name in self._banks and device.composes_banks
            if bytes_stay and self._bank_pictures.in_place(name):
                self._entries[name] = np.zeros(count, np.int64)
                self.pictures[PICTURES[name]] = self._banks[name].pictures
            for output in outputs.keys() - self.pictures.keys():
                dtype = "uint8" if bytes_stay else "float32"
                self.pictures[output] = device.empty((count, *outputs[output]), dtype)
            if self.key.refresh is not None:
                self._slots[name] = Slots(count)  # without those that were made before
            else:
                numbers = np.arange(count, dtype=np.int64)
                new.append(self._new(name, numbers, numbers))
        if new:
            self._make(device, new)
        self._complete = all(shapes.keys() <= self.pictures.keys() for shapes in self._shapes.values())

    def labels(self, rows: np.ndarray) -> Labels:
        """Labels of samples that are composed from `rows`, (n, 3)."""
        shape, texture, background = (
            self._labels[name][column] for name, column in zip(MECHANISMS, rows.T, strict=True)
        )
        return Labels(shape, texture, background)

    def picture_rows(self, rows: np.ndarray, index: Any) -> tuple[np.ndarray, Any]:
        """Rows of `pictures`, on the host and the device, for the pool's rows of samples that `find` gave."""
        if not self._entries:
            return rows, index
        found = rows.astype(np.int64)
        for column, name in enumerate(MECHANISMS):
            if name in self._entries:
                found[:, column] = self._entries[name][rows[:, column]]
        return found, found

    def find(
        self, device: RenderDevice, entries: np.ndarray, uploaded: Any, indices: np.ndarray
    ) -> tuple[np.ndarray, Any]:
        """The rows of the entries that samples are composed from, int32 (n, 3), on the host and on the device.

        Entries that are not held are made. The caller holds the device's lock until the samples are composed.

        Args:
          entries: (n, 3); `uploaded` is the same on the device.  indices: int64 (n,), of the samples.
        """
        if self.key.refresh is None:
            return entries, uploaded
        windows = self.layout.windows(indices)
        places = [
            self._slots[name].place(wanted, window)
            for name, wanted, window in zip(MECHANISMS, entries.T, windows, strict=True)
        ]
        rows = np.stack([place.index for place in places], axis=1)
        new = [
            self._new(name, place.missing, place.slots)
            for name, place in zip(MECHANISMS, places, strict=True)
            if len(place.missing)
        ]
        return rows, self._make(device, new, rows)[rows]

    def _counts(self) -> Iterator[tuple[str, int]]:
        return zip(MECHANISMS, self.layout.rows, strict=True)

    def _new(self, name: str, entries: np.ndarray, rows: np.ndarray) -> NewEntries:
        options, truncation = self.key.options, self.key.truncation
        draw = self._sampler.noise_draw(options, name)
        factors = None if truncation is None else np.full((len(entries), 1), truncation, np.float32)
        noise = NoiseInput(options.seed, draw, draw.indices(entries), truncation=factors)
        return NewEntries(name, entries, rows, self._sampler.labels(options, name, entries), noise)

    def _make(
        self, device: RenderDevice, new: Sequence[NewEntries], index: np.ndarray | None = None
    ) -> Uploaded:
        """Run the networks for entries of several mechanisms; `index` is uploaded with what they read."""
        read = (array for e in new for array in (e.labels, *e.noise.arrays()))
        uploaded = device.uploaded([index, *read])
        # A chunk of every mechanism at once: they may overlap, and hold no more than one chunk each beside the pool.
        cut = (device.chunks(len(e.entries), self._resolution) for e in new)
        for parts in zip_longest(*cut):
            started = [(e, part) for e, part in zip(new, parts, strict=True) if part is not None]
            found: list[dict[str, Any]] = []
            try:
                for e, part in started:
                    found.append(self._start(device, e, uploaded, part))
            finally:  # of a round that fails half-way, what was made is kept
                device.join()
                for (e, part), outputs in zip(started, found, strict=False):
                    for name, pictures in outputs.items():
                        device.put(pictures, self.pictures[name], e.rows[part])
                    self._labels[e.mechanism][e.rows[part]] = e.labels[part]
                    if e.mechanism in self._slots:
                        self._slots[e.mechanism].fill(e.rows[part], e.entries[part])
        return uploaded

    def _start(
        self, device: RenderDevice, new: NewEntries, uploaded: Uploaded, part: slice
    ) -> dict[str, Any]:
        """Run one network for some of its entries. Returns the pictures that it did not write into the pool itself."""
        name, rows = new.mechanism, new.rows[part]
        if name in self._banks:
            entries = self._banks[name].entries(new.labels[part], new.noise.words(part))
            if name in self._entries:
                self._bank_pictures.find(name, entries)  # which checks them
                self._entries[name][rows] = entries
                return {}
            read = self._bank_pictures.read(name, entries)
            return {PICTURES[name]: read} if device.composes_banks else device.bank_pictures(name, read)
        kept = self._outputs(name, True).keys() & self.pictures.keys()
        low, high = int(rows[0]), int(rows[-1]) + 1
        into = (
            {output: self.pictures[output][low:high] for output in kept} if high - low == len(rows) else None
        )
        noise = new.noise.make(device, uploaded, part)
        embedding = device.embedding(name, uploaded[new.labels][part])
        factors = None if new.noise.truncation is None else uploaded[new.noise.truncation][part]
        inputs = network_inputs(self._networks[name], noise, embedding, factors)
        outputs = device.run(name, inputs, into)
        return {} if into is not None else {output: outputs[output] for output in kept}

    def _outputs(self, name: str, parts: bool) -> dict[str, tuple[int, ...]]:
        """Name and shape (c, h, w) of a mechanism's outputs: its picture, with `parts` all."""
        shapes = self._shapes[name]
        return shapes if parts else {PICTURES[name]: shapes[PICTURES[name]]}


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

    def cut(self, part: slice) -> PoolNoise:
        """That of some of the samples."""
        return replace(self, index=self.index[part], indices=self.indices[part])
