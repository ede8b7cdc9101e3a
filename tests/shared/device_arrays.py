"""Arrays on a device, and somebody else's."""

from __future__ import annotations

from typing import Any

import numpy as np

from cgnrt import cuda


def array_of(values: np.ndarray[Any, Any], stream: cuda.Stream) -> cuda.DeviceArray:
    array = cuda.DeviceArray.empty(values.shape, str(values.dtype), stream)
    array.upload(values)
    return array


class ByDlpack:
    """Somebody else's tensor that has DLPack alone; keeps the streams that it is asked for."""

    def __init__(self, array: cuda.DeviceArray) -> None:
        self.array = array
        self.streams: list[int | None] = []

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()

    def __dlpack__(self, *, stream: int | None = None, **options: Any) -> Any:
        self.streams.append(stream)
        return self.array.__dlpack__(stream=stream, **options)


class BesideBuffer(ByDlpack, np.ndarray):
    """Somebody else's tensor whose type has the buffer protocol too, which fails for what is on a device: as JAX's."""

    def __new__(cls, array: cuda.DeviceArray) -> BesideBuffer:
        return np.zeros(1, "M8[s]").view(cls)  # no buffer has that dtype


class ByInterface:
    """Somebody else's tensor that has the CUDA array interface alone."""

    def __init__(self, array: cuda.DeviceArray, **other: Any) -> None:
        self.array = array
        self.__cuda_array_interface__ = {**array.__cuda_array_interface__, **other}


def shifted_array_of(values: np.ndarray[Any, Any], items: int, stream: cuda.Stream) -> cuda.DeviceArray:
    """`values` so many items past an address that is aligned to whatever the device likes."""
    memory = cuda.DeviceArray.empty((values.nbytes + items * values.itemsize,), "uint8", stream)
    array = memory.view(items * values.itemsize, values.shape, str(values.dtype))
    array.upload(values)
    return array


def assert_equal_but_for_payloads(
    got: np.ndarray[Any, Any], expected: np.ndarray[Any, Any], dtype: str
) -> None:
    """The same bits, and NaNs where NaNs are: a device's have payloads of their own."""
    quiet = {"float32": 0x7F800000, "float16": 0x7C00, "bfloat16": 0x7F80}.get(dtype)
    bits, wanted = (x.view(f"u{x.itemsize}") for x in (got, expected))
    if quiet is not None:
        sign = 1 << (8 * got.itemsize - 1)
        is_nan = (wanted & ~np.array(sign, wanted.dtype)) > quiet
        np.testing.assert_array_equal((bits & ~np.array(sign, bits.dtype)) > quiet, is_nan)
        bits, wanted = bits[~is_nan], wanted[~is_nan]
    np.testing.assert_array_equal(bits, wanted)
