"""How large the tensors of a graph become: what a rule sees of a node, and rules for operators that move elements.

Engines fold constants and reserve memory while they load, so a few bytes of a hostile graph (a ConstantOfShape, an
Expand, a Concat of a Concat ...) could ask for terabytes. Every operator that plans may use has a rule, from the
operands' dimensions to those of the results; `rules` lists them, `graph` runs them before an engine sees the graph.
The values of small tensors are carried along, because sizes are computed from them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from cgnrt.errors import refuse, show
from cgnrt.plan.onnx.model import Node
from cgnrt.plan.onnx.wire import Tensor
from cgnrt.plan.weights import Weights

# Sizes are integers, Resize's scales float32, conditions bool. Arithmetic in other types wraps and rounds in its
# own way, so that their values are not followed.
_VALUE_TYPES = ("int64", "int32", "float32", "bool")
# Tensors up to this many elements keep their values: shapes, axes, pads, scales.
MAX_VALUES = 64


class Info(NamedTuple):
    """What is known of a tensor: dimensions, values of a small one, and whether all inputs give the same."""

    dims: tuple[int, ...]
    values: np.ndarray | None = None  # Python numbers (dtype object), shape `dims`
    constant: bool = False


class Operands:
    """A node as its rule sees it: inputs by position and attributes by name, of the type asked for."""

    def __init__(self, node: Node, inputs: Sequence[Info | None], graph: bytes) -> None:
        self.node = node
        self.inputs = inputs
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

    def dims(self, index: int, rank: int = 0) -> tuple[int, ...]:
        """Dimensions of an input of at least `rank`."""
        dims = self[index].dims
        if len(dims) < rank:
            raise refuse(f"rank of input {index}", len(dims), f">= {rank}")
        return dims

    def sizes(self, index: int) -> list[int]:
        """The integers in an input that sets sizes."""
        values = self.numbers(index)
        if any(type(value) is not int for value in values):
            raise refuse(f"input {index}", show(values), "integers")
        return [int(value) for value in values]

    def numbers(self, index: int) -> list[int | float]:
        values = self[index].values
        if values is None:
            rule = f"up to {MAX_VALUES} constants or 32-bit numbers computed from shapes"
            raise refuse(f"input {index} (which sets the size)", "unknown", rule)
        return list(values.reshape(-1))

    def integer(self, name: str, default: int) -> int:
        value = self.node.attributes.get(name, default)
        if type(value) is not int:
            raise refuse(f"attribute {name}", show(value), "an integer")
        return value

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
Values = np.ndarray


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


def resolve_axis(axis: int, rank: int) -> int:
    """A non-negative axis."""
    if not -rank <= axis < rank:
        raise refuse("axis", axis, f"{-rank}..{rank - 1}")
    return axis % rank


def broadcast(shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
    """NumPy's broadcasting."""
    rank = max(len(dims) for dims in shapes)
    result = [1] * rank
    for dims in shapes:
        for index, dim in enumerate(dims, rank - len(dims)):
            if dim != 1 and result[index] not in (1, dim):
                raise refuse("shapes", show([list(item) for item in shapes]), "ones that broadcast together")
            if dim != 1:
                result[index] = dim
    return tuple(result)


def elements(dims: tuple[int, ...]) -> int:
    return math.prod(dims)


def _reshape(op: Operands) -> list[Info]:
    source = op.dims(0)
    wanted = op.sizes(1)
    dims = list(wanted)
    for index, dim in enumerate(wanted):
        if dim == 0 and not op.integer("allowzero", 0):
            dims[index] = source[index]
        elif dim < -1:
            raise refuse("shape", wanted, "sizes >= -1")
    total = elements(source)
    if dims.count(-1) == 1:
        rest = elements(tuple(dim for dim in dims if dim != -1))
        if rest == 0 or total % rest:
            raise refuse("shape", wanted, f"a divisor of {total} elements")
        dims[dims.index(-1)] = total // rest
    if -1 in dims or elements(tuple(dims)) != total:
        raise refuse("shape", wanted, f"{total} elements")
    return [_shaped(op, tuple(dims))]


