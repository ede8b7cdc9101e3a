"""What a classifier is trained on: batches as a function of the step alone, and of how many processes share one."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cgnrt import Generator
from cgnrt.real import Exchange, usable
from cgnrt.sampling import MECHANISMS

from ..photos.pack import Photos
from ..runs.order import Order
from .augment import erase, move
from .config import EnsembleConfig

POOL_ENTRIES = 256  # of each mechanism, which are renewed one by one
_GENERATED_SEED = (
    1 << 40
)  # streams of counterfactuals for training begin here; those that judge have lower seeds

Labels = tuple[Tensor, Tensor, Tensor]  # of shape, texture and background, (n,) int64 each


class Source(Protocol):
    """Gives the images of some numbers, float32 in [-1, 1], and their three labels."""

    def draw(self, numbers: NDArray[np.int64]) -> tuple[Tensor, Labels]: ...


@dataclass(frozen=True)
class StepBatch:
    """A process' part of a step's images.

    Attributes:
      real: (n, 3, h, w) float32 in [-1, 1], with labels (n,); None for none.
      counterfactual: (m, 3, h, w), with labels of the three mechanisms; None for none.
      counts: of the whole step's images of both kinds.
    """

    real: tuple[Tensor, Tensor] | None
    counterfactual: tuple[Tensor, Labels] | None
    counts: tuple[int, int]


class PhotoImages:
    """Photos in an order of its own for each epoch. The three labels are the photo's one."""

    def __init__(self, photos: Photos, seed: int) -> None:
        self._photos, self._order = photos, Order(len(photos), seed)

    def draw(self, numbers: NDArray[np.int64]) -> tuple[Tensor, Labels]:
        indices = _ordered(self._order, numbers)
        labels = torch.from_numpy(self._photos.labels[indices].astype(np.int64))
        return scaled(self._photos.images[indices]), (labels, labels, labels)


class PlanImages:
    """Counterfactuals of a plan, which are made while training goes on.

    Args:
      names: the photos' classes, whose indices the labels are.
      reuse: images that are composed for each run of a mechanism; 1 is without a pool.
    Raises:
      ValueError: the plan has other classes.
    """

    def __init__(
        self,
        generator: Generator,
        names: Sequence[str],
        *,
        reuse: int = 1,
        truncation: float = 0.0,
        seed: int = 0,
    ) -> None:
        self._generator, self._seed = generator, _GENERATED_SEED + seed
        self._places = places_of(generator, names)
        self._truncation = truncation or None
        self._pool: dict[str, Any] = {} if reuse == 1 else {"pool": POOL_ENTRIES, "refresh": reuse}

    def draw(self, numbers: NDArray[np.int64]) -> tuple[Tensor, Labels]:
        batch = self._generator.sample(
            indices=numbers, seed=self._seed, truncation=self._truncation, **self._pool
        ).torch()
        shape, texture, background = (
            torch.from_numpy(place).to(column.device)[column]
            for place, column in zip(self._places, batch.labels, strict=True)
        )
        return batch.images, (shape, texture, background)


class SwappedImages:
    """Photos with backgrounds, or textures and backgrounds, of other photos (`cgnrt.real`).

    Raises:
      ValueError: photos have no masks, or fewer than two have an object and background beside it.
    """

    def __init__(self, photos: Photos, swap: str | tuple[str, ...], seed: int) -> None:
        self._exchange = open_exchange(photos, swap)
        self._order, self._seed = Order(len(self._exchange), seed), _GENERATED_SEED + seed

    def draw(self, numbers: NDArray[np.int64]) -> tuple[Tensor, Labels]:
        epochs = numbers // self._order.n
        indices = epochs * self._order.n + _ordered(self._order, numbers)
        found = self._exchange(seed=self._seed, indices=indices)
        assert found.labels is not None
        shape, texture, background = (torch.from_numpy(column) for column in found.labels)
        return scaled(found.images), (shape, texture, background)


