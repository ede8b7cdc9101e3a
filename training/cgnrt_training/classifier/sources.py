"""What each row of Table 2 is trained on: batches as a function of the step alone."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cgnrt import Batch as Generated
from cgnrt import Generator
from cgnrt.torch import join

from ..mnist.data import RESOLUTION, Batch, Domain, VariantMnist, uniform
from ..runs.order import Order
from .augment import blend, jitter
from .config import ENVIRONMENTS, NEEDS_GAN, NEEDS_PLAN, ClassifierConfig

# At most: a longer stream takes one pool after another. So few are made while the batches made before are trained on.
POOL_ENTRIES = 512
_JOINT_SLOT = 64  # of `uniform`; VariantMnist takes those below
HELD_OUT_SEED = 2**63  # of counterfactuals to judge by: no training stream has it

Images = tuple[Tensor, Tensor]  # (n, 3, 32, 32) float32 in [-1, 1], and labels (n,) int64


@dataclass(frozen=True)
class Inputs:
    """Where the data, the plan and the GAN of a run lie."""

    data: Path
    textures: Path | None = None
    plan: Path | None = None
    gan: Path | None = None


@dataclass(frozen=True)
class StepBatch:
    """The images of one step."""

    images: Tensor  # (n, 3, 32, 32) float32 in [-1, 1], channels last
    labels: Tensor  # (n,) int64
    sizes: tuple[int, ...]  # of the environments that follow each other in it; sums to n

    def to(self, device: torch.device) -> StepBatch:
        """The same batch on a device."""
        return StepBatch(self.images.to(device), self.labels.to(device), self.sizes)


class Source(Protocol):
    """Draws `count` images for a step; every step of a run draws the same number."""

    def draw(self, step: int, count: int) -> Images: ...


class Pictures(Protocol):
    """What `VariantMnist` is to its users here."""

    def __len__(self) -> int: ...

    def batch(self, indices: NDArray[np.integer]) -> Batch: ...


class JointCues:
    """An environment where texture and background of an image both follow its label, or both are random.

    In `VariantMnist` each cue is drawn by itself, so that at 90 % one of the two nearly always tells the label.
    """

    def __init__(self, data: VariantMnist, correlation: float, seed: int) -> None:
        self.correlation, self.seed = correlation, seed
        self._following, self._random = with_cues(data, 1.0, seed), with_cues(data, 0.0, seed)

    def __len__(self) -> int:
        return len(self._following)

    def batch(self, indices: NDArray[np.integer]) -> Batch:
        """As `VariantMnist.batch`."""
        follows = uniform(self.seed, np.asarray(indices, np.int64), _JOINT_SLOT) < self.correlation
        found = self._following.batch(indices)
        other = self._random.batch(indices[~follows])
        for name in ("images", "labels", "texture", "background"):
            getattr(found, name)[~follows] = getattr(other, name)
        return found


def labels_of(batch: Batch, label: str) -> NDArray[np.int64]:
    """(n,) the digits of a batch for "shape", or the classes of its "texture" or "background"."""
    found: NDArray[np.int64] = batch.labels if label == "shape" else getattr(batch, label)
    return found


class RealImages:
    """A domain of a variant, made on the fly: fresh cues in every epoch.

    Args:
      label: which mechanism's label the images carry.
    """

    def __init__(self, data: Pictures, seed: int, label: str = "shape") -> None:
        self.data, self._label = data, label
        self._order = Order(len(data), seed)

    def draw(self, step: int, count: int) -> Images:
        epochs, indices = self._order(step * count, count)
        batch = self.data.batch(epochs * len(self.data) + indices)
        return torch.from_numpy(batch.images), torch.from_numpy(labels_of(batch, self._label))


class Augmented:
    """Another source's images, changed at random."""

    def __init__(
        self, source: Source, change: Callable[[Tensor, torch.Generator], Tensor], seed: int
    ) -> None:
        self._source, self._change, self._seed = source, change, seed

    def draw(self, step: int, count: int) -> Images:
        images, labels = self._source.draw(step, count)
        return self._change(images, _generator(self._seed, step)), labels


class GanImages:
    """Samples of an unconditional-composition GAN (`cgnrt_training.mnist.gan`)."""

    def __init__(self, gan: Any, seed: int) -> None:
        self._gan, self._seed = gan, seed

    def draw(self, step: int, count: int) -> Images:
        with torch.no_grad():
            images, labels = self._gan.sample(count, generator=_generator(self._seed, step))
        return images, labels


class Counterfactuals:
    """The stream of a `cgnrt.Generator`, drawn while training goes on.

    Args:
      size: how many different images the stream has; after them it begins anew, in another order without a pool.
      draws: how many images the run takes. What it cannot reach of `size` is left out, so that groups of
        `per_noise` stay together.
      reuse: images per run of a mechanism. Above 1 they are composed from pools of at most `entries`
        entries (POOL_ENTRIES), each of which serves `reuse` times as many images as it has entries.
      label: which mechanism's label they carry.
    """

    def __init__(
        self,
        generator: Generator,
        *,
        size: int,
        draws: int,
        per_noise: int = 1,
        reuse: int = 1,
        entries: int | None = None,
        label: str = "shape",
        seed: int = 0,
    ) -> None:
        self._generator = generator
        self.distinct = max(1, min(size, draws))
        self._per_noise, self._label, self._seed = per_noise, label, seed << 24
        self._order = Order(self.distinct, seed)
        self.entries = 0
        if reuse > 1:
            pools = math.ceil(self.distinct / (reuse * (entries or POOL_ENTRIES)))
            self.entries = math.ceil(self.distinct / (reuse * pools))
            self._images_per_pool = self.entries * reuse

    def draw(self, step: int, count: int) -> Images:
        if not self.entries:
            _, indices = self._order(step * count, count)
            batch = self._generator.sample(indices=indices, seed=self._seed, per_noise=self._per_noise)
            return self._images_of(batch)
        places = np.arange(step * count, (step + 1) * count) % self.distinct
        pools = places // self._images_per_pool
        parts = []
        for pool in dict.fromkeys(pools.tolist()):  # in the order of the stream
            batch = self._generator.sample(
                indices=places[pools == pool], seed=self._seed + pool, pool=self.entries
            )
            parts.append(self._images_of(batch))
        images, labels = zip(*parts, strict=True)
        return torch.cat(images), torch.cat(labels)

    def _images_of(self, batch: Generated) -> Images:
        """On the generator's device."""
        found = batch.torch()
        return found.images, getattr(found.labels, self._label)


