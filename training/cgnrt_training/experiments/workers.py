"""Cells of an experiment in parallel processes, each with one file as its result."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, TextIO

from cgnrt._support.reading import read_text
from cgnrt._support.terminal import progress_bar, say
from cgnrt.errors import CgnrtError

from ..runs.folder import write_text

Result = dict[str, Any]
Work = Callable[[str, Any, Path], Result]  # name and content of a cell, and its folder -> what JSON can hold


def run_cells(
    work: Work,
    cells: Mapping[str, Any],
    folder: Path,
    *,
    jobs: int,
    log: TextIO,
    threads: int = 1,
    done: Callable[[str, Result], bool] | None = None,
) -> dict[str, Result]:
    """The results of all cells; those whose file is in `folder` are read, the others are worked out.

    A cell that fails does not keep the others from being done. When this process ends, in whatever way, so do the
    workers.

    Args:
      work: a function of a module, which workers import by its name.
      cells: what each is to be called with, by names that are fit for files.
      jobs: processes; 0 does the work in this one.
      threads: of torch, in each process.
      done: whether a cell's stored result, after its name, is all that is asked for; if not, the cell is given to
        `work` again. None: every stored result is.
    Raises:
      CgnrtError: cells failed; the message names the first and its error.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"{name}.json" for name in cells}
    stored = {name: read_result(path) for name, path in paths.items() if path.exists()}
    results = {name: result for name, result in stored.items() if done is None or done(name, result)}
    missing = [name for name in cells if name not in results]
    failed: dict[str, BaseException] = {}
    if results:
        say(f"{folder}: {len(results)} of {len(cells)} cells are done", log)
    with progress_bar(len(cells), initial=len(results), unit="cell") as bar:

        def finished(name: str, outcome: Result | BaseException) -> None:
            bar.update()
            if isinstance(outcome, BaseException):
                failed[name] = outcome
            else:
                results[name] = outcome
            state = f"failed: {outcome}" if name in failed else f"{results[name].get('wall_s', 0):.0f} s"
            say(f"{len(results) + len(failed)}/{len(cells)} {name}: {state}", log)

        if jobs == 0:
            for name in missing:
                finished(name, _attempt(work, name, cells[name], folder))
        elif missing:
            _in_processes(work, {name: cells[name] for name in missing}, folder, jobs, threads, finished)
    if failed:
        name, error = next(iter(failed.items()))
        raise CgnrtError(
            f"run '{folder}': {len(failed)} of {len(cells)} cells failed. {name}: {error} "
            f"Run the same command again for the missing ones."
        ) from error
    return {name: results[name] for name in cells}


def _attempt(work: Work, name: str, content: Any, folder: Path) -> Result | Exception:
    try:
        result = work(name, content, folder)
        write_text(folder / f"{name}.json", json.dumps(result, indent=2) + "\n")
        return result
    except Exception as error:
        return error


def read_result(path: Path) -> Result:
    """A cell's stored result.

    Raises:
      CgnrtError: the file is damaged.
    """
    try:
        content = json.loads(read_text(path))
    except (OSError, ValueError) as error:
        raise CgnrtError(
            f"load '{path}': content is damaged ({error}), expected a cell's result. Remove it to do it again."
        ) from error
    if not isinstance(content, dict):
        raise CgnrtError(f"load '{path}': content is not a table, expected a cell's result. Remove it.")
    return content


class _Worker:
    """A process that does one cell after the other."""

    def __init__(self, work: Work, folder: Path, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, there = context.Pipe()
        self.process: SpawnProcess = context.Process(
            target=_serve, args=(there, work, folder, threads), daemon=True
        )
        self.process.start()
        there.close()
        self.cell = ""

    def give(self, name: str, content: Any) -> None:
        self.cell = name
        self.pipe.send((name, content))

    def outcome(self) -> Result | BaseException:
        try:
            found: Result | BaseException = self.pipe.recv()
            return found
        except (EOFError, OSError):
            self.process.join()
            return CgnrtError(
                f"run '{self.cell}': its process ended ({self.process.exitcode}), expected a result."
            )

    def end(self, *, now: bool = False) -> None:
        """Close an idle worker, or end a busy one now."""
        self.pipe.close()
        if now:
            self.process.terminate()
        self.process.join(10)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _in_processes(
    work: Work,
    cells: Mapping[str, Any],
    folder: Path,
    jobs: int,
    threads: int,
    finished: Callable[[str, Result | BaseException], None],
) -> None:
    waiting = list(cells)
    workers: list[_Worker] = []
    try:
        while waiting or workers:
            while waiting and len(workers) < jobs:
                workers.append(_Worker(work, folder, threads))
                name = waiting.pop(0)
                workers[-1].give(name, cells[name])
            ready = wait([worker.pipe for worker in workers])
            for worker in [worker for worker in workers if worker.pipe in ready]:
                finished(worker.cell, worker.outcome())
                if waiting and worker.process.is_alive():
                    name = waiting.pop(0)
                    worker.give(name, cells[name])
                else:
                    workers.remove(worker)
                    worker.end()
    finally:
        for worker in workers:
            worker.process.terminate()  # all at once, then wait for each
        for worker in workers:
            worker.end(now=True)


def _serve(pipe: Connection, work: Work, folder: Path, threads: int) -> None:
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches the whole group: the parent ends its workers
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # tidy up on the way out
    threading.Thread(target=_die_with_parent, daemon=True).start()
    import torch

    torch.set_num_threads(threads)
    while True:
        try:
            name, content = pipe.recv()
        except EOFError:
            return
        outcome = _attempt(work, name, content, folder)
        if isinstance(outcome, Exception):  # as text: not every error can be pickled, nor unpickled
            outcome = CgnrtError(str(outcome) or type(outcome).__name__)
        pipe.send(outcome)


def _die_with_parent() -> None:
    """A parent that was killed cannot end its workers, so they watch it."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