class Batches:
    """The batches of a row.

    Args:
      real, other: what gives the images that have one label, and those that have three; None for none.
      rank, size: which part of each batch is made, of how many.
      device: where the images go.
    """

    def __init__(
        self,
        config: EnsembleConfig,
        real: Source | None,
        other: Source | None,
        *,
        rank: int = 0,
        size: int = 1,
        device: torch.device | None = None,
    ) -> None:
        whole = config.train.batch_size
        n = 0 if real is None else whole if other is None else config.real
        self.config, self.counts = config, (n, 0 if other is None else whole - n)
        self._real, self._other, self._rank, self._size = real, other, rank, size
        self._device = device or torch.device("cpu")
        if any(0 < count < size for count in self.counts):
            raise ValueError(
                f"train ensemble: {size} processes share {self.counts[0]} photos and {self.counts[1]} others of a "
                "batch, expected at least one each. Raise train.batch_size."
            )

    def __call__(self, step: int) -> StepBatch:
        """The batch of a step, the same whenever it is asked for."""
        generator = torch.Generator().manual_seed(_seed(self.config.train.seed, step))
        real = other = None
        if found := self._part(self._real, step, self.counts[0], generator):
            real = (found[0], found[1][0])
        if found := self._part(self._other, step, self.counts[1], generator):
            other = found
        return StepBatch(real, other, self.counts)

    def _part(
        self, source: Source | None, step: int, count: int, generator: torch.Generator
    ) -> tuple[Tensor, Labels] | None:
        if source is None:
            return None
        rows = slice(count * self._rank // self._size, count * (self._rank + 1) // self._size)
        numbers = step * count + np.arange(rows.start, rows.stop, dtype=np.int64)
        images, (shape, texture, background) = source.draw(numbers)
        images = move(images.cpu(), rows, count, self.config.augment, generator)
        if self.config.train.row == "random-erasing":
            images = erase(images, rows, count, generator)
        images = images.to(self._device, memory_format=torch.channels_last)
        return images, (shape.to(self._device), texture.to(self._device), background.to(self._device))


def open_batches(
    config: EnsembleConfig,
    photos: Photos,
    plan: Path | None,
    *,
    rank: int = 0,
    size: int = 1,
    device: torch.device | None = None,
) -> Batches:
    """The batches of a row.

    Raises:
      ValueError: the row needs a plan or masks, or the plan has other classes or another size than the photos.
      PlanError: the plan cannot be read.
    """
    row, seed = config.train.row, config.train.seed
    real: Source | None = PhotoImages(photos, seed)
    other: Source | None = None
    if row == "original+cgn":
        generator = open_generator(plan, photos.size, device)
        train = config.train
        other = PlanImages(
            generator, photos.classes, reuse=train.reuse, truncation=train.truncation, seed=seed
        )
    elif row == "original+swaps":
        other = SwappedImages(photos, ("texture", "background"), seed)
    elif row == "mixed-rand":
        real = SwappedImages(photos, "background", seed)
    return Batches(config, real, other, rank=rank, size=size, device=device)


def open_generator(plan: Path | None, size: int, device: torch.device | None = None) -> Generator:
    """A Generator on the device that is trained on: on a GPU by torch, which can use it; on the CPU with its threads.

    Raises:
      ValueError: no plan is given, or its pictures are not of the photos' size.
      PlanError: it cannot be read.
    """
    if plan is None:
        raise ValueError("train ensemble: --plan is missing, expected a CGN's plan for counterfactuals.")
    if device is None or device.type == "cpu":
        generator = Generator(plan, device="cpu", threads=torch.get_num_threads())
    else:
        generator = Generator(plan, device=str(device), backend="torch")
    if generator.resolution != (size, size):
        h, w = generator.resolution
        raise ValueError(
            f"train ensemble '{plan}': resolution is {h} x {w}, expected {size} x {size}, as the photos are. "
            "Pack the photos in the plan's size."
        )
    return generator


def places_of(generator: Generator, names: Sequence[str]) -> list[NDArray[np.int64]]:
    """For each mechanism the photos' class of each of the plan's, by name.

    Raises:
      ValueError: the plan has not the same classes.
    """
    found = []
    for mechanism in MECHANISMS:
        classes = generator.classes[mechanism]
        missing = [f"'{name}' missing" for name in names if name not in classes]
        more = [f"'{name}' besides" for name in classes if name not in names]
        if faults := [*missing, *more]:
            shown = "; ".join(faults[:6]) + ("" if len(faults) <= 6 else f" and {len(faults) - 6} more")
            raise ValueError(
                f"train ensemble '{generator.plan.path}': {mechanism}'s classes are not the photos' ({shown}), "
                "expected the same names. Rename the photos' folders, or train a CGN of these photos."
            )
        found.append(np.array([names.index(name) for name in classes], np.int64))
    return found


@functools.cache
def open_exchange(photos: Photos, swap: str | tuple[str, ...], donors: str = "any") -> Exchange:
    """An exchange between the photos that can be used; its labels are the photos'. Kept, for all masks are looked at.

    Raises:
      ValueError: as `usable_photos`, or a photo has no donor.
    """
    chosen = usable_photos(photos)
    assert photos.masks is not None
    labels = np.asarray(photos.labels)[chosen]
    return Exchange(photos.images[chosen], photos.masks[chosen], swap=swap, labels=labels, donors=donors)


@functools.cache
def usable_photos(photos: Photos) -> NDArray[np.int64]:
    """Indices of the photos that textures and backgrounds can be exchanged between. Kept, as above.

    Raises:
      ValueError: photos have no masks, or fewer than two can be used.
    """
    photos.with_object()  # raises where there are no masks, or no objects
    found = np.flatnonzero(usable(np.asarray(photos.masks)))
    if len(found) < 2:
        raise ValueError(
            f"photos: {len(found)} have an object and background beside it, expected at least 2. Look at the masks."
        )
    return found


def scaled(pixels: NDArray[np.uint8]) -> Tensor:
    """(n, 3, h, w) uint8 -> float32 in [-1, 1]."""
    return torch.from_numpy(np.array(pixels, np.float32)) / 127.5 - 1


def _ordered(order: Order, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    if not len(numbers):
        return numbers
    _, indices = order(int(numbers[0]), len(numbers))
    return indices


def _seed(seed: int, step: int) -> int:
    """A seed of its own for each step."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> np.uint64(1))
