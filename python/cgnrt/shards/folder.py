"""The folder of a data set: what is in it before a run, and what a run leaves."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from cgnrt.errors import CgnrtError
from cgnrt.shards import journal
from cgnrt.shards.job import Job, differences
from cgnrt.shards.journal import JOURNAL
from cgnrt.shards.lock import LOCK
from cgnrt.shards.manifest import MANIFEST, Manifest, ShardRecord, environment

# What `written_beside` calls files of ours, and the spools beside them: left by a run that was killed.
_TEMPORARY = re.compile(
    r"\.(shard-[0-9]{6,}\.[a-z]+|" + re.escape(MANIFEST) + "|" + re.escape(JOURNAL) + r")"
    r"\.[0-9]+\.[0-9a-f]{8}\.tmp(\.\w+)?"
)


def found(folder: Path, *, repair: bool = False) -> Manifest | None:
    """The data set in a folder, finished or not; None where there is none."""
    begun = journal.read(
        folder, repair=repair
    )  # beside a manifest it is the later one: shards are being made again
    if begun is not None or not (folder / MANIFEST).exists():
        return begun
    return Manifest.read(folder)


def enter(
    folder: Path, job: Job, *, force: bool, note: Callable[[str], object]
) -> dict[str, ShardRecord] | None:
    """Make a locked folder ready for a run.

    Returns:
      The finished shards by name; None where nothing is left to do.
    Raises:
      CgnrtError: the folder has another data set or other files in it, and `force` is off.
    """
    sweep(folder)
    there = found(folder, repair=True)
    header = job.header()
    if there is None:
        _refuse_foreign(folder, force)
    else:
        differ = differences(header, there.header)
        if differ and not force:
            raise CgnrtError(
                f"generate '{folder}': {'; '.join(differ)}, as the data set there has. "
                "Give the same options to go on with it, another folder, or --force to begin anew."
            )
        if differ:
            _remove(folder, there)
            there = None
    if there is None:
        journal.begin(folder, Manifest(header, (environment(header),)))
        return {}
    return _resume(folder, job, there, note)


def finish(folder: Path, job: Job, done: Mapping[str, ShardRecord]) -> Manifest:
    """Write the manifest, take the journal away. What the runs were made with is in the journal."""
    begun = journal.read(folder)
    if begun is None:
        raise CgnrtError(f"generate '{folder}': {JOURNAL} is gone, expected it to be left alone.")
    shards = tuple(done[job.shard(k).name] for k in range(job.shard_count))
    manifest = Manifest(begun.header, begun.made_with, shards)
    manifest.write(folder)
    (folder / JOURNAL).unlink()
    sweep(folder)
    return manifest


def sweep(folder: Path) -> None:
    """Remove the temporary files of runs that were killed."""
    for path in folder.iterdir():
        if _TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _resume(
    folder: Path, job: Job, there: Manifest, note: Callable[[str], object]
) -> dict[str, ShardRecord] | None:
    records = {record.name: record for record in there.shards}
    done: dict[str, ShardRecord] = {}
    for k in range(job.shard_count):
        shard = job.shard(k)
        record = records.get(shard.name)
        if record is None:
            continue
        if (record.first, record.count) == (shard.first, shard.count) and _size(
            folder / shard.name
        ) == record.size_bytes:
            done[shard.name] = record
        else:
            note(f"{shard.name} is not as it was written: it is made again")
    finished = len(done) == job.shard_count
    if finished and not (folder / JOURNAL).exists():
        return None
    now = environment(there.header)
    made_with = there.made_with
    if not finished and now not in made_with:
        changed = [f"{k} is {now[k]}" for k in sorted(now) if all(now[k] != e.get(k) for e in made_with)]
        if made_with:
            note(f"{', '.join(changed)}, and was another: the last bits of the shards to come may differ")
        made_with = (*made_with, now)
    if not (folder / JOURNAL).exists() or made_with != there.made_with or len(done) < len(records):
        kept = tuple(done[name] for name in sorted(done, key=lambda name: done[name].first))
        journal.begin(folder, Manifest(there.header, made_with, kept))
    return done


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _refuse_foreign(folder: Path, force: bool) -> None:
    others = sorted(path.name for path in folder.iterdir() if path.name != LOCK)
    if others and not force:
        raise CgnrtError(
            f"generate '{folder}': the folder has other files in it ({others[0]}), expected an empty or a new one, "
            "or a data set to go on with. Pass --force to write beside them, over those of the same names."
        )


def _remove(folder: Path, there: Manifest) -> None:
    """Take away the files of a data set, its shards first: until they are gone it is known for what it is."""
    for name in there.names():
        (folder / name).unlink(missing_ok=True)
    for name in (MANIFEST, JOURNAL):
        with contextlib.suppress(FileNotFoundError):
            (folder / name).unlink()
