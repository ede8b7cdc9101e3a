"""What both native engines read a plan's graph with."""

from __future__ import annotations

from typing import Any

import numpy as np

from cgnrt.plan import Network
from cgnrt.plan.onnx.model import Node
from cgnrt.plan.onnx.wire import Tensor

# The taps of a transposed convolution that stands for up-sampling and a 3x3 convolution satisfy t0 + t2 = t1 + t3
# along each axis; so far apart, relative to the largest tap, may rounding put the two sides.
_TAPS_TOLERANCE = 1e-5

_WINDOW_DEFAULTS: dict[str, Any] = {
    "strides": [1, 1],
    "pads": [0, 0, 0, 0],
    "dilations": [1, 1],
    "group": 1,
    "auto_pad": "NOTSET",
    "output_padding": [0, 0],
}


class UnsupportedGraphError(Exception):
    """A native engine does not support something in a graph. The message names it."""


class Graph:
    """A network's nodes and constants. Constants are views of the plan's members."""

    def __init__(self, network: Network) -> None:
        self.model = network.model
        self._weights = network.weights

    def constant(self, name: str) -> np.ndarray:
        tensor = self.model.initializers.get(name)
        if tensor is None:
            raise UnsupportedGraphError(f"weights that the graph computes ({name})")
        return self.array(tensor)

    def array(self, tensor: Tensor) -> np.ndarray:
        if tensor.dtype.numpy is None:
            raise UnsupportedGraphError(f"{tensor.dtype.name} tensors")
        if tensor.numbers is not None:
            return np.asarray(tensor.numbers, tensor.dtype.numpy).reshape(tensor.dims)
        if tensor.external is not None and self._weights is not None:
            where = slice(tensor.external.offset, tensor.external.offset + tensor.external.length)
            raw: bytes | memoryview = self._weights[where]
        elif tensor.span is not None:
            raw = self.model.data[slice(*tensor.span)]
        else:
            raw = b""
        return np.frombuffer(raw, tensor.dtype.numpy).reshape(tensor.dims)


def floats(array: np.ndarray) -> np.ndarray:
    """float32 weights, C-contiguous and finite."""
    if array.dtype != np.float32:
        raise UnsupportedGraphError(f"{array.dtype} weights")
    with np.errstate(over="ignore", invalid="ignore"):
        # A difference of NaNs or infinities would reach other pixels than the graph's. Their sum tells of them
        # in one pass and without a copy.
        finite = bool(np.isfinite(array.sum(dtype=np.float32))) or bool(np.isfinite(array).all())
    if not finite:
        raise UnsupportedGraphError("weights that are not finite")
    return np.ascontiguousarray(array)


def number(node: Node, name: str, default: float) -> float:
    value = node.attributes.get(name, default)
    if not isinstance(value, int | float):
        raise UnsupportedGraphError(f"{node.op} with {name} {value}")
    return float(value)


def check_window(node: Node, kernel: list[int], **wanted: Any) -> None:
    """Refuse any other window than the one wanted; what a node leaves out has ONNX's default."""
    expected = {**_WINDOW_DEFAULTS, "kernel_shape": kernel, **wanted}
    for name, found in {**_WINDOW_DEFAULTS, "kernel_shape": kernel, **node.attributes}.items():
        if name not in expected or found != expected[name]:
            raise UnsupportedGraphError(f"{node.op} with {name} {found}")


def check_up_taps(weight: np.ndarray) -> None:
    """Refuse 4x4 taps that are not those of up-sampling and a 3x3 convolution."""
    limit = _TAPS_TOLERANCE * float(max(weight.max(initial=0), -weight.min(initial=0)))
    for taps in (weight.swapaxes(2, 3), weight):
        sums = taps[..., 0] + taps[..., 2]
        sums -= taps[..., 1]
        sums -= taps[..., 3]
        if max(sums.max(initial=0), -sums.min(initial=0)) > limit:
            raise UnsupportedGraphError(
                "transposed convolutions that do not stand for up-sampling and a 3x3 convolution"
            )
