"""Tensors of the Open Inference Protocol as JSON and as bytes."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from cgnrt.serve.protocol import ServeError, Tensor, short

_DTYPES = {
    "BOOL": np.bool_,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}
ITEM_BYTES = {name: np.dtype(dtype).itemsize for name, dtype in _DTYPES.items()}
_NAMES = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}
_MOST_DIMENSIONS = 8
_JSON_PART = 4096
_MOST_JSON_VALUES = 1 << 20  # of one output; as bytes there may be more


def of_array(name: str, array: np.ndarray) -> Tensor:
    """Make an output of an array."""
    return Tensor(name, _NAMES[array.dtype], array.shape, np.ascontiguousarray(array))


def check_header(name: Any, datatype: Any, shape: Any, most_values: int) -> int:
    """Check what a client says of a tensor; the arguments may be anything.

    Returns:
      The number of its values.
    Raises:
      ServeError: the name, datatype or shape is refused, or the values are more than `most_values`.
    """
    if not isinstance(name, str) or not name:
        raise ServeError("invalid", f"read tensor: name is {name!r}, expected a string.")
    if datatype != "BYTES" and (not isinstance(datatype, str) or datatype not in _DTYPES):
        expected = ", ".join((*_DTYPES, "BYTES"))
        raise ServeError("invalid", f"read '{name}': datatype is {datatype!r}, expected one of {expected}.")
    if (
        not isinstance(shape, Sequence)
        or isinstance(shape, str)
        or len(shape) > _MOST_DIMENSIONS
        or any(isinstance(extent, bool) or not isinstance(extent, int) or extent < 0 for extent in shape)
    ):
        raise ServeError("invalid", f"read '{name}': shape is {short(shape)}, expected sizes of 0 or more.")
    # Other sizes count even if one is 0: NumPy refuses an array that would be too big without the 0.
    count = math.prod(max(extent, 1) for extent in shape)
    if count > most_values:
        raise ServeError("too_large", f"read '{name}': values are {count}, expected at most {most_values}.")
    return math.prod(shape)


def from_raw(name: Any, datatype: Any, shape: Any, raw: bytes | memoryview, *, most_values: int) -> Tensor:
    """Read a tensor from little-endian bytes. Each value of BYTES follows its length, four bytes.

    Raises:
      ServeError: the bytes do not fit the header.
    """
    count = check_header(name, datatype, shape, most_values)
    if datatype == "BYTES":
        values = np.empty(count, object)
        values[:] = list(_split(name, raw, count))
        return Tensor(name, datatype, tuple(shape), values.reshape(tuple(shape)))
    dtype = np.dtype(_DTYPES[datatype])
    if len(raw) != count * dtype.itemsize:
        raise ServeError(
            "invalid",
            f"read '{name}': bytes are {len(raw)}, expected {count * dtype.itemsize} for {datatype} {list(shape)}.",
        )
    # For BOOL any byte except zero is true.
    array = np.frombuffer(raw, np.uint8) != 0 if datatype == "BOOL" else np.frombuffer(raw, dtype)
    return Tensor(name, datatype, tuple(shape), array.reshape(tuple(shape)))


def from_json(name: Any, datatype: Any, shape: Any, data: Any, *, most_values: int) -> Tensor:
    """Read a tensor from JSON values, nested or flat.

    Raises:
      ServeError: the type, number or range of the values does not fit the header.
    """
    count = check_header(name, datatype, shape, most_values)
    values = list(_flat(data, _MOST_DIMENSIONS + 1, most_values, name))
    if len(values) != count:
        raise ServeError(
            "invalid", f"read '{name}': values are {len(values)}, expected {count} for shape {list(shape)}."
        )
    if datatype == "BYTES":
        array: np.ndarray = np.empty(count, object)
        for i, value in enumerate(values):
            if not isinstance(value, str):
                raise ServeError("invalid", f"read '{name}': value {i} is {short(value)}, expected a string.")
            array[i] = value.encode("utf-8", "surrogatepass")
        return Tensor(name, datatype, tuple(shape), array.reshape(tuple(shape)))
    dtype = np.dtype(_DTYPES[datatype])
    allowed: tuple[type, ...] = {"b": (bool,), "f": (int, float)}.get(dtype.kind, (int,))
    for i, value in enumerate(values):
        if not isinstance(value, allowed) or (isinstance(value, bool) and dtype.kind != "b"):
            raise ServeError("invalid", f"read '{name}': value {i} is {short(value)}, expected {datatype}.")
    try:
        with np.errstate(over="ignore"):
            array = np.array(values, dtype).reshape(tuple(shape))
    except OverflowError as error:
        raise ServeError("invalid", f"read '{name}': a value is out of the range of {datatype}.") from error
    return Tensor(name, datatype, tuple(shape), array)


def to_raw(tensor: Tensor) -> bytes | memoryview:
    """A tensor's little-endian bytes, without a copy."""
    if tensor.datatype == "BYTES":
        return b"".join(struct.pack("<I", len(value)) + value for value in tensor.data.ravel())
    if tensor.data.nbytes == 0:  # which memoryview cannot cast
        return b""
    return tensor.data.data.cast("B")


def to_json(tensor: Tensor) -> str:
    """The values of a tensor as JSON, flat and without brackets.

    Raises:
      ServeError: JSON does not support the datatype, or the values are too many.
    """
    if tensor.datatype in ("FP16", "BYTES"):
        raise ServeError(
            "invalid", f"write '{tensor.name}': JSON does not support {tensor.datatype}. Ask for binary data."
        )
    if tensor.data.size > _MOST_JSON_VALUES:
        raise ServeError(
            "too_large",
            f"write '{tensor.name}': JSON values are {tensor.data.size}, expected at most {_MOST_JSON_VALUES}. "
            "Ask for binary data.",
        )
    values = tensor.data.ravel()
    # Other threads wait while a part is written.
    parts = (values[at : at + _JSON_PART].tolist() for at in range(0, values.size, _JSON_PART))
    return ", ".join(json.dumps(part)[1:-1] for part in parts)


def _split(name: str, raw: bytes | memoryview, count: int) -> Iterator[bytes]:
    at = 0
    for i in range(count):
        if at + 4 > len(raw):
            raise ServeError(
                "invalid", f"read '{name}': bytes end before value {i}, expected {count} values."
            )
        (length,) = struct.unpack_from("<I", raw, at)
        at += 4
        if at + length > len(raw):
            raise ServeError(
                "invalid",
                f"read '{name}': length of value {i} is {length}, expected at most the {len(raw) - at} left.",
            )
        yield bytes(raw[at : at + length])
        at += length
    if at != len(raw):
        raise ServeError("invalid", f"read '{name}': {len(raw) - at} bytes follow, expected {count} values.")


def _flat(data: Any, depth: int, most: int, name: str) -> Iterator[Any]:
    """The values of nested lists, nested at most `depth` deep."""
    if not isinstance(data, list):
        raise ServeError("invalid", f"read '{name}': data is {short(data)}, expected a list.")
    if depth == 0 or len(data) > most:
        raise ServeError(
            "invalid", f"read '{name}': data is nested too deep or too long, expected its shape."
        )
    for value in data:
        if isinstance(value, list):
            yield from _flat(value, depth - 1, most, name)
        else:
            yield value
