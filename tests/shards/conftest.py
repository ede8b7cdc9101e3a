from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cgnrt import Generator, shards

# Small enough to make in an instant: five shards, the last of them short.
N, SHARD_SIZE = 70, 16
Make = Callable[..., shards.Manifest]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="session")
def make(demo_plan: Path) -> Make:
    """`generate` with small shards, in this process."""

    def run(folder: Path, **options: Any) -> shards.Manifest:
        given = {"n": N, "shard_size": SHARD_SIZE, "processes": 1, "seed": 5, **options}
        return shards.generate(given.pop("plan", demo_plan), folder=folder, **given)

    return run


@pytest.fixture(scope="session")
def whole(make: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished data set, made without a stop. Not to be changed."""
    folder = tmp_path_factory.mktemp("whole") / "out"
    make(folder)
    return folder


@pytest.fixture(scope="session")
def pixels(demo_plan: Path) -> Generator:
    """The pictures that a data set holds, by hand."""
    return Generator(demo_plan, dtype="uint8", layout="NHWC", threads=1)