class Batches:
    """Batches of a row: sources and how many images each gives. They are where the last source's images are."""

    def __init__(self, parts: list[tuple[Source, int]], *, environments: bool = False) -> None:
        self._parts = [(source, count) for source, count in parts if count]
        counts = tuple(count for _, count in self._parts)
        self.size = sum(counts)
        self._sizes = counts if environments else (self.size,)

    def __call__(self, step: int) -> StepBatch:
        """The batch of a step, the same whenever it is asked for."""
        drawn = [source.draw(step, count) for source, count in self._parts]
        there = drawn[-1][0].device
        images, labels = zip(*((part.to(there), column.to(there)) for part, column in drawn), strict=True)
        return StepBatch(join(images, torch.channels_last), torch.cat(labels), self._sizes)


def open_batches(
    config: ClassifierConfig, data: VariantMnist, inputs: Inputs, device: torch.device | None = None
) -> Batches:
    """The batches of a row.

    Args:
      data: the train domain.
      device: where counterfactuals are made; None is the CPU.
    Raises:
      ValueError: the row needs a plan or a GAN, or a file is not as it should be.
      CgnrtError: the plan or the GAN cannot be read.
    """
    row, seed, size = config.row, config.seed, config.batch_size
    if row in ENVIRONMENTS:
        found = environments(config, data)
        shares = [size * (k + 1) // len(found) - size * k // len(found) for k in range(len(found))]
        real_parts = [RealImages(e, seed * 16 + k, config.label) for k, e in enumerate(found)]
        pairs: list[tuple[Source, int]] = list(zip(real_parts, shares, strict=True))
        return Batches(pairs, environments=row != "pooled-5")
    real: Source = RealImages(environments(config, data)[0], seed, config.label)
    if row in ("colour-jitter", "background-mix"):
        real = Augmented(real, jitter if row == "colour-jitter" else blend, seed)
    generated: Source | None = None
    if row in NEEDS_PLAN:
        generated = Counterfactuals(
            open_generator(inputs.plan, device),
            size=config.counterfactuals,
            draws=config.generated_share * config.steps,
            per_noise=config.per_noise,
            reuse=config.reuse,
            label=config.label,
            seed=seed,
        )
    elif row in NEEDS_GAN:
        from ..mnist.gan import load_gan

        if inputs.gan is None:
            raise ValueError(f"train: --gan is not given, expected a trained GAN for row {row}.")
        generated = GanImages(load_gan(inputs.gan), seed)
    share = config.generated_share
    parts = [(real, size - share)]
    return Batches(parts if generated is None else [*parts, (generated, share)])


def environments(config: ClassifierConfig, data: VariantMnist) -> list[Pictures]:
    """A row's own training domains, with cues of their own; one, except for IRM.

    Args:
      data: the train domain.
    """
    row, seed = config.row, config.seed
    if row not in ENVIRONMENTS:
        return [with_cues(data, 0.0 if row == "oracle" else 1.0, seed)]
    make = JointCues if config.joint_cues else with_cues
    return [make(data, correlation, seed * 16 + k) for k, correlation in enumerate(ENVIRONMENTS[row])]


def open_generator(plan: Path | None, device: torch.device | None = None) -> Generator:
    """A Generator on the device that is trained on: on a GPU by torch, which can use it; on the CPU with its threads.

    Raises:
      ValueError: no plan is given.
      PlanError: it cannot be read, or its pictures are not 32 x 32.
    """
    if plan is None:
        raise ValueError("train: --plan is not given, expected a CGN's plan for counterfactuals.")
    if device is None or device.type == "cpu":
        generator = Generator(plan, device="cpu", threads=torch.get_num_threads())
    else:
        generator = Generator(plan, device=str(device), backend="torch")
    if generator.resolution != (RESOLUTION, RESOLUTION):
        raise ValueError(
            f"train '{plan}': resolution is {generator.resolution}, expected {(RESOLUTION, RESOLUTION)} as MNIST."
        )
    return generator


@functools.lru_cache(maxsize=4)
def open_domain(variant: str, inputs: Inputs, domain: Domain) -> VariantMnist:
    """A variant's train or test domain; read once a process, so change it by `with_cues` alone.

    Raises:
      ValueError: a file is missing or damaged.
    """
    return VariantMnist(variant, inputs.data, domain=domain, textures=inputs.textures)


def with_cues(data: VariantMnist, correlation: float, seed: int) -> VariantMnist:
    """The same digits with other cues; shares their memory."""
    other = copy.copy(data)
    other.correlation, other.seed = correlation, seed
    return other


def _generator(seed: int, step: int) -> torch.Generator:
    return torch.Generator().manual_seed((seed << 32) + step)
