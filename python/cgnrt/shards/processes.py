"""The executor "processes": processes of this machine, each of which makes one shard at a time."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from cgnrt._support.children import follow_parent
from cgnrt._support.files import terminable
from cgnrt.errors import CgnrtError
from cgnrt.shards.job import Job
from cgnrt.shards.maker import ShardMaker
from cgnrt.shards.manifest import ShardRecord

_STOP_SECONDS = 10.0


def make_here(
    job: Job, folder: Path, todo: Iterable[int], progress: Callable[[int], object]
) -> Iterator[ShardRecord]:
    """Make shards in this process, one after the other."""
    maker = ShardMaker(job)
    for number in todo:
        yield maker.make(folder, number, progress)


def make_in_processes(
    job: Job, folder: Path, todo: Iterable[int], progress: Callable[[int], object], processes: int
) -> Iterator[ShardRecord]:
    """Make shards in worker processes. Gives the record of each shard that is finished.

    Raises:
      CgnrtError: a worker was killed. An error in a worker is raised here too.
    """
    waiting = iter(todo)
    workers: dict[Connection, _Worker] = {}
    try:
        for number in itertools.islice(waiting, processes):
            worker = _start(job, folder)
            workers[worker.connection] = worker
            worker.assign(number)
        while busy := [w.connection for w in workers.values() if w.number is not None]:
            for connection in wait(busy):
                worker = workers[connection]  # type: ignore[index]
                kind, value = worker.receive(folder)
                if kind == "samples":
                    progress(value)
                elif kind == "error":
                    raise value
                else:
                    worker.assign(next(waiting, None))
                    yield value
    finally:
        _stop(workers.values())


@dataclass
class _Worker:
    """A process, this end of its pipe, and the shard that it is making."""

    process: BaseProcess
    connection: Connection
    number: int | None = None

    def assign(self, number: int | None) -> None:
        self.number = number
        with contextlib.suppress(BrokenPipeError):  # it died: `receive` reports it
            self.connection.send(number)

    def receive(self, folder: Path) -> Any:
        try:
            return self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.process.join(_STOP_SECONDS)
            code = self.process.exitcode
            how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
            raise CgnrtError(
                f"generate '{folder}': worker process {self.process.pid} ended by {how} before its shard "
                "was finished. Run the same command again to resume; with fewer --processes if memory ran out."
            ) from None


def _start(job: Job, folder: Path) -> _Worker:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(there, job, folder), daemon=True)
    process.start()
    there.close()  # so that the pipe ends when the worker dies
    return _Worker(process, here)


def _stop(workers: Iterable[_Worker]) -> None:
    """End all workers. An idle one ends with its pipe; a busy one gets a signal and removes its unfinished file."""
    workers = list(workers)
    for worker in workers:
        worker.connection.close()
        if worker.number is not None:
            worker.process.terminate()
    for worker in workers:
        worker.process.join(_STOP_SECONDS)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
        worker.process.close()


def _work(connection: Connection, job: Job, folder: Path) -> None:
    """A worker: receives shard numbers, sends records."""
    follow_parent()
    try:
        with terminable():
            _serve(connection, job, folder)
    except (KeyboardInterrupt, EOFError, BrokenPipeError):
        sys.exit(1)


def _serve(connection: Connection, job: Job, folder: Path) -> None:
    try:
        maker = ShardMaker(job)
        while (number := connection.recv()) is not None:
            record = maker.make(folder, number, lambda n: connection.send(("samples", n)))
            connection.send(("shard", record))
    except (EOFError, BrokenPipeError):
        raise
    except Exception as error:  # the parent raises it
        error.add_note(f"In worker process {os.getpid()}:\n{traceback.format_exc()}")
        connection.send(("error", error))
