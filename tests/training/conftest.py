"""Tiny MNIST files and textures, made by the tests."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

N_TRAIN = 40  # takes the place of 50,000

WriteIdx = Callable[[Path, NDArray[np.uint8]], Path]


@pytest.fixture(scope="session")
def write_idx() -> WriteIdx:
    """Write an array as IDX, gzip-compressed if the name ends so."""

    def write(path: Path, array: NDArray[np.uint8]) -> Path:
        content = (
            bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
        )
        path.write_bytes(gzip.compress(content, 1) if path.suffix == ".gz" else content)
        return path

    return write


@pytest.fixture
def mnist(tmp_path: Path, write_idx: WriteIdx, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with 60 digits, 40 of which are the train domain: bars whose place is the label."""
    monkeypatch.setattr("cgnrt_training.mnist.data.N_TRAIN", N_TRAIN)
    folder = tmp_path / "mnist"
    folder.mkdir()
    labels = (np.arange(60) * 7 % 10).astype(np.uint8)
    images = np.zeros((60, 28, 28), np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[4:24, 2 * label + 3 : 2 * label + 7] = 200
    write_idx(folder / "train-images-idx3-ubyte.gz", images)
    write_idx(folder / "train-labels-idx1-ubyte", labels)
    return folder


@pytest.fixture
def textures(tmp_path: Path) -> Path:
    """Ten object and ten background pictures with noise around a grey of their own."""
    folder = tmp_path / "textures"
    random = np.random.default_rng(0)
    for kind, start in (("object", 10), ("background", 15)):
        (folder / kind).mkdir(parents=True)
        for digit in range(10):
            pixels = random.integers(0, 4, (40 + digit, 60, 3)) + start + 20 * digit
            Image.fromarray(pixels.astype(np.uint8)).save(folder / kind / f"{digit}_{kind}_{digit:02d}.png")
    return folder
