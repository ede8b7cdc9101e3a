"""The executor "ray": a pool of Ray Data's actors on all machines of a cluster.

Each actor opens the generator once and writes one shard at a time into the shared folder. Ray replaces an actor that
dies and gives its shard to another; a shard that is made twice has the same bytes and the same name.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cgnrt._support.extras import missing_dependency
from cgnrt._support.machine import available_cores
from cgnrt.errors import CgnrtError
from cgnrt.shards.job import Job, default_processes
from cgnrt.shards.maker import ShardMaker
from cgnrt.shards.manifest import ShardRecord

# A local Ray needs logical CPUs for Ray Data's own tasks beside those of the actors, or it never starts any.
_SHARE = 0.5
_SPARE_CPUS = 2
_ADDRESS = "RAY_ADDRESS"  # of an existing cluster


def check_ray() -> None:
    """Import Ray.

    Raises:
      MissingDependencyError: ray is not installed.
    """
    if _ADDRESS not in os.environ:
        # Ray reads this when it is imported: a Ray without other machines then listens on the loopback interface only.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray  # noqa: F401
    except ModuleNotFoundError as error:
        raise missing_dependency("generate, --engine ray", error) from error


def make_by_ray(
    job: Job, folder: Path, todo: Sequence[int], progress: Callable[[int], object], actors: int | None
) -> Iterator[ShardRecord]:
    """Make shards on the cluster of RAY_ADDRESS, or on a local Ray. Gives the record of each shard that is finished.

    Raises:
      CgnrtError: a worker does not see the folder, or Ray failed.
    """
    if not todo:
        return
    import ray
    import ray.data

    # Ray prints messages about the workers that it replaces.
    with contextlib.redirect_stdout(sys.stderr), _connected():
        cpus = int(ray.cluster_resources().get("CPU", 1))
        pool = min(len(todo), actors or _actors(job, cpus))
        rows = (
            ray.data.from_items([{"number": k} for k in todo], override_num_blocks=len(todo))
            .map_batches(
                _ShardActor,
                fn_constructor_args=(job, str(folder.absolute())),
                batch_size=1,
                compute=ray.data.ActorPoolStrategy(min_size=1, max_size=pool),
                num_cpus=_SHARE,
            )
            .iter_rows()
        )
        try:
            for row in rows:
                record = ShardRecord(**{name: row[name] for name in ShardRecord.__dataclass_fields__})
                _check_seen(folder, record, row["host"])
                progress(record.count)
                yield record
        except ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, CgnrtError):
                raise cause from None
            raise CgnrtError(
                f"generate '{folder}': Ray failed ({type(error).__name__}: {error}). "
                "Run the same command again to resume."
            ) from error


class _ShardActor:
    """A Ray worker's generator, and the shards that it makes."""

    def __init__(self, job: Job, folder: str) -> None:
        self._maker = ShardMaker(job)
        self._folder = Path(folder)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        (number,) = batch["number"].tolist()
        record = self._maker.make(self._folder, number, lambda _: None)
        return {name: [value] for name, value in asdict(record).items()} | {"host": [socket.gethostname()]}


@contextlib.contextmanager
def _connected() -> Iterator[None]:
    """Connect to a Ray: the caller's, the cluster that the environment names, or a temporary local one."""
    import ray

    if ray.is_initialized():
        yield
        return
    own = {"address": "local", "num_cpus": available_cores() + _SPARE_CPUS, "include_dashboard": False}
    try:
        ray.init(**({} if _ADDRESS in os.environ else own), log_to_driver=False, logging_level="warning")
    except (OSError, RuntimeError, ValueError) as error:
        where = os.environ.get(_ADDRESS, "this machine")
        raise CgnrtError(f"generate: Ray at {where} does not answer ({error}). Check {_ADDRESS}.") from error
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)  # this program shows the progress
        yield
    finally:
        ray.shutdown()


def _actors(job: Job, cpus: int) -> int:
    """As many actors as the cluster's cores can run."""
    local = default_processes(job)
    return max(1, local * cpus // (available_cores() + _SPARE_CPUS))


def _check_seen(folder: Path, record: ShardRecord, host: str) -> None:
    path = folder / record.name
    if not path.exists() or path.stat().st_size != record.size_bytes:
        raise CgnrtError(
            f"generate '{folder}': {record.name} is missing after {host} wrote it, expected a folder that all machines "
            "share. Give one on a shared file system."
        )
