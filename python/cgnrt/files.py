"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from cgnrt.errors import CgnrtError


@contextlib.contextmanager
def written_beside(target: Path, *, force: bool) -> Iterator[Path]:
    """A path beside `target`, whose folder is made, to write to.

    It is renamed onto the target when the block ends well, and removed when it does not.

    Raises:
      CgnrtError: the target exists and `force` is off, or writing failed (a full disk, no such folder).
    """
    if target.exists() and not force:
        raise CgnrtError(
            f"write '{target}': the file exists, expected a new one. Pass --force to replace it."
        )
    beside = target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        os.replace(beside, target)
    except OSError as error:
        raise CgnrtError(
            f"write '{target}': {error.strerror or error}, expected a writable place. Nothing was left behind."
        ) from error
    finally:
        beside.unlink(missing_ok=True)


def write_npz(
    path: Path,
    columns: Mapping[str, tuple[tuple[int, ...], str]],
    batches: Iterable[Mapping[str, np.ndarray]],
) -> None:
    """Write an uncompressed .npz without holding it in memory.

    Args:
      path: where to write.
      columns: array name -> (shape of the whole, dtype).
      batches: arrays of some rows each, in order, that add up to the whole. They are written to one temporary
        file per column beside `path` first, since a ZIP member is written in one go.
    """
    spools = {name: path.with_name(f"{path.name}.{name}") for name in columns}
    try:
        with contextlib.ExitStack() as stack:
            handles = {name: stack.enter_context(spool.open("wb")) for name, spool in spools.items()}
            for batch in batches:
                for name, handle in handles.items():
                    handle.write(np.ascontiguousarray(batch[name], columns[name][1]).data)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for name, (shape, dtype) in columns.items():
                with (
                    archive.open(f"{name}.npy", "w", force_zip64=True) as member,
                    spools[name].open("rb") as spool,
                ):
                    header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_1_0(member, header)
                    while block := spool.read(1 << 20):
                        member.write(block)
    finally:
        for path_beside in spools.values():
            path_beside.unlink(missing_ok=True)
