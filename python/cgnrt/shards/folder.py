"""The folder of a data set: its lock, its state before a run, and what a run leaves."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from cgnrt._support.files import open_own
from cgnrt._support.reading import read_text
from cgnrt.errors import CgnrtError
from cgnrt.shards import journal
from cgnrt.shards.job import Job, differences
from cgnrt.shards.journal import JOURNAL
from cgnrt.shards.manifest import (
    MANIFESTS,
    DataSetManifest,
    ShardRecord,
    environment,
    find_manifest,
    is_manifest,
)

LOCK = ".cgnrt-lock"
_LOCK_BYTES = 512
_HOLDER = re.compile(rb"pid [0-9]+\b[^\n]*\n?")

# The names that `written_beside` gives temporary files, and those of spools: a killed run leaves them.
_TEMPORARY = re.compile(
    r"\.(shard-[0-9]{6,}\.[a-z0-9]+|" + "|".join(map(re.escape, (*MANIFESTS, JOURNAL))) + r")"
    r"\.[0-9]+\.[0-9a-f]{8}\.tmp(\.\w+)?"
)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock file, which names its holder. The kernel releases it when the process ends in any way.

    Raises:
      CgnrtError: another run holds the lock, or the file cannot be made.
    """
    path = folder / LOCK
    try:
        handle = _acquire(path)
    except BlockingIOError:
        with contextlib.suppress(OSError):
            who = read_text(path, _LOCK_BYTES).strip()
            raise CgnrtError(
                f"generate '{folder}': the folder is in use by another run ({who}), expected one run at a time. "
                "Wait for it, or stop it."
            ) from None
        raise CgnrtError(f"generate '{folder}': the folder is in use by another run. Try again.") from None
    except OSError as error:
        raise CgnrtError(
            f"generate '{folder}': {error.strerror or error}, expected a writable folder."
        ) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)
        os.close(handle)


def read_data_set(folder: Path, *, repair: bool = False) -> DataSetManifest | None:
    """The data set in a folder, finished or not; None without one."""
    # A journal beside a manifest is the later one: shards are being made again.
    begun = journal.read(folder, repair=repair)
    if begun is not None or find_manifest(folder) is None:
        return begun
    return DataSetManifest.read(folder)


def enter(
    folder: Path, job: Job, *, force: bool, note: Callable[[str], object]
) -> dict[str, ShardRecord] | None:
    """Prepare a locked folder for a run.

    Returns:
      The finished shards by name; None if the data set is finished.
    Raises:
      CgnrtError: the folder has another data set or other files in it, and `force` is off.
    """
    sweep(folder)
    existing = read_data_set(folder, repair=True)
    header = job.header()
    if existing is None:
        _refuse_foreign(folder, force)
    else:
        differ = differences(header, existing.header)
        if differ and not force:
            raise CgnrtError(
                f"generate '{folder}': {'; '.join(differ)}, as in the existing data set. "
                "Give the same options to resume it, another folder, or --force to start again."
            )
        if differ:
            _remove(folder, existing)
            existing = None
    if existing is None:
        journal.begin(folder, DataSetManifest(header, (environment(header),)))
        return {}
    return _resume(folder, job, existing, note)


def finish(folder: Path, job: Job, done: Mapping[str, ShardRecord]) -> DataSetManifest:
    """Write the manifest from the journal, and remove the journal."""
    begun = journal.read(folder)
    if begun is None:
        raise CgnrtError(f"generate '{folder}': {JOURNAL} is missing. Run the same command again.")
    shards = tuple(done[job.shard(k).name] for k in range(job.shard_count))
    manifest = DataSetManifest(begun.header, begun.made_with, shards)
    manifest.write(folder)
    (folder / JOURNAL).unlink()
    sweep(folder)
    return manifest


def sweep(folder: Path) -> None:
    """Remove the temporary files of killed runs."""
    for path in folder.iterdir():
        if _TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _resume(
    folder: Path, job: Job, existing: DataSetManifest, note: Callable[[str], object]
) -> dict[str, ShardRecord] | None:
    records = {record.name: record for record in existing.shards}
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
            note(f"{shard.name} is missing or changed: it is made again")
    finished = len(done) == job.shard_count
    if finished and not (folder / JOURNAL).exists():
        return None
    now = environment(existing.header)
    made_with = existing.made_with
    if not finished and now not in made_with:
        changed = [f"{k} is {now[k]}" for k in sorted(now) if all(now[k] != e.get(k) for e in made_with)]
        if made_with:
            note(f"{', '.join(changed)}, not as before: the last bits of the next shards may differ")
        made_with = (*made_with, now)
    if not (folder / JOURNAL).exists() or made_with != existing.made_with or len(done) < len(records):
        kept = tuple(done[name] for name in sorted(done, key=lambda name: done[name].first))
        journal.begin(folder, DataSetManifest(existing.header, made_with, kept))
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
            "or a data set to resume. Pass --force to write beside them, over files of the same names."
        )


def _remove(folder: Path, existing: DataSetManifest) -> None:
    """Remove the files of a data set, its shards first: the manifest names those that are left after a crash."""
    for name in [path.name for path in folder.iterdir() if existing.has(path.name)]:
        (folder / name).unlink(missing_ok=True)
    for name in (*(name for name in MANIFESTS if is_manifest(folder / name)), JOURNAL):
        with contextlib.suppress(FileNotFoundError):
            (folder / name).unlink()


def _acquire(path: Path) -> int:
    while True:
        handle = open_own(path, os.O_RDWR | os.O_CREAT)
        try:
            _check_lock(path, handle)
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is(path, handle):  # its last holder may have unlinked it meanwhile
                os.ftruncate(handle, 0)
                os.write(handle, f"pid {os.getpid()} on {socket.gethostname()}\n".encode())
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _check_lock(path: Path, handle: int) -> None:
    """Refuse a file that is not a lock: what it holds would be overwritten.

    Raises:
      OSError: it has other names, or content of its own.
    """
    content = os.pread(handle, _LOCK_BYTES + 1, 0)
    if os.fstat(handle).st_nlink > 1 or (content and not _HOLDER.fullmatch(content)):
        raise OSError(
            errno.EEXIST, f"{path.name} is not a lock of cgnrt, which it would overwrite: remove it"
        )


def _is(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False
