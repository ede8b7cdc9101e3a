"""A folder of pictures made of photos: numbered PNGs, and `index.csv`, which has a row for each at any moment.

The PNGs lie in the folder itself or, of a test set, in a folder for each class (as torchvision's ImageFolder).

A row is appended when its picture has its name. An unfinished run leaves `.cgnrt-real.json`, which says what it makes:
the next run with the same options makes what is missing. At the end the rows are sorted, and that file is removed.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cgnrt._support.files import flush_names, held_folder, open_own, written_beside
from cgnrt._support.reading import read_file
from cgnrt.errors import CgnrtError
from cgnrt.plan import MECHANISMS

INDEX, UNFINISHED = "index.csv", ".cgnrt-real.json"
_HEADER = ["file", "index", "seed", *MECHANISMS, *(f"{name}_class" for name in MECHANISMS)]
_LARGEST_JSON = 1 << 16
# What `written_beside` calls files that a killed run did not finish.
_TEMPORARY = re.compile(
    r"\.([0-9]{6,}\.png|" + re.escape(INDEX) + "|" + re.escape(UNFINISHED) + r")\.[0-9]+\.[0-9a-f]{8}\.tmp"
)

Settings = Mapping[str, Any]
Row = list[str]
NameOf = Callable[[int], str]  # a picture's name in the folder, by its number


def picture_name(number: int) -> str:
    return f"{number:06d}.png"


def refuse_foreign(folder: Path, *, force: bool) -> None:
    """Refuse a folder with files in it that no unfinished run left. Called before long work.

    Raises:
      CgnrtError: it has some, and `force` is off; or it is a file.
    """
    if not folder.is_dir():
        if os.path.lexists(folder):
            raise CgnrtError(
                f"write '{folder}': it is a file, expected a folder, or a name that ends in .png."
            )
        return
    if force or (folder / UNFINISHED).exists():
        return
    if any(not _TEMPORARY.fullmatch(path.name) for path in folder.iterdir()):
        raise CgnrtError(
            f"write '{folder}': the folder has files in it, expected an empty or a new one. "
            "Pass --force to replace those of the same names."
        )


class CounterfactualFolder:
    """The folder during a run. Made by `writing`.

    Attributes:
      missing: the numbers of the samples that are to be made, rising.
    """

    def __init__(self, folder: Path, settings: Settings, force: bool, name_of: NameOf = picture_name) -> None:
        before = _read_settings(folder)
        if before is None:
            refuse_foreign(folder, force=force)
        elif before != settings and not force:
            differ = [
                f"{name} is {settings[name]}, expected {before.get(name)}"
                for name in settings
                if settings[name] != before.get(name)
            ]
            raise CgnrtError(
                f"write '{folder}': {'; '.join(differ)}, as in the unfinished run of this folder. Give the same "
                "photos and options to go on with it, another folder, or --force to start again."
            )
        span = range(settings["start"], settings["start"] + settings["n"])
        self._places = {folder, *((folder / name_of(number)).parent for number in span)}
        for place in self._places:
            _sweep(place)
        resumed = before == settings
        self._folder, self._name_of = folder, name_of
        self._force = force or resumed
        self._rows = {
            number: row
            for number, row in _read_index(folder).items()
            if (resumed or number not in span) and row[0] == name_of(number) and _has_content(folder / row[0])
        }
        # In this order: a row must not pass for one of a run that has not made its picture.
        _write_index(folder, self._rows)
        with written_beside(folder / UNFINISHED, force=True) as beside:
            beside.write_text(json.dumps(dict(settings)), encoding="utf-8")
        self.missing = [number for number in span if number not in self._rows]
        self._file = open_own(folder / INDEX, os.O_WRONLY | os.O_APPEND)

    def add(
        self,
        number: int,
        image: np.ndarray,
        seed: int,
        parts: Sequence[Path | str],
        classes: Sequence[str],
    ) -> None:
        """Write a picture, (h, w, 3) uint8, and its row, which Ctrl-C does not part.

        `parts` are the photos that gave shape, texture and background, `classes` their classes; empty where none did.
        """
        name = self._name_of(number)
        path = self._folder / name
        row = [name, str(number), str(seed), *map(str, parts), *classes]
        made = None
        try:
            with written_beside(path, force=self._force, flush_name=False) as beside:
                Image.fromarray(image).save(beside, format="PNG")
                made = os.stat(beside)
            self._append(number, row)
        except BaseException:
            if made is not None and number not in self._rows and _is(path, made):
                self._append(number, row)
            raise

    def flush(self) -> None:
        """Put the names of the pictures and the rows so far on the disk."""
        for place in self._places:
            flush_names(place)
        os.fsync(self._file)

    def finish(self) -> None:
        """Sort the index, and say that the run is finished."""
        _write_index(self._folder, dict(sorted(self._rows.items())))
        (self._folder / UNFINISHED).unlink()
        flush_names(self._folder)

    def close(self) -> None:
        os.close(self._file)

    def _append(self, number: int, row: Row) -> None:
        self._rows[number] = row
        line = _lines([row])
        try:
            while line:  # a nearly full disk takes a part of it
                line = line[os.write(self._file, line) :]
        except OSError as error:
            raise CgnrtError(
                f"write '{self._folder / INDEX}': {error.strerror or error}, expected a writable place. "
                "Run the same command again to go on."
            ) from error


@contextlib.contextmanager
def writing(
    folder: Path, settings: Settings, *, force: bool, name_of: NameOf = picture_name
) -> Iterator[CounterfactualFolder]:
    """Prepare a folder for a run and hold it, so that no other run writes to it.

    Args:
      settings: everything that the pictures depend on, in types of JSON; "start" and "n" are which samples are made.
      force: replace pictures of the same names; rows of others stay in the index.
      name_of: what a picture is called; a name may have a folder in it.
    Raises:
      CgnrtError: the folder has files of something else, or of an unfinished run with other settings, and `force` is
        off; another run holds it; or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with held_folder(folder):
            output = CounterfactualFolder(folder, settings, force, name_of)
            try:
                yield output
            finally:
                output.close()
    except OSError as error:
        raise CgnrtError(
            f"write '{folder}': {error.strerror or error}, expected a writable folder."
        ) from error


