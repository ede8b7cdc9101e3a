"""Fills a pack, photo by photo, so that it may be stopped at any moment.

Pixels are appended to `.unfinished/SPLIT.images` and so on, and a line of `.unfinished/journal.jsonl` follows each
block of photos. What goes beyond the last line is cut off when the work goes on. The finished arrays, then
`photos.json`, get their names at the end.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, TextIO

import numpy as np

from cgnrt._support.files import open_own, written_beside
from cgnrt._support.pictures import Picture, PictureError
from cgnrt._support.reading import read_file
from cgnrt._support.terminal import progress_bar, say
from cgnrt.errors import CgnrtError
from cgnrt.real.files import read_photo

from ..runs.times import Estimate
from .folder import FEWEST, SPLITS, Entry, PhotoFolder, check_counts
from .masks import MaskSource

FORMAT, FORMAT_VERSION = "cgnrt-photos", 1
ABOUT = "photos.json"
_UNFINISHED, _JOURNAL = ".unfinished", "journal.jsonl"
_ARRAYS = {f"{split}.{name}.npy" for split in SPLITS for name in ("images", "labels", "masks")}
_BLOCK = 16  # photos between two lines of the journal
_COPIED_BYTES = 1 << 22


def settings_of(folder: PhotoFolder, size: int, masks: MaskSource | None) -> dict[str, Any]:
    """Everything that the pack depends on, in types of JSON."""
    return {
        "size": size,
        "classes": list(folder.classes),
        "masks": None if masks is None else masks.about(),
        "fingerprint": folder.fingerprint(),
    }


@dataclass
class _Progress:
    """Of a split."""

    read: int = 0  # photos, also those that were left out
    kept: list[int] = field(default_factory=list)  # of these, by their place in the folder
    left_out: list[tuple[str, str]] = field(default_factory=list)  # names and reasons


class Writer:
    """Writes a pack. A context, within which its files are open."""

    def __init__(
        self, output: Path, folder: PhotoFolder, settings: Mapping[str, Any], *, force: bool, log: TextIO
    ) -> None:
        self._output, self._folder, self._settings, self._log = output, folder, dict(settings), log
        self._work = output / _UNFINISHED
        self._size: int = settings["size"]
        self._rows: dict[str, tuple[int, ...]] = {"images": (3, self._size, self._size)}
        if settings["masks"] is not None:
            self._rows["masks"] = (self._size, self._size)
        self._files: dict[str, BinaryIO] = {}
        self._progress = {split: _Progress() for split in folder.splits}
        self._force = force

    def __enter__(self) -> Writer:
        try:
            with _writing(self._output):
                self._work.mkdir(parents=True, exist_ok=True)
                self._begin()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        for file in self._files.values():
            with contextlib.suppress(OSError):  # flushed block by block: nothing is lost
                file.close()

    def _begin(self) -> None:
        """Take up what the journal has of the same settings, or start it."""
        lines, journal_bytes = _journal(self._work / _JOURNAL)
        if lines and lines[0] != self._settings and not self._force:
            raise ValueError(
                f"photos '{self._output}': the folder has an unfinished pack of other photos, size or masks, expected "
                "that of the same. Use --force to start anew, or another folder."
            )
        if not lines or lines[0] != self._settings:
            with written_beside(self._work / _JOURNAL, force=True) as beside:
                journal_bytes = beside.write_bytes(json.dumps(self._settings).encode() + b"\n")
            lines = []
        for line in lines[1:]:
            progress = self._progress[line["split"]]
            progress.read = line["read"]
            progress.kept += line["kept"]
            progress.left_out += [(name, reason) for name, reason in line["left_out"]]
        if lines[1:]:
            done = sum(progress.read for progress in self._progress.values())
            say(f"photos: '{self._output}' goes on after {done:,} photos", self._log)
        for name, size_bytes in self._expected(journal_bytes).items():
            self._files[name] = _open_at(self._work / name, size_bytes)

    def _expected(self, journal_bytes: int) -> dict[str, int]:
        """The sizes of the files, by name, as far as the journal vouches for them."""
        sizes = {
            f"{split}.{name}": len(progress.kept) * int(np.prod(row))
            for split, progress in self._progress.items()
            for name, row in self._rows.items()
        }
        return {_JOURNAL: journal_bytes, **sizes}

    def fill(self, masks: MaskSource | None) -> None:
        """Read all photos that are not in yet.

        Raises:
          ValueError: of the masks.
          CgnrtError: the disk refuses; what is done stays.
        """
        total = sum(map(len, self._folder.splits.values()))
        done = sum(progress.read for progress in self._progress.values())
        things = "photos" if masks is None else "photos and masks"
        estimate = Estimate(total - done, things, self._log)
        with progress_bar(total, initial=done, desc=things, unit="photo") as bar:
            for split, entries in self._folder.splits.items():
                progress = self._progress[split]
                while progress.read < len(entries):
                    block = entries[progress.read : progress.read + _BLOCK]
                    self._add(split, block, masks)
                    estimate.add(len(block))
                    bar.update(len(block))

    def _add(self, split: str, block: Sequence[Entry], masks: MaskSource | None) -> None:
        progress = self._progress[split]
        kept: list[int] = []
        left_out: list[tuple[str, str]] = []
        images: list[np.ndarray] = []
        seen: list[np.ndarray] = []
        for at, entry in enumerate(block, progress.read):
            try:
                image, picture = self._read(entry)
            except PictureError as error:
                left_out.append((entry.name, str(error)))
                say(f"left out {entry.path}: {error}", self._log)
                continue
            kept.append(at)
            images.append(image.transpose(2, 0, 1))
            if masks is not None:
                seen.append(masks.look(entry, picture, self._size))
        columns = {"images": images}
        if masks is not None:
            columns["masks"] = list(masks.masks(seen, self._size)) if seen else []
        line = {"split": split, "read": progress.read + len(block), "kept": kept, "left_out": left_out}
        with _writing(self._output):
            for name, rows in columns.items():
                _append(self._files[f"{split}.{name}"], b"".join(row.tobytes() for row in rows))
            _append(self._files[_JOURNAL], json.dumps(line).encode() + b"\n")
        progress.read += len(block)
        progress.kept += kept
        progress.left_out += left_out

    def _read(self, entry: Entry) -> tuple[np.ndarray, Picture]:
        image, picture = read_photo(entry.path, self._size)
        if min(picture.image.size) < self._size:
            width, height = picture.image.size
            raise PictureError(
                f"photo has {width} x {height} pixels, expected at least {self._size} each way."
            )
        return image, picture

    def finish(self) -> None:
        """Give the arrays and `photos.json` their names.

        Raises:
          ValueError: a class has too few photos that can be read, or no mask of the training photos has an object.
          CgnrtError: the disk refuses.
        """
        kept = {
            split: [entries[at] for at in self._progress[split].kept]
            for split, entries in self._folder.splits.items()
        }
        for split, entries in kept.items():
            fewest = FEWEST if split == "train" else 0
            check_counts(self._folder.parts[split], entries, self._folder.classes, fewest)
        about: dict[str, Any] = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            **self._settings,
            "source": str(self._folder.path),
            "splits": {
                split: {
                    "names": [entry.name for entry in entries],
                    "left_out": self._progress[split].left_out,
                }
                for split, entries in kept.items()
            },
        }
        with _writing(self._output):
            (self._output / ABOUT).unlink(missing_ok=True)
            for split, entries in kept.items():
                for name, row in self._rows.items():
                    self._publish(split, name, (len(entries), *row))
                labels = np.array([entry.label for entry in entries], np.int64)
                target = self._output / f"{split}.labels.npy"
                with written_beside(target, force=True) as beside, beside.open("wb") as file:
                    np.save(file, labels, allow_pickle=False)
            with written_beside(self._output / ABOUT, force=True) as beside:
                beside.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
            made = {f"{split}.{name}.npy" for split in kept for name in (*self._rows, "labels")}
            for path in self._output.glob("*.npy"):  # of an older pack that had masks, or photos to test on
                if path.name in _ARRAYS - made:
                    path.unlink()
            for name in self._files:
                (self._work / name).unlink()
            self._work.rmdir()
        count = sum(len(progress.left_out) for progress in self._progress.values())
        if count:
            say(f"photos: {count:,} were left out, as {self._output / ABOUT} names them", self._log)

    def _publish(self, split: str, name: str, shape: tuple[int, ...]) -> None:
        """Make an array's file of its raw rows."""
        target = self._output / f"{split}.{name}.npy"
        with written_beside(target, force=True) as beside, beside.open("wb") as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": np.dtype(np.uint8).str, "fortran_order": False, "shape": shape}
            )
            with (self._work / f"{split}.{name}").open("rb") as rows:
                while block := rows.read(_COPIED_BYTES):
                    file.write(block)


