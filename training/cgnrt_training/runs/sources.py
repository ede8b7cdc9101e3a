"""What files a run began with: named in its folder and its checkpoints, and checked when it is resumed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from cgnrt._support.reading import open_file, read_text
from cgnrt.errors import CheckpointError

from .folder import write_text

SOURCES = "sources.json"

Sources = Mapping[str, Mapping[str, str]]  # option -> name, sha256 and path


def source_of(path: Path, members: Sequence[str] = ()) -> dict[str, str]:
    """Name, sha256 and path of a file, or of the files in a folder that are its content.

    Raises:
      CheckpointError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        for part in [path / member for member in members] if path.is_dir() else [path]:
            with open_file(part) as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    except OSError as error:
        raise CheckpointError(
            f"load '{path}': {error.strerror or error}, expected a readable file."
        ) from error
    return {"name": path.name, "sha256": digest.hexdigest(), "path": str(path.resolve())}


def without_paths(sources: Sources) -> dict[str, dict[str, str]]:
    """For a checkpoint: paths mean nothing elsewhere."""
    return {option: {key: source[key] for key in ("name", "sha256")} for option, source in sources.items()}


def keep_sources(folder: Path, sources: Sources, *, resume: bool) -> None:
    """Write into a run's folder what files it is from, or check on resume that they are the same.

    Raises:
      ValueError: a file is another one.
      CheckpointError: on resume, what the folder says cannot be read.
    """
    if not resume:
        write_text(folder / SOURCES, json.dumps(sources, indent=2) + "\n")
        return
    stored = _stored(folder)
    changed = [
        f"--{option} '{source['name']}'"
        for option, source in sources.items()
        if stored.get(option, {}).get("sha256") != source["sha256"]
    ]
    if changed:
        raise ValueError(
            f"resume '{folder}': {', '.join(changed)} is another file, expected the one that the run began with. "
            "Give that one, or start anew in another folder."
        )


def stored_files(folder: Path) -> dict[str, Path]:
    """The files that a run began with, by option.

    Raises:
      CheckpointError: what the folder says of them cannot be read.
    """
    return {option: Path(source["path"]) for option, source in _stored(folder).items() if "path" in source}


def _stored(folder: Path) -> dict[str, dict[str, str]]:
    try:
        found = json.loads(read_text(folder / SOURCES))
        return {
            option: {key: str(value) for key, value in source.items()} for option, source in found.items()
        }
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"resume '{folder}': {SOURCES} is unreadable ({error}), expected the run's files. Start anew with --force."
        ) from error
