from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from cgnrt_training.mnist.idx import read_idx


@pytest.fixture
def array() -> np.ndarray:
    return np.arange(24, dtype=np.uint8).reshape(4, 3, 2)


@pytest.mark.parametrize("name", ["plain", "packed.gz"])
def test_round_trip(tmp_path: Path, write_idx, array: np.ndarray, name: str) -> None:
    np.testing.assert_array_equal(read_idx(write_idx(tmp_path / name, array), axes=3), array)


def test_compression_is_recognised_by_content(tmp_path: Path, write_idx, array: np.ndarray) -> None:
    packed = write_idx(tmp_path / "a.gz", array)
    np.testing.assert_array_equal(read_idx(packed.rename(tmp_path / "a"), axes=3), array)


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"file is unreadable \(No such file"):
        read_idx(tmp_path / "none", axes=1)


def test_wrong_magic(tmp_path: Path, write_idx, array: np.ndarray) -> None:
    with pytest.raises(ValueError, match="magic number is 0x00000803, expected 0x00000801"):
        read_idx(write_idx(tmp_path / "a", array), axes=1)


def test_empty(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(ValueError, match="magic number"):
        read_idx(tmp_path / "a", axes=1)


@pytest.mark.parametrize(("cut", "state"), [(-1, "truncated"), (None, "longer than it says")])
def test_wrong_size(tmp_path: Path, write_idx, array: np.ndarray, cut: int | None, state: str) -> None:
    path = write_idx(tmp_path / "a", array)
    path.write_bytes(path.read_bytes()[:cut] + (b"" if cut else b"x"))
    with pytest.raises(ValueError, match=rf"file is {state}, .* bytes, expected 40 for \(4, 3, 2\)"):
        read_idx(path, axes=3)


def test_header_cannot_ask_for_memory(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\0\0\x08\x03" + b"\xff" * 12)
    with pytest.raises(ValueError, match="truncated"):
        read_idx(tmp_path / "a", axes=3)


def test_truncated_gzip(tmp_path: Path, write_idx) -> None:
    path = write_idx(tmp_path / "a.gz", np.random.default_rng(0).integers(0, 256, 999).astype(np.uint8))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="gzip stream is truncated"):
        read_idx(path, axes=1)


def test_damaged_gzip(tmp_path: Path, write_idx) -> None:
    path = write_idx(tmp_path / "a.gz", np.random.default_rng(0).integers(0, 256, 999).astype(np.uint8))
    content = bytearray(path.read_bytes())
    content[-8] ^= 1  # the checksum
    path.write_bytes(content)
    with pytest.raises(ValueError, match="unreadable"):
        read_idx(path, axes=1)


def test_gzip_that_grows_without_end_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cgnrt_training.mnist.idx.LARGEST_BYTES", 1000)
    (tmp_path / "a.gz").write_bytes(gzip.compress(bytes(5000)))
    with pytest.raises(ValueError, match="size is over 1000 bytes"):
        read_idx(tmp_path / "a.gz", axes=1)
