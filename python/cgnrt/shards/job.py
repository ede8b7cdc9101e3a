"""The job of making a data set: everything that its bytes depend on, and its division into shards."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cgnrt._support.machine import available_cores
from cgnrt.errors import PlanError
from cgnrt.generator import Generator
from cgnrt.request.labels import Label
from cgnrt.request.options import SampleOptions
from cgnrt.sampling import check_span
from cgnrt.shards.encode import DEFAULT_QUALITY, QUALITY_BOUNDS
from cgnrt.shards.formats import FORMATS, ShardContent, Storage

# Pixels of one call of the generator: 1,024 images of 32 x 32, 16 of 256 x 256.
_CUT_PIXELS = 1 << 20
# A plan of up to this size opens in an instant, and one core runs it fast: every core gets a process.
_SMALL_PLAN_BYTES = 64 << 20
_GPU_PROCESSES = 4  # to encode the images of one GPU


@dataclass(frozen=True)
class EngineChoice:
    """What computes the pixels. `device` is where it runs now; a data set records only its kind."""

    backend: str
    device: str
    precision: str
    threads: int


@dataclass(frozen=True)
class Samples:
    """Which samples of which stream; labels are class indices."""

    n: int
    start: int
    seed: int
    do: Mapping[str, Label]
    labels: str
    classes: Mapping[str, Sequence[Label]]
    truncation: float | None
    pool: tuple[int, int, int] | None
    refresh: int | None
    per_noise: int


@dataclass(frozen=True)
class Shard:
    """A file, `name`, with the samples `first` to `first + count - 1` of the stream."""

    number: int
    name: str
    first: int
    count: int


@dataclass(frozen=True)
class Job:
    """A data set that is to be made. It pickles, and the process that makes shards opens the generator."""

    plan: str
    digest: str
    resolution: tuple[int, int]
    names: Mapping[str, tuple[str, ...]]
    engine: EngineChoice
    samples: Samples
    storage: Storage

    @property
    def shard_count(self) -> int:
        return -(-self.samples.n // self.storage.shard_size)

    def shard(self, number: int) -> Shard:
        size = self.storage.shard_size
        first = number * size
        name = shard_name(number, self.shard_count, self.storage.format)
        return Shard(number, name, self.samples.start + first, min(size, self.samples.n - first))

    def content(self, shard: Shard) -> ShardContent:
        """What the format is told of a shard."""
        return ShardContent(
            storage=self.storage,
            count=shard.count,
            seed=self.samples.seed,
            resolution=self.resolution,
            names=self.names,
            plan_digest=self.digest,
        )

    def open(self) -> Generator:
        """The generator that makes the samples.

        Raises:
          PlanError: the plan was replaced since the job was resolved.
        """
        generator = _open(self.plan, asdict(self.engine))
        if generator.plan.digest != self.digest:
            raise PlanError(
                f"load '{self.plan}': digest is {generator.plan.digest[:12]}, expected {self.digest[:12]}. "
                "The file was replaced since this run was started."
            )
        return generator

    def options(self) -> dict[str, Any]:
        """The arguments of `Generator.sample` beside n and start."""
        s = self.samples
        return {
            "seed": s.seed,
            "do": dict(s.do),
            "labels": s.labels,
            "classes": dict(s.classes),
            "truncation": s.truncation,
            "pool": s.pool,
            "refresh": s.refresh,
            "per_noise": s.per_noise,
            "parts": self.storage.masks,
        }

    def header(self) -> dict[str, Any]:
        """The job as the manifest records it."""
        plan = {"name": Path(self.plan).name, "sha256": self.digest, "resolution": list(self.resolution)}
        return {
            "plan": plan,
            "engine": asdict(self.engine) | {"device": self.engine.device.partition(":")[0]},
            "samples": asdict(self.samples)
            | {
                "do": dict(self.samples.do),
                "classes": {m: list(found) for m, found in self.samples.classes.items()},
                "pool": None if self.samples.pool is None else list(self.samples.pool),
            },
            "storage": asdict(self.storage),
            "classes": {m: list(found) for m, found in self.names.items()},
        }


def shard_name(number: int, count: int, format: str) -> str:
    return f"shard-{number:0{max(6, len(str(count - 1)))}d}{FORMATS[format].suffix}"


def differences(asked: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """How a job's header differs from that of another data set; the file name of the plan may differ."""
    lines = []
    for part in ("plan", "engine", "samples", "storage"):
        mine, its = dict(asked[part]), dict(found[part])
        for field in sorted(set(mine) | set(its)):
            if mine.get(field) != its.get(field) and (part, field) != ("plan", "name"):
                lines.append(f"{part}.{field} is {mine.get(field)}, expected {its.get(field)}")
    return lines


