"""Private plans with large banks: the pictures stay in the file, and everything else is copied."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cgnrt import Generator, shards
from cgnrt.errors import PlanError
from cgnrt.plan import BankContents, Plan, archive, contents, write_bank


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A plan that counts as large, where there is no room for a copy."""
    monkeypatch.setattr(contents, "_COPIED_BYTES", 100)
    monkeypatch.setattr(archive, "_IN_MEMORY_BYTES", 0)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nothing"))
    return write(tmp_path / "bank.plan", 0)


def write(path: Path, seed: int) -> Path:
    def pictures(channels: int) -> BankContents:
        drawn = np.random.default_rng(seed + channels).integers(0, 256, (9, channels, 8, 8), np.uint8)
        return BankContents(drawn, np.arange(9) % 3, ["cat", "dog", "hen"])

    write_bank(path, shape=pictures(1), texture=pictures(3), background=pictures(3), force=True)
    return path


def changed(path: Path, member: str) -> None:
    """One byte of a member, written into the file."""
    with Plan.open(path) as plan:
        at = path.read_bytes().index(bytes(plan.member(member)))
    with path.open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def test_pictures_are_not_copied_and_a_file_may_be_replaced(path: Path) -> None:
    with Plan.open(path, private=True) as plan, Generator(plan, device="cpu") as gen:
        first = gen.sample(20, seed=0).images
        write(path, 1)  # by renaming
        assert np.array_equal(gen.sample(20, seed=0).images, first)
        path.unlink()
        assert np.array_equal(gen.sample(20, seed=0).images, first)
        plan.verify_banks()
        with pytest.raises(TypeError):
            plan.member("banks/shape.labels")[0] = 0


def test_what_is_copied_may_be_written_to(path: Path) -> None:
    with Plan.open(path, private=True) as plan, Generator(plan, device="cpu") as gen:
        first = gen.sample(20, seed=0).images
        changed(path, "banks/shape.labels")
        assert np.array_equal(gen.sample(20, seed=0).images, first)


def test_pictures_that_are_overwritten_are_an_error(path: Path) -> None:
    with Plan.open(path, private=True) as plan, Generator(plan, device="cpu") as gen:
        gen.sample(20, seed=0)
        changed(path, "banks/texture.pictures")
        message = r"read '.*bank\.plan': mechanism 'texture': SHA-256 of chunk 0 .*replace plans by renaming"
        with pytest.raises(PlanError, match=message):
            gen.sample(20, seed=0)


def test_small_banks_are_copied(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "_COPIED_BYTES", 1 << 20)
    with pytest.raises(PlanError, match="private copy is not written to"):
        Plan.open(path, private=True)


def test_a_damaged_plan_is_refused_as_ever(path: Path) -> None:
    changed(path, "banks/shape.labels")
    with pytest.raises(PlanError, match=r"load '.*bank\.plan': SHA-256 of member 'banks/shape\.labels'"):
        Plan.open(path, private=True)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(PlanError, match=r"load '.*bank\.plan': "):
        Plan.open(path, private=True)


def test_a_data_set_is_made_from_it(path: Path, tmp_path: Path) -> None:
    shards.generate(path, 20, tmp_path / "out", seed=3, format="npz", processes=1)
    (shard,) = (tmp_path / "out").glob("*.npz")
    with np.load(shard) as stored, Generator(path, device="cpu", dtype="uint8", layout="NHWC") as gen:
        assert np.array_equal(stored["images"], gen.sample(20, seed=3).images)