@contextlib.contextmanager
def _writing(output: Path) -> Iterator[None]:
    """Errors of the disk as such of the pack."""
    try:
        yield
    except OSError as error:
        raise CgnrtError(
            f"write '{output}': {error.strerror or error}, expected a writable place with room. What is done stays: "
            "free some space and run the same command again."
        ) from error


def _journal(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The complete lines of a journal, and how many bytes these are; none if there is no journal."""
    try:
        content = read_file(path)
        content = content[: content.rfind(b"\n") + 1]  # a kill may cut the last line short
        return [json.loads(line) for line in content.splitlines()], len(content)
    except FileNotFoundError:
        return [], 0
    except ValueError as error:
        raise _damaged(path, f"is damaged ({error})") from error


def _open_at(path: Path, size_bytes: int) -> BinaryIO:
    """Open a file for appending, cut to the size that the journal vouches for.

    Raises:
      CgnrtError: it is shorter.
    """
    handle = open_own(path, os.O_RDWR | os.O_CREAT)
    file = os.fdopen(handle, "r+b")
    if os.fstat(handle).st_size < size_bytes:
        file.close()
        raise _damaged(path, "is cut short")
    file.truncate(size_bytes)
    file.seek(size_bytes)
    return file


def _damaged(path: Path, how: str) -> CgnrtError:
    return CgnrtError(f"photos '{path}': content {how}. Remove the folder '{path.parent}' and pack again.")


def _append(file: BinaryIO, content: bytes) -> None:
    file.write(content)
    file.flush()
    os.fsync(file.fileno())
