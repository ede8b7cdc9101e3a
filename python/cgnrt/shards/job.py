"""The job of making a data set: everything that its bytes depend on, and its division into shards."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from cgnrt._support.machine import available_cores
from cgnrt.errors import printable
from cgnrt.generator import Generator
from cgnrt.plan import Plan
from cgnrt.request.options import SampleOptions
from cgnrt.request.place import require_drawn
from cgnrt.sampling import check_span
from cgnrt.shards.formats import FORMATS, ShardContent, Storage, check_positive

# Pixels of one call of the generator: 1,024 images of 32 x 32, 16 of 256 x 256.
_BATCH_PIXELS = 1 << 20
# A plan of up to this size opens in an instant, and one core runs it fast: every core gets a process.
_SMALL_PLAN_BYTES = 64 << 20
_GPU_PROCESSES = 4  # to encode the images of one GPU
# The sampling options that a header has, in its order.
_RECORDED = ("seed", "do", "labels", "classes", "truncation", "pool", "refresh", "per_noise")


@dataclass(frozen=True)
class EngineChoice:
    """What computes the pixels; "auto" and None are open.

    `device` is where it runs now; a data set records only its kind.
    """

    backend: str
    device: str
    precision: str
    threads: int | None

    def open(self, plan: Plan) -> Generator:
        return Generator(plan, **asdict(self), dtype="uint8", layout="NHWC")


@dataclass(frozen=True)
class Shard:
    """A file, `name`, with the samples `first` to `first + count - 1` of the stream."""

    number: int
    name: str
    first: int
    count: int


@dataclass(frozen=True)
class Job:
    """A data set that is to be made.

    It pickles without its generator: another process that makes shards opens the plan itself.

    Attributes:
      n, start: samples `start` to `start + n - 1` of the stream.
      options: checked against the plan.
      batch_size: samples in one call of the generator, counted from the first sample of a shard.
      generator: the one that the options were checked with; None in another process.
    """

    plan: str
    digest: str
    resolution: tuple[int, int]
    names: Mapping[str, tuple[str, ...]]
    engine: EngineChoice
    n: int
    start: int
    options: SampleOptions
    storage: Storage
    batch_size: int
    generator: Generator | None = field(default=None, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "generator": None}

    @property
    def shard_count(self) -> int:
        return -(-self.n // self.storage.shard_size)

    def shard(self, number: int) -> Shard:
        size = self.storage.shard_size
        first = number * size
        name = shard_name(number, self.shard_count, self.storage.format)
        return Shard(number, name, self.start + first, min(size, self.n - first))

    def content(self, shard: Shard) -> ShardContent:
        """What the format is told of a shard."""
        return ShardContent(
            storage=self.storage,
            count=shard.count,
            seed=self.options.drawn_seed,
            resolution=self.resolution,
            names=self.names,
            plan_digest=self.digest,
            placed=self.options.place is not None,
        )

    def open(self) -> Generator:
        """The generator that makes the samples.

        Raises:
          PlanError: the plan was replaced since the job was resolved.
        """
        if self.generator is not None:
            return self.generator
        plan = Plan.open(self.plan, private=True)
        plan.check_digest(self.digest, "this run was started")
        return self.engine.open(plan)

    def header(self) -> dict[str, Any]:
        """The job as the manifest records it, in types of JSON."""
        name = printable(Path(self.plan).name, keep="")
        plan = {"name": name, "sha256": self.digest, "resolution": list(self.resolution)}
        options = {name: self.options[name] for name in _RECORDED}
        if self.options.distinct:
            options["distinct"] = True
        if self.options.place is not None:
            options["place"] = self.options.place.to_dict()
        options["classes"] = {m: list(found) for m, found in options["classes"].items()}
        options["truncation"] = None if options["truncation"] is None else float(options["truncation"])
        options["pool"] = None if options["pool"] is None else list(options["pool"])
        return {
            "plan": plan,
            "engine": asdict(self.engine) | {"device": self.engine.device.partition(":")[0]},
            "samples": {"n": self.n, "start": self.start, **options},
            "storage": asdict(self.storage) | {"cut": self.batch_size},
            "classes": {m: list(found) for m, found in self.names.items()},
        }


def shard_name(number: int, count: int, format: str) -> str:
    return f"shard-{number:0{max(6, len(str(count - 1)))}d}{FORMATS[format].suffix}"


def differences(asked: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """How a job's header differs from that of another data set; the file name of the plan may differ."""
    lines = []
    for part in ("plan", "engine", "samples", "storage"):
        mine, its = dict(asked[part]), dict(found[part])
        for name in sorted(set(mine) | set(its)):
            if mine.get(name) != its.get(name) and (part, name) != ("plan", "name"):
                lines.append(f"{part}.{name} is {mine.get(name)}, expected {its.get(name)}")
    return lines


def resolve(
    plan: Plan,
    n: int,
    start: int,
    *,
    options: SampleOptions,
    engine: EngineChoice,
    storage: Storage,
    processes: int | None,
    before: Mapping[str, Any] | None,
) -> Job:
    """Check all options and choose those that the caller leaves open.

    Args:
      processes: how many share the cores; None is open.
      before: the header of the data set that is to be resumed, which decides the open options.
    Raises:
      PlanError, BackendError, TypeError, ValueError: as a Generator, or an option is out of range.
    """
    count, start = check_span(n, start)
    require_drawn("generate", options.place)
    if processes is not None:
        check_positive("processes", processes)
    if before is not None:
        recorded = before["engine"]
        still_open = [name for name, value in asdict(engine).items() if value in (None, "auto")]
        engine = replace(engine, **{name: recorded[name] for name in still_open})
    if engine.threads is None:
        engine = replace(engine, threads=_threads(plan.path, processes))
    generator = engine.open(plan)
    height, width = generator.resolution
    options = generator.check(options)
    return Job(
        plan=str(Path(plan.path).absolute()),
        digest=plan.digest,
        resolution=(height, width),
        names=dict(generator.classes),
        engine=EngineChoice(generator.backend, generator.device, generator.precision, engine.threads),
        n=count,
        start=start,
        options=options,
        storage=storage,
        batch_size=max(1, _BATCH_PIXELS // (height * width)) if before is None else before["storage"]["cut"],
        generator=generator,
    )


def default_processes(job: Job) -> int:
    """As many processes as the cores can run; with a GPU a few, to encode its images."""
    if job.engine.device != "cpu":
        return min(_GPU_PROCESSES, available_cores())
    return max(1, available_cores() // (job.engine.threads or 1))


def _threads(plan: str, processes: int | None) -> int:
    """Threads of each process: a small plan runs best with one process a core, a large one with all cores together."""
    try:
        small = os.stat(plan).st_size <= _SMALL_PLAN_BYTES
    except OSError:
        return 1  # opening the plan reports the error
    return 1 if small else max(1, available_cores() // (processes or 1))
