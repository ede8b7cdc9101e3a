"""`journal.jsonl`: the finished shards of an unfinished run, one line each.

The first line is the header and is written together with the file, which appears by a rename. Each other line is
appended and synced after its shard has its name. When a crash cuts a line short, the line and what follows it are
removed, and the shard is made again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cgnrt._support.files import open_own, written_beside
from cgnrt.errors import CgnrtError
from cgnrt.shards.manifest import (
    FORMAT,
    FORMAT_VERSION,
    DataSetManifest,
    ShardRecord,
    parse_record,
    refuse,
    split_header,
)

JOURNAL = "journal.jsonl"


def begin(folder: Path, manifest: DataSetManifest) -> None:
    """Write a journal with the content of `manifest`, over an existing one."""
    lines: list[Mapping[str, Any]] = [
        {"format": FORMAT, "format_version": FORMAT_VERSION, **manifest.header},
        *({"made_with": dict(found)} for found in manifest.made_with),
        *(asdict(record) for record in manifest.shards),
    ]
    with written_beside(folder / JOURNAL, force=True) as beside:
        beside.write_bytes(b"".join(map(_line, lines)))


def read(folder: Path, *, repair: bool = False) -> DataSetManifest | None:
    """The content of the journal; None without a journal.

    Args:
      repair: remove a line that a crash cut short, so that lines can be appended. The caller must hold the folder's
        lock: a line that another run is writing looks the same.
    Raises:
      CgnrtError: the header is damaged or has a later version.
    """
    path = folder / JOURNAL
    try:
        raw = _read(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise refuse(path, "file", f"unreadable ({error.strerror or error})", "a journal") from None
    head, newline, rest = raw.partition(b"\n")
    content = _parsed(head) if newline else None
    header, _ = split_header(path, content, ())
    made_with: list[Mapping[str, str]] = []
    records: dict[str, ShardRecord] = {}
    whole = DataSetManifest(header)
    good = len(head) + 1
    for line in rest.splitlines(keepends=True):
        entry = _parsed(line) if line.endswith(b"\n") else None
        if not isinstance(entry, dict):
            break
        if isinstance(entry.get("made_with"), dict):
            made_with.append(entry["made_with"])
        else:
            try:
                record = parse_record(path, "line", entry)
            except CgnrtError:
                break
            if not whole.has(record.name):
                break
            records[record.name] = record
        good += len(line)
    if repair and good < len(raw):
        handle = open_own(path, os.O_WRONLY)
        try:
            os.ftruncate(handle, good)
        finally:
            os.close(handle)
    ordered = sorted(records.values(), key=lambda record: record.first)
    return DataSetManifest(header, tuple(made_with), tuple(ordered))


def _read(path: Path) -> bytes:
    with os.fdopen(open_own(path, os.O_RDONLY), "rb") as file:
        return file.read()


class Journal:
    """The journal, open for appending."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / JOURNAL
        self._file = os.fdopen(open_own(self._path, os.O_WRONLY | os.O_APPEND), "ab", buffering=0)

    def add(self, record: ShardRecord) -> None:
        """Append a finished shard; it is on the disk when this returns.

        Raises:
          CgnrtError: the disk is full or gone.
        """
        try:
            self._append(_line(asdict(record)))
            os.fsync(self._file.fileno())
        except OSError as error:
            raise CgnrtError(
                f"write '{self._path}': {error.strerror or error}, expected a writable place. "
                "Run the same command again to resume."
            ) from error

    def _append(self, line: bytes) -> None:
        while line:  # a nearly full disk takes a part of it
            line = line[self._file.write(line) :]

    def close(self) -> None:
        self._file.close()


def _line(entry: Mapping[str, Any]) -> bytes:
    return json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _parsed(line: bytes) -> Any:
    """The JSON of a line; None if it is not JSON."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