def _shaped(op: Operands, dims: tuple[int, ...]) -> Info:
    values = op[0].values
    return Info(dims, values.reshape(dims) if values is not None else None)


def _flatten(op: Operands) -> list[Info]:
    dims = op.dims(0)
    axis = op.integer("axis", 1)
    if not -len(dims) <= axis <= len(dims):
        raise refuse("axis", axis, f"{-len(dims)}..{len(dims)}")
    axis = axis if axis >= 0 else axis + len(dims)
    return [Info((elements(dims[:axis]), elements(dims[axis:])))]


def resolve_axes(op: Operands, index: int, rank: int) -> list[int] | None:
    """Axes from an attribute (older operator sets) or an input; None where neither is given."""
    axes = op.integers("axes")
    if axes is None and op.get(index) is not None:
        axes = op.sizes(index)
    if axes is None:
        return None
    resolved = [resolve_axis(axis, rank) for axis in axes]
    if len(set(resolved)) != len(resolved):
        raise refuse("axes", show(axes), "each axis once")
    return resolved


def _squeeze(op: Operands) -> list[Info]:
    dims = op.dims(0)
    axes = resolve_axes(op, 1, len(dims))
    gone = [index for index, dim in enumerate(dims) if dim == 1] if axes is None else axes
    if any(dims[index] != 1 for index in gone):
        raise refuse("axes", show(axes), f"dimensions of size 1 in {list(dims)}")
    return [_shaped(op, tuple(dim for index, dim in enumerate(dims) if index not in gone))]


def _unsqueeze(op: Operands) -> list[Info]:
    dims = op.dims(0)
    count = len(op.integers("axes") or op.sizes(1))
    axes = resolve_axes(op, 1, len(dims) + count) or []
    rest = iter(dims)
    return [_shaped(op, tuple(1 if index in axes else next(rest) for index in range(len(dims) + count)))]


def _transpose(op: Operands) -> list[Info]:
    dims = op.dims(0)
    order = op.integers("perm")
    if order is None:
        order = list(range(len(dims)))[::-1]
    if sorted(order) != list(range(len(dims))):
        raise refuse("perm", show(order), f"a permutation of 0..{len(dims) - 1}")
    values = op[0].values
    moved = values.transpose(order) if values is not None else None
    return [Info(tuple(dims[index] for index in order), moved)]


def _concat(op: Operands) -> list[Info]:
    operands = op.all()
    first = op.dims(0, 1)
    axis = resolve_axis(op.integer("axis", 0), len(first))
    for info in operands:
        rest = info.dims[:axis] + info.dims[axis + 1 :]
        if len(info.dims) != len(first) or rest != first[:axis] + first[axis + 1 :]:
            raise refuse(
                "shapes", show([list(item.dims) for item in operands]), f"equal except on axis {axis}"
            )
    dims = (*first[:axis], sum(info.dims[axis] for info in operands), *first[axis + 1 :])
    values: Values | None = None
    if elements(dims) <= MAX_VALUES:
        parts = [info.values for info in operands if info.values is not None]
        values = np.concatenate(parts, axis) if len(parts) == len(operands) else None
    return [Info(dims, values)]


