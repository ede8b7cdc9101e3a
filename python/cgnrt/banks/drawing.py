"""`from_plan`: what a plan's networks draw, as banks."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cgnrt._support.files import refuse_existing
from cgnrt._support.terminal import progress_bar
from cgnrt.banks.storage import Storage
from cgnrt.banks.unfinished import Shape, unfinished
from cgnrt.batch import Batch
from cgnrt.errors import printable
from cgnrt.generator import Generator
from cgnrt.plan import MECHANISMS, PICTURES, BankContents, BankSource, Plan, write_bank
from cgnrt.plan.limits import MAX_ENTRIES
from cgnrt.request.labels import Label, check_mechanism_keys
from cgnrt.request.options import SampleOptions
from cgnrt.request.resolver import ClassNames
from cgnrt.sampling import check_index, check_seed
from cgnrt.stream import one_ahead

# Pixels of one call of the networks: of 256 x 256 four pictures on the CPU, 64 on a GPU.
_CPU_PIXELS, _GPU_PIXELS = 1 << 18, 1 << 22
_MOST_SOURCES = 64  # that a manifest has


def from_plan(
    path: str | os.PathLike[str],
    plan: str | os.PathLike[str] | Plan,
    pictures: int = 10_000,
    *,
    classes: Mapping[str, Sequence[Label]] | None = None,
    seed: int = 0,
    truncation: float | None = None,
    device: str = "auto",
    backend: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    store: str = "raw",
    quality: int | None = None,
    force: bool = False,
) -> str:
    """Run each network of a plan some thousand times, and write a plan of the pictures.

    Every class has equally many pictures. Number k of each class is drawn with the noise of stream sample k, so noise
    that is given back with another label still picks the picture of that noise, as it does with the networks. Where
    the plan's mechanisms share their noise, so do the banks.

    A run that is stopped keeps what it has drawn in a folder beside `path`, `<name>.unfinished`, and the same call goes
    on with it. The folder needs as much room as the plan.

    Args:
      path: the plan to make.
      plan: the plan to draw from. Mechanisms of it that are banks already are taken over.
      pictures: for each mechanism; rounded up to the same number for each of its classes.
      classes: mechanism -> classes, indices or names, if not all are wanted; the new plan has no others.
      seed: of the stream that noise is taken from.
      truncation: for plans that have it; None is the plan's default.
      device, backend, precision, threads: as for `Generator`.
      store, quality: how the plan stores the pictures, see `cgnrt.plan.write_bank`.
      force: replace an existing file, and start again where a run with other options was stopped.
    Returns:
      The digest of the new plan.
    Raises:
      CgnrtError: the file exists; another run was stopped here; the disk has too little room, or was full.
      PlanError, BackendError, TypeError, ValueError: as for `Generator` and `sample`; the plan has no networks, or
        `pictures` is smaller than the number of classes.
    """
    target = Path(path)
    refuse_existing(target, force=force)
    check_seed(seed)
    storage = Storage(store, quality)
    with nullcontext(plan) if isinstance(plan, Plan) else Plan.open(plan) as opened:
        if not opened.networks:
            raise ValueError(
                f"bank '{opened.path}': its mechanisms are banks, expected at least one that is a network."
            )
        drawing = _Drawing(opened, check_index("pictures", pictures), classes or {}, seed, truncation)
        with Generator(
            opened, device=device, backend=backend, precision=precision, threads=threads, dtype="uint8"
        ) as generator:
            return drawing.run(generator, target, storage, force)


@dataclass(frozen=True)
class _Order:
    """The pictures of one mechanism: class after class, `each` of every class."""

    classes: np.ndarray  # the plan's numbers, rising
    each: int

    @property
    def count(self) -> int:
        return len(self.classes) * self.each


class _Drawing:
    """What is drawn from a plan."""

    def __init__(
        self,
        plan: Plan,
        pictures: int,
        classes: Mapping[str, Sequence[Label]],
        seed: int,
        truncation: float | None,
    ) -> None:
        self._plan, self._seed, self._truncation = plan, seed, truncation
        self._orders: dict[str, _Order] = {}
        names = ClassNames({name: mechanism.classes for name, mechanism in plan.mechanisms.items()})
        check_mechanism_keys("classes", classes)
        if banked := sorted(set(classes) & set(plan.banks)):
            raise ValueError(
                f"bank '{plan.path}': classes of {banked[0]} are given, which is a bank and taken over whole, expected "
                "those of networks only."
            )
        chosen = dict(names.subsets(classes))
        for name, network in plan.networks.items():
            labels = np.unique(chosen.get(name, np.arange(len(network.classes))))
            if pictures < len(labels):
                raise ValueError(
                    f"bank '{plan.path}': number of pictures is {pictures}, expected at least {len(labels)}: one for "
                    f"each class of {name}. Choose some of them with classes (--classes)."
                )
            self._orders[name] = _Order(labels, -(-pictures // len(labels)))
            if self._orders[name].count > MAX_ENTRIES:
                raise ValueError(
                    f"bank '{plan.path}': number of pictures is {pictures}, expected at most {MAX_ENTRIES}."
                )
        self._count = max(order.count for order in self._orders.values())
        height, width = plan.manifest.resolution
        self._shapes: dict[str, Shape] = {
            name: (1 if name == "shape" else 3, height, width) for name in self._orders
        }

    def run(self, generator: Generator, target: Path, storage: Storage, force: bool) -> str:
        """Draw what is missing, and write the plan."""
        options = generator.check(SampleOptions(seed=self._seed, truncation=self._truncation))
        settings = {
            "plan": self._plan.digest,
            "pictures": {name: order.count for name, order in self._orders.items()},
            "classes": {name: order.classes.tolist() for name, order in self._orders.items()},
            "seed": self._seed,
            "truncation": None if options.truncation is None else float(options.truncation),
            "backend": generator.backend,
            "precision": generator.precision,
            "device": generator.device.partition(":")[0],
        }
        with unfinished(target, settings, self._shapes, force=force) as run:
            still = {name: order.count - run.rows[name] for name, order in self._orders.items()}
            run.require_room(still, target)
            done = max(run.rows.values())
            with progress_bar(self._count, initial=done, unit="picture") as bar:
                for pictures in self._drawn(generator, done):
                    run.add(pictures)
                    bar.update(max(map(len, pictures.values())))
            run.flush()
            drawn = {name: run.pictures(name) for name in self._orders}
            parts, drawn_from = self._parts(drawn), self._source(settings)
            with run.writing_plan(target):
                return write_bank(
                    target,
                    shape=parts["shape"],
                    texture=parts["texture"],
                    background=parts["background"],
                    family=f"{self._plan.manifest.family[:240]}, as a bank",
                    noise_mode=self._plan.manifest.noise_mode if len(drawn) == len(MECHANISMS) else None,
                    store=storage.store,
                    quality=storage.quality,
                    training_data=self._plan.manifest.training_data,
                    sources=(drawn_from, *self._plan.manifest.sources)[:_MOST_SOURCES],
                    force=force,
                )

    def _drawn(self, generator: Generator, done: int) -> Iterator[dict[str, np.ndarray]]:
        """The pictures from a row on, uint8 by mechanism, some rows at a time."""
        height, width = generator.resolution
        pixels = _CPU_PIXELS if generator.device == "cpu" else _GPU_PIXELS
        step = max(1, pixels // (height * width))
        parts = [slice(low, min(low + step, self._count)) for low in range(done, self._count, step)]
        batches: Iterator[Batch] = (self._batch(generator, part) for part in parts)
        if generator.device != "cpu":
            batches = one_ahead(batches)
        for part, batch in zip(parts, batches, strict=True):
            found = batch.numpy()
            yield {
                name: self._bytes(name, getattr(found, PICTURES[name]))[: max(0, order.count - part.start)]
                for name, order in self._orders.items()
            }

    def _batch(self, generator: Generator, part: slice) -> Batch:
        """Rows of all mechanisms together; those of mechanisms with fewer pictures repeat their last one."""
        rows = np.arange(part.start, part.stop)
        labels: dict[str, Any] = {}
        noise: list[np.ndarray | None] = []
        for name in MECHANISMS:
            order = self._orders.get(name)
            if order is None:  # a bank, whose pictures are taken over
                labels[name] = 0
                noise.append(None)
                continue
            label, number = np.divmod(np.minimum(rows, order.count - 1), order.each)
            labels[name] = order.classes[label]
            drawn = generator.prepare(seed=self._seed, indices=number).noise()
            noise.append(getattr(drawn, name))
        rolls = np.zeros(
            (len(rows), 2, 2), np.int32
        )  # the runtime rolls the bank's pictures when they are drawn
        return generator(**labels, noise=(*noise, rolls), truncation=self._truncation, parts=True)

    def _bytes(self, name: str, pictures: np.ndarray) -> np.ndarray:
        """A network's pictures as a bank has them: masks by their value, others by their place in the plan's range."""
        low, high = (0.0, 1.0) if name == "shape" else self._plan.networks[name].spec.range
        scaled = (pictures - np.float32(low)) * np.float32(255 / (high - low))
        stored: np.ndarray = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
        return stored

    def _parts(self, drawn: Mapping[str, np.ndarray]) -> dict[str, BankContents | Plan]:
        """The mechanisms of the new plan; what is not drawn is the old plan's."""
        parts: dict[str, BankContents | Plan] = dict.fromkeys(MECHANISMS, self._plan)
        for name, order in self._orders.items():
            network = self._plan.networks[name]
            parts[name] = BankContents(
                drawn[name],
                np.repeat(np.arange(len(order.classes)), order.each),
                [network.classes[label] for label in order.classes],
                roll=network.spec.roll,
                sources=(BankSource(_title(self._plan), order.count, self._plan.digest),),
            )
        return parts

    def _source(self, settings: Mapping[str, Any]) -> dict[str, str]:
        """What the manifest says of the plan."""
        recorded = ("seed", "truncation", "backend", "precision")
        said = {name: str(settings[name]) for name in recorded if settings[name] is not None}
        return {"name": _title(self._plan), "sha256": self._plan.digest, **said}


def _title(plan: Plan) -> str:
    """The name of a plan's file, as strings of a manifest may be."""
    return printable(Path(plan.path).name, keep="")[:200]