def _read_settings(folder: Path) -> dict[str, Any] | None:
    """What an unfinished run makes; None without one."""
    try:
        found = json.loads(read_file(folder / UNFINISHED, _LARGEST_JSON))
    except FileNotFoundError:
        return None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise CgnrtError(
            f"write '{folder}': {UNFINISHED} is damaged. Remove it, and pass --force to start again."
        )
    return found


def _read_index(folder: Path) -> dict[int, Row]:
    """The complete rows by number, the latest of each; none of a file with another header."""
    try:
        raw = read_file(folder / INDEX)
    except FileNotFoundError:
        return {}
    text = raw.decode("utf-8", "surrogateescape")
    lines = list(io.StringIO(text, newline=""))
    reader = csv.reader(lines)
    rows: dict[int, Row] = {}
    with contextlib.suppress(csv.Error):
        if next(reader, None) != _HEADER:
            return {}
        for row in reader:
            complete = lines[reader.line_num - 1].endswith("\n")  # a crash may cut the last one short
            if complete and len(row) == len(_HEADER) and row[1].isdecimal():
                number = int(row[1])
                rows[number] = row
    return rows


def _write_index(folder: Path, rows: Mapping[int, Row]) -> None:
    with written_beside(folder / INDEX, force=True) as beside:
        beside.write_bytes(_lines([_HEADER, *rows.values()]))


def _lines(rows: Sequence[Row]) -> bytes:
    """CSV; bytes of file names that are not UTF-8 stay as they are."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode("utf-8", "surrogateescape")


def _sweep(folder: Path) -> None:
    """Remove the temporary files of killed runs."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if _TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _has_content(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:
        return False


def _is(path: Path, made: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(path), made)
    except OSError:
        return False
