"""The constants of a graph that is being typed: read in place, converted once, written out again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from cgnrt.backends.typed.rules import fits_half
from cgnrt.plan.limits import ALIGNMENT

if TYPE_CHECKING:
    import onnx

_SIZES_BYTES = 1024  # of constants that may set a size


class Constants:
    """Initializers of one model, and the names that are taken in it.

    Attributes:
      half_type: ONNX's number of the half type.
      suffix: for the names of values in half.
    """

    def __init__(self, model: onnx.ModelProto, weights: memoryview | None, precision: str) -> None:
        import onnx

        self._onnx = onnx
        self._graph = model.graph
        self._weights = weights
        self._tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        self._added: dict[str, np.ndarray] = {}
        self._origins: dict[str, str] = {}  # of the constants in half, by their names
        self._fits: dict[str, bool] = {}
        self._taken = {name for node in model.graph.node for name in (*node.input, *node.output)}
        self._taken |= self._tensors.keys()
        self.suffix = precision
        self.half_type = onnx.TensorProto.FLOAT16 if precision == "fp16" else onnx.TensorProto.BFLOAT16
        self.floats = {t.name for t in self._tensors.values() if t.data_type == onnx.TensorProto.FLOAT}
        for tensor in self._tensors.values():
            if tensor.name in self.floats or not tensor.external_data:
                continue
            raw = self._external(tensor)
            if raw.nbytes <= _SIZES_BYTES:
                # Shapes are inferred only from constants inside the graph.
                tensor.raw_data = raw.tobytes()
                del tensor.external_data[:]
                tensor.data_location = onnx.TensorProto.DEFAULT

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def fresh(self, name: str) -> str:
        """A name like this one that no value has yet, which from now on is taken."""
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name

    def shape(self, name: str) -> list[int]:
        return list(self._tensors[name].dims)

    def array(self, name: str) -> np.ndarray:
        """The values of a float32 constant, in place where they are external."""
        if name in self._added:
            return self._added[name]
        tensor = self._tensors[name]
        if tensor.external_data:
            return self._external(tensor).view("<f4").reshape(tuple(tensor.dims))
        return np.asarray(self._onnx.numpy_helper.to_array(tensor), np.float32)

    def add(self, name: str, array: np.ndarray, *, like: str) -> str:
        """Add a float32 constant that lies where another does; returns its name."""
        name = self.fresh(name)
        tensor = self._onnx.TensorProto(name=name, data_type=self._onnx.TensorProto.FLOAT, dims=array.shape)
        tensor.external_data.extend(self._tensors[like].external_data)
        self._tensors[name] = tensor
        self._added[name] = array
        self.floats.add(name)
        return name

    def fit(self, names: Iterable[str]) -> bool:
        """Whether half holds the float32 constants among these: none overflows, and none becomes zeros altogether."""
        return all(self._fit(name) for name in names if name in self.floats and name in self._tensors)

    def in_half(self, name: str) -> str:
        """Add a float32 constant in half; returns its name."""
        half = self.fresh(f"{name}.{self.suffix}")
        self._origins[half] = name
        return half

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
                raw = _in_half(self.array(origin.name), self.suffix).tobytes()
            elif name in self._added:
                raw = self._added[name].tobytes()
            elif origin.external_data:
                raw = self._external(origin).tobytes()
            else:
                tensor.CopyFrom(origin)
                raw = tensor.raw_data
            if origin.external_data:
                weights.extend(bytes(-len(weights) % ALIGNMENT))
                location = _entries(origin)["location"]
                tensor.data_location = self._onnx.TensorProto.EXTERNAL
                for key, value in (("location", location), ("offset", len(weights)), ("length", len(raw))):
                    tensor.external_data.add(key=key, value=str(value))
                weights.extend(raw)
            elif raw:
                tensor.raw_data = raw
            kept.append(tensor)
        del self._graph.initializer[:]
        self._graph.initializer.extend(kept)
        return bytes(weights) if weights else None

    def _fit(self, name: str) -> bool:
        if name not in self._fits:
            self._fits[name] = fits_half(self.array(name), self.suffix)
        return self._fits[name]

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
