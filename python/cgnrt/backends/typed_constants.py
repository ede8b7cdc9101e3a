"""The constants of a graph that is being typed: read in place, converted once, written out again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from cgnrt.plan.limits import ALIGNMENT

if TYPE_CHECKING:
    import onnx

_LARGEST = {"fp16": 65504.0, "bf16": 3.3895313892515355e38}
_SMALLEST = {"fp16": 2.0**-24, "bf16": 2.0**-133}


class Constants:
    """Initializers of one model.

    Attributes:
      names: of all of them.
      floats: of those that are float32.
      half_type: ONNX's number of the half type.
      suffix: for the names of values in half.
    """

    def __init__(self, model: onnx.ModelProto, weights: memoryview | None, precision: str) -> None:
        import onnx

        self._onnx = onnx
        self._graph = model.graph
        self._weights = weights
        self._tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        self._origins: dict[str, str] = {}  # of the constants in half, by their names
        self._fits: dict[str, bool] = {}
        self.suffix = precision
        self.half_type = onnx.TensorProto.FLOAT16 if precision == "fp16" else onnx.TensorProto.BFLOAT16
        self.names = frozenset(self._tensors)
        self.floats = frozenset(
            name for name, tensor in self._tensors.items() if tensor.data_type == onnx.TensorProto.FLOAT
        )
        for name in self.names - self.floats:
            # Sizes among them, and shapes are worked out from what lies in the graph alone.
            tensor = self._tensors[name]
            if tensor.external_data:
                tensor.raw_data = self._external(tensor).tobytes()
                del tensor.external_data[:]
                tensor.data_location = onnx.TensorProto.DEFAULT

    def fit(self, names: Iterable[str]) -> bool:
        """Whether half holds the float32 constants among these: none overflows, and none becomes zeros altogether."""
        return all(self._fit(name) for name in names if name in self.floats)

    def in_half(self, name: str, half_name: str) -> str:
        """Add a float32 constant in half under a new name, and return that."""
        self._origins[half_name] = name
        return half_name

    def write(self) -> bytes | None:
        """Put the constants that the nodes use into the graph; returns those that are external, as in the plan."""
        used = {name for node in self._graph.node for name in node.input}
        used |= {value.name for value in self._graph.output}
        weights = bytearray()
        kept = []
        for name in (*self._tensors, *self._origins):
            if name not in used:
                continue
            origin = self._tensors[self._origins.get(name, name)]
            tensor = self._onnx.TensorProto(name=name, data_type=origin.data_type, dims=origin.dims)
            if name in self._origins:
                tensor.data_type = self.half_type
                raw = _in_half(self._array(origin), self.suffix).tobytes()
            elif origin.external_data:
                raw = self._external(origin).tobytes()
            else:
                kept.append(origin)
                continue
            if origin.external_data:
                location = _entries(origin)["location"]
                weights.extend(bytes(-len(weights) % ALIGNMENT))
                tensor.data_location = self._onnx.TensorProto.EXTERNAL
                for key, value in (("location", location), ("offset", len(weights)), ("length", len(raw))):
                    tensor.external_data.add(key=key, value=str(value))
                weights.extend(raw)
            else:
                tensor.raw_data = raw
            kept.append(tensor)
        kept = [self._onnx.TensorProto.FromString(t.SerializeToString()) for t in kept]
        del self._graph.initializer[:]
        self._graph.initializer.extend(kept)
        return bytes(weights) if weights else None

    def _fit(self, name: str) -> bool:
        if name not in self._fits:
            sizes = np.abs(self._array(self._tensors[name]))
            largest = float(sizes.max(initial=0.0))
            # Half of the smallest number is rounded to zero.
            lost = 0 < largest <= _SMALLEST[self.suffix] / 2
            self._fits[name] = largest <= _LARGEST[self.suffix] and not lost
        return self._fits[name]

    def _array(self, tensor: onnx.TensorProto) -> np.ndarray:
        if tensor.external_data:
            return self._external(tensor).view("<f4").reshape(tuple(tensor.dims))
        return np.asarray(self._onnx.numpy_helper.to_array(tensor), np.float32)

    def _external(self, tensor: onnx.TensorProto) -> np.ndarray:
        """The bytes of an external constant, in place; the plan's reader has checked where they lie."""
        entries = _entries(tensor)
        where = slice(int(entries["offset"]), int(entries["offset"]) + int(entries["length"]))
        return np.frombuffer(self._weights or b"", np.uint8)[where]


def _entries(tensor: Any) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def _in_half(array: np.ndarray, precision: str) -> np.ndarray:
    """Rounded to nearest, ties to even: float16, or the bits of bfloat16."""
    if precision == "fp16":
        return array.astype("<f2")
    bits = np.ascontiguousarray(array, "<f4").view("<u4")
    rounded: np.ndarray = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
    return rounded.astype("<u2")