def _split(op: Operands) -> list[Info]:
    dims = op.dims(0, 1)
    axis = resolve_axis(op.integer("axis", 0), len(dims))
    count = len(op.node.outputs)
    if op.get(1) is not None:
        parts = op.sizes(1)
    else:
        size = -(-dims[axis] // op.integer("num_outputs", count))
        parts = [size] * (count - 1) + [dims[axis] - size * (count - 1)]
    if len(parts) != count or sum(parts) != dims[axis] or min(parts) < 0:
        raise refuse("parts", show(parts), f"{count} that make up {dims[axis]}")
    values = op[0].values
    results: list[Info] = []
    start = 0
    for size in parts:
        piece = np.take(values, range(start, start + size), axis) if values is not None else None
        results.append(Info((*dims[:axis], size, *dims[axis + 1 :]), piece))
        start += size
    return results


def _slice(op: Operands) -> list[Info]:
    dims = op.dims(0, 1)
    starts, ends = op.sizes(1), op.sizes(2)
    axes = op.sizes(3) if op.get(3) is not None else list(range(len(starts)))
    steps = op.sizes(4) if op.get(4) is not None else [1] * len(starts)
    pieces = [slice(None)] * len(dims)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = dims[resolve_axis(axis, len(dims))]
        if step == 0:
            raise refuse("step", 0, "another number")
        # Positions count from the end only once: what is still negative then lies before the first element,
        # which a Python slice says with None (as its end, going backwards) or not at all.
        begin, stop = start + size * (start < 0), end + size * (end < 0)
        if step > 0:
            piece = slice(max(begin, 0), max(stop, 0), step)
        elif begin < 0:
            piece = slice(0, 0)
        else:
            piece = slice(begin, stop if stop >= 0 else None, step)
        pieces[axis % len(dims)] = piece
    shape = tuple(len(range(*piece.indices(dim))) for piece, dim in zip(pieces, dims, strict=True))
    values = op[0].values
    return [Info(shape, values[tuple(pieces)] if values is not None else None)]


def _gather(op: Operands) -> list[Info]:
    dims, index = op.dims(0, 1), op[1]
    axis = resolve_axis(op.integer("axis", 0), len(dims))
    values: Values | None = None
    shape = dims[:axis] + index.dims + dims[axis + 1 :]
    source = op[0].values
    if source is not None and index.values is not None and elements(shape) <= MAX_VALUES:
        where = np.array(index.values, dtype=np.int64)
        values = np.array(np.take(source, where, axis), dtype=object).reshape(shape)
    return [Info(shape, values)]


def _gather_nd(op: Operands) -> list[Info]:
    dims, index = op.dims(0, 1), op.dims(1, 1)
    batch = op.integer("batch_dims", 0)
    if not 0 <= batch + index[-1] <= len(dims) or not 0 <= batch < len(index):
        raise refuse("indices", list(index), f"rows of up to {len(dims)} positions")
    return [Info(index[:-1] + dims[batch + index[-1] :])]


def _expand(op: Operands) -> list[Info]:
    dims = broadcast([op[0].dims, tuple(op.sizes(1))])
    if min(dims, default=0) < 0:
        raise refuse("shape", list(dims), "sizes >= 0")
    values = op[0].values
    small = values is not None and elements(dims) <= MAX_VALUES
    return [Info(dims, np.broadcast_to(values, dims) if small and values is not None else None)]


def _tile(op: Operands) -> list[Info]:
    dims, repeats = op.dims(0), op.sizes(1)
    if len(repeats) != len(dims) or min(repeats, default=0) < 0:
        raise refuse("repeats", show(repeats), f"{len(dims)} numbers >= 0")
    return [Info(tuple(dim * count for dim, count in zip(dims, repeats, strict=True)))]


def _pad(op: Operands) -> list[Info]:
    dims, pads = op.dims(0), op.sizes(1)
    axes = [resolve_axis(axis, len(dims)) for axis in op.sizes(3)] if op.get(3) else list(range(len(dims)))
    if len(pads) != 2 * len(axes):
        raise refuse("length of pads", len(pads), str(2 * len(axes)))
    shape = list(dims)
    for index, axis in enumerate(axes):
        shape[axis] += pads[index] + pads[index + len(axes)]
    return [Info(tuple(shape))]


LAYOUT_RULES: Mapping[str, Rule] = {
    "Concat": _concat,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "GatherElements": lambda op: [Info(op.dims(1))],
    "GatherND": _gather_nd,
    "Pad": _pad,
    "Reshape": _reshape,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
