"""`generate`: from options to a finished data set."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cgnrt.errors import CgnrtError
from cgnrt.request.labels import Label
from cgnrt.shards import parquet
from cgnrt.shards.folder import enter, finish, found, sweep
from cgnrt.shards.job import Job, default_processes, differences, resolve
from cgnrt.shards.journal import Journal
from cgnrt.shards.lock import locked
from cgnrt.shards.manifest import Manifest, ShardRecord
from cgnrt.shards.processes import make_here, make_in_processes

ENGINES = ("processes", "ray")


def generate(
    plan: str | os.PathLike[str],
    n: int,
    folder: str | os.PathLike[str],
    *,
    format: str = "webdataset",
    image: str | None = None,
    quality: int | None = None,
    masks: bool = False,
    shard_size: int = 10_000,
    seed: int = 0,
    start: int = 0,
    do: Mapping[str, Label] | None = None,
    labels: str = "independent",
    classes: Mapping[str, Sequence[Label]] | None = None,
    truncation: float | None = None,
    pool: int | tuple[int, int, int] | None = None,
    refresh: int | None = None,
    per_noise: int = 1,
    backend: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    processes: int | None = None,
    engine: str = "processes",
    force: bool = False,
    note: Callable[[str], object] | None = None,
) -> Manifest:
    """Write samples `start` to `start + n - 1` of a stream as a data set, or go on with a run that was stopped.

    The finished files are the same bytes however often the run was stopped, and whatever `processes` and `engine`
    are, on one machine with one set of libraries.

    Args:
      folder: where to; made if it is not there. Every file in it appears whole or not at all.
      format: "webdataset" (tar), "parquet" or "npz".
      image: "webp", "png", "jpeg" or "raw"; None is "webp", for npz "raw".
      quality: of webp (0..100; None is lossless) and jpeg (1..100; None is 95).
      masks: keep the masks too, 8 bits, lossless.
      shard_size: samples in a file.
      seed, start, do, labels, classes, truncation, pool, refresh, per_noise: as for `Generator.sample`. A
        renewing pool is filled anew for every shard.
      backend, device, precision, threads: as for `Generator`, of each process. What is left open is taken from the
        data set that is gone on with; else one thread a process, for a plan beyond 64 MiB as many as there are cores.
      processes: None is what the cores feed. They are spawned: a script that calls this needs
        `if __name__ == "__main__":`.
      engine: "processes" of this machine, or "ray": an actor pool on the Ray cluster of RAY_ADDRESS, or a local one;
        all its machines see `folder` and `plan` under the same path.
      force: begin anew where the folder has another data set; write beside other files.
      note: called with what is worth telling on the way; None warns.
    Returns:
      The manifest of the finished data set.
    Raises:
      CgnrtError: the folder has something else in it, is in use or not writable; a worker was killed.
      PlanError, BackendError, TypeError, ValueError: as a Generator, or an option is out of range.
    """
    if engine not in ENGINES:
        raise ValueError(f"generate: engine is {engine!r}, expected one of {', '.join(ENGINES)}.")
    target = Path(folder)
    tell = note or (lambda text: warnings.warn(f"generate '{target}': {text}", stacklevel=2))
    options: dict[str, Any] = {
        "engine": {"backend": backend, "device": device, "precision": precision, "threads": threads},
        "samples": {
            "start": start,
            "seed": seed,
            "do": do,
            "labels": labels,
            "classes": classes,
            "truncation": truncation,
            "pool": pool,
            "refresh": refresh,
            "per_noise": per_noise,
        },
        "storage": {
            "format": format,
            "image": image,
            "quality": quality,
            "masks": masks,
            "shard_size": shard_size,
        },
        "processes": processes,
    }
    if format == "parquet":
        parquet.check()
    if engine == "ray":
        from cgnrt.shards.ray_actors import check_ray

        check_ray()
    try:
        job = _resolve(plan, n, target, options, force)
        target.mkdir(parents=True, exist_ok=True)
        with locked(target):
            return _run(job, target, processes, engine, force, tell)
    except OSError as error:
        raise CgnrtError(
            f"generate '{folder}': {error.strerror or error}, expected a folder to read and write in."
        ) from error


def _resolve(
    plan: str | os.PathLike[str], n: int, folder: Path, options: Mapping[str, Any], force: bool
) -> Job:
    """The job; with what was left open as in the data set that is there, unless that is to be replaced."""
    there = found(folder) if folder.is_dir() else None
    if there is not None:
        job = resolve(plan, n, **options, before=there.header)
        if not force or not differences(job.header(), there.header):
            return job
    return resolve(plan, n, **options)


def _run(
    job: Job, folder: Path, processes: int | None, engine: str, force: bool, note: Callable[[str], object]
) -> Manifest:
    done = enter(folder, job, force=force, note=note)
    if done is None:
        return Manifest.read(folder)
    journal = Journal(folder)
    bar = tqdm(
        total=job.samples.n,
        initial=sum(record.count for record in done.values()),
        unit="image",
        disable=None,
    )
    try:
        with bar:
            for record in _records(job, folder, done, processes, engine, bar.update):
                journal.add([record])
                done[record.name] = record
        return finish(folder, job, done)
    finally:
        journal.close()
        sweep(folder)  # after the workers: of those that were killed


def _records(
    job: Job,
    folder: Path,
    done: Mapping[str, ShardRecord],
    processes: int | None,
    engine: str,
    progress: Callable[[int], object],
) -> Iterator[ShardRecord]:
    """Make what is not done, by the engine asked for."""
    todo = [k for k in range(job.shard_count) if job.shard(k).name not in done]
    if engine == "ray":
        from cgnrt.shards.ray_actors import make_by_ray

        return make_by_ray(job, folder, todo, progress, processes)
    several = min(default_processes(job) if processes is None else processes, len(todo))
    if several <= 1:
        return make_here(job, folder, todo, progress)
    return make_in_processes(job, folder, todo, progress, several)
