"""`journal.jsonl`: the shards that an unfinished run has finished, one line each.

The first line is the header, and comes with the file: that is written beside and renamed. Every other line is
appended and brought to the disk after its shard has its name. A line that a crash cut short, and what follows it, is
taken off again, and its shard is made anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cgnrt._support.files import written_beside
from cgnrt.errors import CgnrtError
from cgnrt.shards.manifest import (
    FORMAT,
    FORMAT_VERSION,
    Manifest,
    ShardRecord,
    parse_record,
    refuse,
    split_header,
)

JOURNAL = "journal.jsonl"


def begin(folder: Path, manifest: Manifest) -> None:
    """A journal that has what `manifest` has, in place of one that is there."""
    lines: list[Mapping[str, Any]] = [
        {"format": FORMAT, "format_version": FORMAT_VERSION, **manifest.header},
        *({"made_with": dict(found)} for found in manifest.made_with),
        *(asdict(record) for record in manifest.shards),
    ]
    with written_beside(folder / JOURNAL, force=True) as beside:
        beside.write_bytes(b"".join(map(_line, lines)))


def read(folder: Path, *, repair: bool = False) -> Manifest | None:
    """What the journal says; None where there is none.

    Args:
      repair: take off what a crash left of a line, to append behind it. The caller holds the folder's lock: a line
        that another run is writing looks like that.
    Raises:
      CgnrtError: the header is damaged or of a later version.
    """
    path = folder / JOURNAL
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise refuse(path, "file", f"unreadable ({error.strerror or error})", "a journal") from None
    head, newline, rest = raw.partition(b"\n")
    content = _parsed(head) if newline else None
    header, _ = split_header(path, content, ())
    made_with: list[Mapping[str, str]] = []
    records: dict[str, ShardRecord] = {}
    names = set(Manifest(header).names())
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
            if record.name not in names:
                break
            records[record.name] = record
        good += len(line)
    if repair and good < len(raw):
        os.truncate(path, good)
    ordered = sorted(records.values(), key=lambda record: record.first)
    return Manifest(header, tuple(made_with), tuple(ordered))


class Journal:
    """The journal, open to append to."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / JOURNAL
        self._file = self._path.open("ab", buffering=0)

    def add(self, entries: Iterable[ShardRecord | Mapping[str, str]]) -> None:
        """Shards that are finished, or what they are made with from here on; on the disk when this returns.

        Raises:
          CgnrtError: the disk is full or gone.
        """
        try:
            for entry in entries:
                shard = isinstance(entry, ShardRecord)
                self._append(_line(asdict(entry) if shard else {"made_with": dict(entry)}))  # type: ignore[arg-type]
            os.fsync(self._file.fileno())
        except OSError as error:
            raise CgnrtError(
                f"write '{self._path}': {error.strerror or error}, expected a writable place. "
                "Run the same command again to go on."
            ) from error

    def _append(self, line: bytes) -> None:
        while line:  # a full disk may take a part
            line = line[self._file.write(line) :]

    def close(self) -> None:
        self._file.close()


def _line(entry: Mapping[str, Any]) -> bytes:
    return json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _parsed(line: bytes) -> Any:
    """The JSON of a line; None where it is none."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
