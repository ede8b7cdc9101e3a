"""Data sets that an earlier version wrote: they verify, are left alone when they are finished, and can be resumed."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cgnrt import shards
from cgnrt.shards.formats import FORMATS, Storage

from .conftest import contents

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def resume() -> Callable[[Path, str], shards.Manifest]:
    """`generate` with the options of the golden data sets."""
    spec = importlib.util.spec_from_file_location("make_golden_shards", GOLDEN / "make_golden.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Callable[[Path, str], shards.Manifest] = module.make
    return found


@pytest.fixture(params=list(FORMATS))
def format(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(tmp_path: Path, format: str) -> Path:
    return Path(shutil.copytree(GOLDEN / format, tmp_path / format))


def rows(format: str, path: Path) -> list[dict[str, Any]]:
    """What a shard says of its samples."""
    image = {"webdataset": "png"}.get(format, "raw")
    storage = Storage(format, image, None, masks=format != "parquet", shard_size=3)
    found = FORMATS[format].read(path, storage)
    return [{key: row[key] for key in row if key not in ("picture", "mask")} for row in found]


def test_they_verify(folder: Path, format: str) -> None:
    unfinished = ["the run is not finished (1 of 2 shards are); the same command resumes it"]
    assert shards.verify(folder, deep=True) == (unfinished if format == "npz" else [])


def test_they_are_resumed(folder: Path, format: str, resume: Callable[[Path, str], shards.Manifest]) -> None:
    before = contents(folder)
    manifest = resume(folder, format)
    after = contents(folder)
    kept = {name for name in before if name != "journal.jsonl"}
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert set(after) == {"manifest.json", *(record.name for record in manifest.shards)}
    assert shards.verify(folder, deep=True) == []


def test_a_lost_shard_is_made_again(
    folder: Path, format: str, resume: Callable[[Path, str], shards.Manifest]
) -> None:
    """Pixels may differ in the last bits on this machine; index, seed and labels may not."""
    lost = next(folder.glob("shard-000000.*"))
    before = rows(format, lost)
    lost.unlink()
    resume(folder, format)
    assert rows(format, lost) == before
    assert shards.verify(folder, deep=True) == []
