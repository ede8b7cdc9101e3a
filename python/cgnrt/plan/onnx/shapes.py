"""What a rule sees of a node, and how large tensors of a graph become.

Engines fold constants and reserve memory while they load, so a few bytes of a hostile graph (a ConstantOfShape, an
Expand, a Concat of a Concat ...) could ask for terabytes. Every operator that plans may use has a rule, from the
operands' dimensions to those of the results; `rules` lists them, `graph` runs them before an engine sees the graph.
The values of small tensors are carried along, because sizes are computed from them. Dimensions and values may grow with
the batch (`sizes`). A test compares the rules with the engines over random nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from cgnrt.errors import refuse, show
from cgnrt.plan.onnx.model import Node
from cgnrt.plan.onnx.sizes import Linear, Shape, Size, count_elements, is_one
from cgnrt.plan.onnx.wire import Tensor
from cgnrt.plan.weights import Weights

# Sizes are integers, Resize's scales float32, conditions bool. Arithmetic in other types wraps and rounds in its
# own way, so that their values are not followed.
_VALUE_TYPES = ("int64", "int32", "float32", "bool")
# Tensors up to this many elements keep their values: shapes, axes, pads, scales.
MAX_VALUES = 64
# Values that rules may calculate for one graph; more are unknown, which does not make it refused.
_MOST_CALCULATED = 1 << 18

Values = np.ndarray


class Info(NamedTuple):
    """What is known of a tensor: dimensions, values of a small one, and whether all inputs give the same."""

    dims: Shape
    values: Values | None = None  # Python numbers and `Linear` (dtype object), shape `dims`
    constant: bool = False


class Effort:
    """How many values may still be calculated."""

    def __init__(self) -> None:
        self._left = _MOST_CALCULATED

    def spend(self, count: int) -> bool:
        """Whether so many more may be calculated."""
        self._left -= count
        return self._left >= 0


class Operands:
    """A node as its rule sees it: inputs by position and attributes by name, of the type asked for."""

    def __init__(
        self, node: Node, inputs: Sequence[Info | None], graph: bytes, opset: int, effort: Effort
    ) -> None:
        self.node = node
        self.inputs = inputs
        self.opset = opset
        self.effort = effort
        self._graph = graph

    def __getitem__(self, index: int) -> Info:
        info = self.get(index)
        if info is None:
            raise refuse(f"input {index}", "missing", f"an operand of {self.node.op}")
        return info

    def get(self, index: int) -> Info | None:
        return self.inputs[index] if index < len(self.inputs) else None

    def all(self) -> list[Info]:
        return [self[index] for index in range(max(1, len(self.inputs)))]

    def dims(self, index: int, rank: int = 0) -> Shape:
        """Dimensions of an input of at least `rank`."""
        dims = self[index].dims
        if len(dims) < rank:
            raise refuse(f"rank of input {index}", len(dims), f">= {rank}")
        return dims

    def sizes(self, index: int) -> list[Size]:
        """The integers in an input that sets sizes: of 32 bits, or growing with the batch and positive."""
        found: list[Size] = []
        for value in self.numbers(index):
            if (isinstance(value, Linear) and value.slope > 0 and value >= 1) or (
                type(value) is int and -(2**31) <= value < 2**31
            ):
                found.append(value)
            else:
                raise refuse(f"input {index}", show(self.numbers(index)), "integers of 32 bits")
        return found

    def whole_numbers(self, index: int) -> list[int]:
        """The integers in an input that sets sizes, none of which grows with the batch; of 64 bits."""
        values = self.numbers(index)
        if any(type(value) is not int for value in values):
            raise refuse(f"input {index}", show(values), "integers")
        return [int(value) for value in values]

    def numbers(self, index: int) -> list[Any]:
        """The numbers in an input of one dimension that sets sizes."""
        self.check_rank(index, 1)
        return self._values(index)

    def number(self, index: int) -> Any:
        """The number in an input that has one."""
        self.check_single(index)
        return self._values(index)[0]

    def _values(self, index: int) -> list[Any]:
        values = self[index].values
        if values is None:
            rule = f"up to {MAX_VALUES} constants or 32-bit numbers computed from shapes"
            raise refuse(f"input {index} (which sets the size)", "unknown", rule)
        return list(values.reshape(-1))

    def check_rank(self, index: int, rank: int) -> None:
        """Refuse an input of another rank."""
        if len(dims := self[index].dims) != rank:
            raise refuse(f"rank of input {index}", len(dims), str(rank))

    def check_single(self, *indices: int) -> None:
        """Refuse given inputs that have not one element in at most one dimension."""
        for index in indices:
            info = self.get(index)
            if info is not None and (len(info.dims) > 1 or not all(map(is_one, info.dims))):
                raise refuse(f"shape of input {index}", show(list(info.dims)), "one element")

    def check_within(self, *indices: int) -> None:
        """Refuse given inputs that do not broadcast to the shape of the first."""
        first = self.dims(0)
        for index in indices:
            info = self.get(index)
            if info is not None and (
                len(info.dims) > len(first)
                or any(not is_one(a) and a != b for a, b in zip(info.dims[::-1], first[::-1], strict=False))
            ):
                rule = f"one that broadcasts to {list(first)}"
                raise refuse(f"shape of input {index}", show(list(info.dims)), rule)

    def check_vectors(self, length: Size, *indices: int) -> None:
        """Refuse given inputs that have not this many elements in one dimension."""
        for index in indices:
            info = self.get(index)
            if info is not None and not (len(info.dims) == 1 and info.dims[0] == length):
                raise refuse(f"shape of input {index}", show(list(info.dims)), f"[{length}]")

    def integer(self, name: str, default: int) -> int:
        value = self.node.attributes.get(name, default)
        if type(value) is not int:
            raise refuse(f"attribute {name}", show(value), "an integer")
        return value

    def flag(self, name: str, default: bool) -> bool:
        """An integer attribute that is 0 or 1: of others, engines make one or the other."""
        value = self.integer(name, int(default))
        if value not in (0, 1):
            raise refuse(f"attribute {name}", value, "0 or 1")
        return bool(value)

    def integers(self, name: str) -> list[int] | None:
        value = self.node.attributes.get(name)
        if value is None:
            return None
        if not isinstance(value, list) or any(type(item) is not int for item in value):
            raise refuse(f"attribute {name}", show(value), "integers")
        return [item for item in value if isinstance(item, int)]

    def text(self, name: str, default: str) -> str:
        value = self.node.attributes.get(name, default)
        if not isinstance(value, str):
            raise refuse(f"attribute {name}", show(value), "a string")
        return value

    def tensor(self, name: str) -> Info | None:
        value = self.node.attributes.get(name)
        if value is None:
            return None
        if not isinstance(value, Tensor):
            raise refuse(f"attribute {name}", show(value), "a tensor")
        return tensor_info(value, self._graph, None)


Rule = Callable[[Operands], list[Info]]


def tensor_info(tensor: Tensor, graph: bytes, weights: Weights | None) -> Info:
    """An initializer's or constant's dimensions, and its values where it is small."""
    values: np.ndarray | None = None
    if tensor.elements <= MAX_VALUES and tensor.dtype.name in _VALUE_TYPES:
        if tensor.numbers is not None:
            values = np.array(tensor.numbers, dtype=object)
        else:
            raw = b""
            if tensor.external is not None and weights is not None:
                raw = weights.piece(tensor.external.offset, tensor.external.length)
            elif tensor.span is not None:
                raw = graph[slice(*tensor.span)]
            values = np.frombuffer(raw, dtype=tensor.dtype.numpy).astype(object)
        values = values.reshape(tensor.dims)
    return Info(tensor.dims, values, True)


def is_small(dims: Shape) -> bool:
    """Whether a tensor is one whose values are carried along."""
    return all(isinstance(dim, int) for dim in dims) and count_elements(dims) <= MAX_VALUES


def resolve_axis(axis: int, rank: int) -> int:
    """A non-negative axis."""
    if not -rank <= axis < rank:
        raise refuse("axis", axis, f"{-rank}..{rank - 1}")
    return axis % rank


def resolve_axes(axes: Sequence[int], rank: int) -> list[int]:
    """Non-negative axes, each of them once."""
    resolved = [resolve_axis(axis, rank) for axis in axes]
    if len(set(resolved)) != len(resolved):
        raise refuse("axes", show(list(axes)), "each axis once")
    return resolved


def broadcast(shapes: Sequence[Shape]) -> Shape:
    """NumPy's broadcasting."""
    rank = max(len(dims) for dims in shapes)
    result: list[Size] = [1] * rank
    for dims in shapes:
        for index, dim in enumerate(dims, rank - len(dims)):
            if is_one(dim):
                continue
            if not is_one(result[index]) and not result[index] == dim:
                raise refuse(
                    "shapes", show([list(item) for item in shapes[:8]]), "ones that broadcast together"
                )
            result[index] = dim
    return tuple(result)