def resolve(
    plan: str | os.PathLike[str],
    n: int,
    *,
    engine: Mapping[str, Any],
    samples: Mapping[str, Any],
    storage: Mapping[str, Any],
    processes: int | None,
    before: Mapping[str, Any] | None = None,
) -> Job:
    """Check all options and choose those that the caller leaves open.

    Args:
      engine: backend, device, precision ("auto" is open), threads (None is open).
      samples: the fields of `Samples` but n; labels by index or name.
      storage: the fields of `Storage` but `cut`; `image` and `quality` None are open.
      processes: how many share the cores; None is open.
      before: the header of the data set that is to be resumed, which decides the open options.
    Raises:
      PlanError, BackendError, TypeError, ValueError: as a Generator, or an option is out of range.
    """
    kept = _storage(storage)
    count, start = check_span(n, samples["start"])
    if processes is not None:
        check_positive("processes", processes)
    engine = dict(engine)
    if before is not None:
        recorded = before["engine"]
        engine |= {key: recorded[key] for key, value in engine.items() if value in (None, "auto")}
    if engine["threads"] is None:
        engine["threads"] = _threads(plan, processes)
    generator = _open(plan, engine)
    options = generator.check(SampleOptions(**{k: v for k, v in samples.items() if k != "start"}))
    height, width = generator.resolution
    cut = max(1, _CUT_PIXELS // (height * width))
    if before is not None:
        cut = before["storage"]["cut"]
    return Job(
        plan=str(Path(plan).absolute()),
        digest=generator.plan.digest,
        resolution=(height, width),
        names=dict(generator.classes),
        engine=EngineChoice(generator.backend, generator.device, generator.precision, engine["threads"]),
        samples=Samples(
            n=count,
            start=start,
            seed=options.drawn_seed,
            do=dict(options.do or {}),
            labels=options.labels,
            classes=dict(options.classes or {}),
            truncation=None if options.truncation is None else float(options.truncation),
            pool=None if options.pool is None else options.pool_sizes,
            refresh=options.refresh,
            per_noise=options.per_noise,
        ),
        storage=Storage(**kept, cut=cut),
    )


def default_processes(job: Job) -> int:
    """As many processes as the cores can run; with a GPU a few, to encode its images."""
    if job.engine.device != "cpu":
        return min(_GPU_PROCESSES, available_cores())
    return max(1, available_cores() // job.engine.threads)


def check_positive(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"generate: {name} is {value!r}, expected an int of at least 1.")
    return value


def _threads(plan: str | os.PathLike[str], processes: int | None) -> int:
    """Threads of each process: a small plan runs best with one process a core, a large one with all cores together."""
    try:
        small = os.stat(plan).st_size <= _SMALL_PLAN_BYTES
    except OSError:
        return 1  # opening the plan reports the error
    return 1 if small else max(1, available_cores() // (processes or 1))


def _open(plan: str | os.PathLike[str], engine: Mapping[str, Any]) -> Generator:
    return Generator(plan, **engine, dtype="uint8", layout="NHWC")


def _storage(given: Mapping[str, Any]) -> dict[str, Any]:
    """The checked storage options, with the defaults of the format."""
    format, image, quality = given["format"], given["image"], given["quality"]
    if format not in FORMATS:
        raise ValueError(f"generate: format is {format!r}, expected one of {', '.join(FORMATS)}.")
    images = FORMATS[format].images
    if image is None:
        image = images[0]
    if image not in images:
        rule = images[0] if len(images) == 1 else f"one of {', '.join(images)}"
        raise ValueError(f"generate: image is {image!r}, expected {rule} for format {format}.")
    if quality is None:
        quality = DEFAULT_QUALITY[image]
    elif image not in QUALITY_BOUNDS:
        raise ValueError(f"generate: quality is {quality!r}, expected None: {image} is lossless.")
    else:
        low, high = QUALITY_BOUNDS[image]
        if isinstance(quality, bool) or not isinstance(quality, int) or not low <= quality <= high:
            raise ValueError(f"generate: quality is {quality!r}, expected {low}..{high} for {image}.")
    return {
        "format": format,
        "image": image,
        "quality": quality,
        "masks": bool(given["masks"]),
        "shard_size": check_positive("shard_size", given["shard_size"]),
    }
