"""The folder of a run that is not finished: the pictures so far, and a journal of them.

It lies beside the plan that is made, and is removed when the plan is there. A line of the journal is written when the
pictures that it counts are on the disk, so the next run goes on where this one was stopped, whatever stopped it.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cgnrt._support.files import discard, flush_names, held_folder, open_own, written_beside
from cgnrt._support.reading import read_file
from cgnrt.errors import CgnrtError, PlanError, printable

_JOURNAL = "journal.jsonl"
_FORMAT = "cgnrt-bank 1"
_FLUSH_SECONDS = 1.0  # of work that a power cut may cost
_FILE_BYTES = 1 << 20  # of everything in the plan beside the pictures, about

GO_ON = "Make room, and run the same command again to go on."

Shape = tuple[int, int, int]


def folder_of(target: Path) -> Path:
    """Where the pictures of a plan are while it is made."""
    return target.with_name(f"{target.name}.unfinished")


class Unfinished:
    """The folder during a run. Made by `unfinished`.

    Attributes:
      folder: its path.
      rows: how many pictures of each mechanism are done.
      notes: what `add` was told, by this run and those before.
    """

    def __init__(
        self, folder: Path, shapes: Mapping[str, Shape], rows: Mapping[str, int], notes: list[Any]
    ) -> None:
        self.folder = folder
        self.rows = dict(rows)
        self.notes = notes
        self._shapes = dict(shapes)
        self._lines: list[bytes] = []  # that wait for their pictures to be on the disk
        self._flushed = time.monotonic()
        self._files: dict[str, int] = {}
        try:
            self._journal = open_own(folder / _JOURNAL, os.O_WRONLY | os.O_APPEND)
            for name in shapes:
                handle = self._files[name] = open_own(_path(folder, name), os.O_RDWR | os.O_CREAT)
                os.ftruncate(handle, self._size(name))
                os.lseek(handle, 0, os.SEEK_END)
        except BaseException:
            self.close()
            raise

    def add(self, pictures: Mapping[str, np.ndarray], note: Any = None) -> None:
        """Append pictures, uint8 (n, c, h, w) by mechanism, and what the next run has to know of them.

        Raises:
          CgnrtError: the disk is full or gone.
        """
        for name, added in pictures.items():
            if not len(added):
                continue
            with self._kept(name):
                _write(self._files[name], np.ascontiguousarray(added).data.cast("B"))
            self.rows[name] += len(added)
        self.notes.append(note)
        self._lines.append(_line({"rows": self.rows, "note": note}))
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Put everything so far on the disk; errors as for `add`."""
        with self._kept(_JOURNAL):
            for handle in self._files.values():
                os.fsync(handle)
            while self._lines:
                _write(self._journal, memoryview(self._lines[0]))
                del self._lines[0]
            os.fsync(self._journal)
        self._flushed = time.monotonic()

    def pictures(self, name: str) -> np.ndarray:
        """The pictures of a mechanism in place, uint8 (rows, c, h, w)."""
        return np.memmap(
            _path(self.folder, name), np.uint8, "r", shape=(self.rows[name], *self._shapes[name])
        )

    def require_room(self, still: Mapping[str, int], target: Path) -> None:
        """Refuse a run that the disk has no room for.

        Args:
          still: how many pictures of each mechanism are to be added, at most.
        Raises:
          CgnrtError: there is less room than these and the plan need.
        """
        more = sum(count * math.prod(self._shapes[name]) for name, count in still.items())
        plan = more + sum(self._size(name) for name in self._shapes) + _FILE_BYTES
        free = shutil.disk_usage(self.folder).free
        if free < more + plan:
            raise CgnrtError(
                f"write '{target}': {free:,} bytes are free on its disk, expected at least {more + plan:,}: "
                f"{more:,} for pictures, until the plan of {plan:,} is written. Make room, or make fewer pictures."
            )

    @contextlib.contextmanager
    def writing_plan(self, target: Path) -> Iterator[None]:
        """Around the writing of the plan: afterwards the folder is removed, or else an error says that it is kept."""
        try:
            yield
        except (PlanError, OSError) as error:
            if isinstance(error, OSError) or isinstance(error.__cause__, OSError):
                said = f"write '{target}': {error}." if isinstance(error, OSError) else str(error)
                raise CgnrtError(f"{said} The pictures are kept in '{self.folder}'. {GO_ON}") from error
            raise
        self.drop()
        flush_names(target.parent)

    def drop(self) -> None:
        """Remove the folder; what is not of a run stays in it."""
        for path in [*(_path(self.folder, name) for name in self._shapes), self.folder / _JOURNAL]:
            discard(path)
        with contextlib.suppress(OSError):  # something else lies in it
            self.folder.rmdir()

    def close(self) -> None:
        for handle in [*self._files.values(), *([self._journal] if hasattr(self, "_journal") else [])]:
            os.close(handle)
        self._files = {}

    def _size(self, name: str) -> int:
        return self.rows[name] * math.prod(self._shapes[name])

    @contextlib.contextmanager
    def _kept(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CgnrtError(
                f"write '{self.folder / name}': {error.strerror or error}, expected a place with room. What is done is "
                f"kept. {GO_ON}"
            ) from error


@contextlib.contextmanager
def unfinished(
    target: Path, settings: Mapping[str, Any], shapes: Mapping[str, Shape], *, force: bool
) -> Iterator[Unfinished]:
    """Begin a run, or go on with one of the same settings, and hold its folder, so that no other run writes to it.

    Args:
      target: the plan that is made.
      settings: everything that the pictures depend on, in types of JSON.
      shapes: (c, h, w) of each mechanism's pictures.
      force: start again where the folder has a run of other settings.
    Raises:
      CgnrtError: the folder has a run of other settings and `force` is off, or files of something else; another run
        holds it; or it cannot be written.
    """
    folder = folder_of(target)
    settings = json.loads(json.dumps(settings))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with held_folder(folder):
            rows, notes = _resumed(folder, settings, shapes, force=force)
            run = Unfinished(folder, shapes, rows, notes)
            try:
                yield run
            finally:
                with contextlib.suppress(CgnrtError):  # which must not hide what came before
                    run.flush()
                run.close()
    except OSError as error:
        raise CgnrtError(
            f"write '{folder}': {error.strerror or error}, expected a writable folder."
        ) from error


def _resumed(
    folder: Path, settings: Mapping[str, Any], shapes: Mapping[str, Shape], *, force: bool
) -> tuple[dict[str, int], list[Any]]:
    """What earlier runs of these settings have done. The first run starts the journal, and has done nothing."""
    before, lines = _read(folder)
    if before is not None and not force and before != settings:
        differ = [
            f"{name} is {_shown(settings.get(name))}, expected {_shown(before.get(name))}"
            for name in sorted({*settings, *before})
            if settings.get(name) != before.get(name)
        ]
        raise CgnrtError(
            f"go on with '{folder}': {'; '.join(differ)}, as in the run that was stopped. Give what that run was "
            "given, another output, or --force to start again."
        )
    rows = lines[-1]["rows"] if lines else dict.fromkeys(shapes, 0)
    if before == settings:
        if _has(folder, shapes, rows):
            return rows, [line["note"] for line in lines]
        if not force:
            raise CgnrtError(
                f"go on with '{folder}': there are fewer pictures than {_JOURNAL} says. Pass --force to start again."
            )
    if before is None and not force and any(folder.iterdir()):
        raise CgnrtError(
            f"write '{folder}': the folder has files of something else in it, expected an empty one. Remove it, or "
            "pass --force."
        )
    with written_beside(folder / _JOURNAL, force=True) as beside:
        beside.write_bytes(_line({"format": _FORMAT, "settings": settings}))
    return dict.fromkeys(shapes, 0), []


def _has(folder: Path, shapes: Mapping[str, Shape], rows: Mapping[str, int]) -> bool:
    """Whether the files have these pictures."""
    needed = {name: rows[name] * math.prod(shape) for name, shape in shapes.items()}
    try:
        return all(size <= _path(folder, name).stat().st_size for name, size in needed.items() if size)
    except FileNotFoundError:
        return False


def _path(folder: Path, name: str) -> Path:
    return folder / f"{name}.pictures"


def _read(folder: Path) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """Settings and complete lines of a journal; None without one of this format."""
    try:
        raw = read_file(folder / _JOURNAL)
    except FileNotFoundError:
        return None, []
    good, lines = 0, []
    for line in raw.splitlines(keepends=True):
        try:
            found = json.loads(line) if line.endswith(b"\n") else None
        except ValueError:
            found = None
        if not isinstance(found, dict):
            break  # a crash cut it short
        lines.append(found)
        good += len(line)
    if not lines or lines[0].get("format") != _FORMAT:
        return None, []
    if good < len(raw):
        os.truncate(folder / _JOURNAL, good)
    return lines[0]["settings"], lines[1:]


def _write(handle: int, data: memoryview) -> None:
    while data:  # a nearly full disk takes a part of it
        data = data[os.write(handle, data) :]


def _line(entry: Mapping[str, Any]) -> bytes:
    return json.dumps(entry, separators=(",", ":")).encode() + b"\n"


def _shown(value: Any) -> str:
    text = printable(str(value), keep="")
    return text if len(text) <= 40 else f"{text[:16]}..."
