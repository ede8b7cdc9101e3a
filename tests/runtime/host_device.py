"""Stands in for the device module: device memory is NumPy's, streams do all at once and note what they are told."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

_numbers = itertools.count(1)


class Stream:
    def __init__(self, device: int = 0) -> None:
        self.device = device
        self.ptr = next(_numbers)
        self.log: list[str] = []

    def wait_for(self, other: Stream) -> None:
        self.log.append(f"wait for {other.ptr}")

    def synchronize(self) -> None:
        self.log.append("synchronize")


class DeviceArray:
    def __init__(self, array: np.ndarray) -> None:
        self.array = np.ascontiguousarray(array)
        self.shape = self.array.shape
        self.data_ptr = self.array.ctypes.data

    @classmethod
    def empty(cls, shape: tuple[int, ...], dtype: str, stream: Stream) -> DeviceArray:
        return cls(np.full(shape, np.nan, dtype))

    def upload(self, array: np.ndarray) -> None:
        self.array[...] = array

    def numpy(self) -> np.ndarray:
        return self.array.copy()


def copy_unordered(source: DeviceArray, target: DeviceArray, stream: Stream) -> None:
    target.array[...] = source.array
    stream.log.append("copy")


_current = [0]


def set_device(index: int) -> int:
    before, _current[0] = _current[0], index
    return before


def info() -> dict[str, Any]:
    return {"emulated": True}


def device(index: int) -> dict[str, Any]:
    return {"free_bytes": 1_000_000}
