"""`generate`: from options to a finished data set."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from cgnrt._support.suggest import did_you_mean
from cgnrt._support.terminal import progress_bar
from cgnrt.errors import CgnrtError, printable
from cgnrt.plan import Plan
from cgnrt.request.labels import Label
from cgnrt.request.options import SampleOptions
from cgnrt.request.place import Place
from cgnrt.sampling import check_seed
from cgnrt.shards.folder import enter, finish, locked, read_data_set, sweep
from cgnrt.shards.formats import FORMATS, choose_storage
from cgnrt.shards.job import EngineChoice, Job, default_processes, differences, resolve
from cgnrt.shards.journal import Journal
from cgnrt.shards.manifest import DataSetManifest, ShardRecord
from cgnrt.shards.processes import make_here, make_in_processes

EXECUTORS = ("processes", "ray")  # what `engine=` of `generate` names


def generate(
    plan: str | os.PathLike[str] | Plan,
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
    do: Mapping[str, Label | float] | None = SampleOptions.do,
    labels: str = SampleOptions.labels,
    classes: Mapping[str, Sequence[Label]] | None = SampleOptions.classes,
    truncation: float | None = SampleOptions.truncation,
    pool: int | tuple[int, int, int] | None = SampleOptions.pool,
    refresh: int | None = SampleOptions.refresh,
    per_noise: int = SampleOptions.per_noise,
    distinct: bool = SampleOptions.distinct,
    place: Place | None = SampleOptions.place,
    backend: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    processes: int | None = None,
    engine: str = "processes",
    force: bool = False,
    note: Callable[[str], object] | None = None,
) -> DataSetManifest:
    """Write samples `start` to `start + n - 1` of a stream as a data set, or resume a run that was stopped.

    On one machine with one set of libraries the finished files are the same bytes however often the run was stopped,
    and whatever `processes` and `engine` are.

    Args:
      plan: the plan file, of which each process makes a private copy; or an open `cgnrt.Plan`, so that this process
        does not read the file again.
      folder: the folder of the data set; made if it does not exist. Every file in it appears whole or not at all.
      format: "webdataset" (tar), "parquet" or "npz".
      image: "webp", "png", "jpeg" or "raw"; None is "webp", for npz "raw".
      quality: of webp (0..100; None is lossless) and jpeg (1..100; None is 95).
      masks: store the masks too, 8 bits, lossless.
      shard_size: samples in a file.
      seed, start, do, labels, classes, truncation, pool, refresh, per_noise, distinct, place: as for
        `Generator.sample`. A renewing pool is filled anew for every shard. With a place each sample has its dy, dx,
        scale and flip beside the labels.
      backend, device, precision, threads: as for `Generator`, in each process. Open ones are taken from the data set
        that is resumed. In a new one each process has one thread; for a plan larger than 64 MiB the processes share
        the cores.
      processes: None is as many as the cores can run. They are spawned: a script that calls this needs
        `if __name__ == "__main__":`.
      engine: what runs the job. "processes": of this machine. "ray": an actor pool on the Ray cluster of
        RAY_ADDRESS, or on a local one; all its machines must see `folder` and `plan` under the same path.
      force: start again where the folder has another data set; write beside other files.
      note: called with messages about the run; None gives warnings.
    Returns:
      The manifest of the finished data set.
    Raises:
      CgnrtError: the folder has other files in it, is in use or not writable; a worker was killed.
      PlanError, BackendError, TypeError, ValueError: as a Generator, or an option is out of range.
    """
    if engine not in EXECUTORS:
        raise ValueError(
            f"generate: engine is {engine!r}, expected one of {', '.join(EXECUTORS)}.{did_you_mean(engine, EXECUTORS)}"
        )
    target = Path(folder)
    tell = note or (lambda text: warnings.warn(printable(f"generate '{target}': {text}"), stacklevel=2))
    storage = choose_storage(format, image, quality, masks=masks, shard_size=shard_size)
    FORMATS[format].check()
    if engine == "ray":
        from cgnrt.shards.ray_actors import check_ray

        check_ray()
    options = SampleOptions(
        seed=check_seed(seed),
        do=do,
        labels=labels,
        classes=classes,
        truncation=truncation,
        pool=pool,
        refresh=refresh,
        per_noise=per_noise,
        distinct=distinct,
        place=place,
        parts=storage.masks,
    )
    choice = EngineChoice(backend, device, precision, threads)
    try:
        with nullcontext(plan) if isinstance(plan, Plan) else Plan.open(plan, private=True) as opened:
            asked = partial(
                resolve,
                opened,
                n,
                start,
                options=options,
                engine=choice,
                storage=storage,
                processes=processes,
            )
            job = _resolve(asked, target, force)
            target.mkdir(parents=True, exist_ok=True)
            with locked(target):
                return _run(job, target, processes, engine, force, tell)
    except OSError as error:
        raise CgnrtError(
            f"generate '{folder}': {error.strerror or error}, expected a folder to read and write."
        ) from error


def _resolve(asked: Callable[..., Job], folder: Path, force: bool) -> Job:
    """The job. An existing data set decides the open options, unless it is to be replaced."""
    existing = read_data_set(folder) if folder.is_dir() else None
    if existing is not None:
        job = asked(before=existing.header)
        if not force or not differences(job.header(), existing.header):
            return job
    return asked(before=None)


def _run(
    job: Job, folder: Path, processes: int | None, executor: str, force: bool, note: Callable[[str], object]
) -> DataSetManifest:
    done = enter(folder, job, force=force, note=note)
    if done is None:
        return DataSetManifest.read(folder)
    journal = Journal(folder)
    bar = progress_bar(job.n, initial=sum(record.count for record in done.values()), unit="image")
    try:
        with bar:
            for record in _records(job, folder, done, processes, executor, bar.update):
                journal.add(record)
                done[record.name] = record
        return finish(folder, job, done)
    finally:
        with contextlib.suppress(OSError):  # which must not hide what came before
            journal.close()
            sweep(folder)  # when the workers have ended: killed ones leave files


def _records(
    job: Job,
    folder: Path,
    done: Mapping[str, ShardRecord],
    processes: int | None,
    executor: str,
    progress: Callable[[int], object],
) -> Iterator[ShardRecord]:
    """Make the missing shards with the executor."""
    # Not a list: a run that is stopped after an hour may have been asked for any number.
    todo = (k for k in range(job.shard_count) if job.shard(k).name not in done)
    missing = job.shard_count - len(done)
    if executor == "ray":
        from cgnrt.shards.ray_actors import make_by_ray

        return make_by_ray(job, folder, list(todo), progress, processes)
    several = min(default_processes(job) if processes is None else processes, missing)
    if several <= 1:
        return make_here(job, folder, todo, progress)
    return make_in_processes(job, folder, todo, progress, several)
