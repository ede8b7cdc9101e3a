"""Shape rules of the operators that move elements: reshape, cut, join, repeat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cgnrt.errors import refuse, show
from cgnrt.plan.onnx.shapes import (
    Info,
    Operands,
    Rule,
    Values,
    broadcast,
    is_small,
    resolve_axes,
    resolve_axis,
)
from cgnrt.plan.onnx.sizes import Linear, Shape, Size, count_elements, fixed, is_one, same

_END = 2**31 - 1  # a position in a Slice from here on means the end


def _reshape(op: Operands) -> list[Info]:
    source = op.dims(0)
    wanted = op.sizes(1)
    dims = list(wanted)
    for index, dim in enumerate(wanted):
        if dim == 0:
            if op.flag("allowzero", False):
                raise refuse("shape", show(wanted), "no 0 beside allowzero")
            if index >= len(source):
                raise refuse("shape", show(wanted), f"0 only for dimensions of {list(source)}")
            dims[index] = source[index]
        elif dim < -1:
            raise refuse("shape", show(wanted), "sizes >= -1")
    total = count_elements(source)
    unknown = [index for index, dim in enumerate(dims) if isinstance(dim, int) and dim == -1]
    if len(unknown) == 1:
        rest = count_elements(dim for index, dim in enumerate(dims) if index != unknown[0])
        if rest == 0 or (isinstance(total, int) and (not isinstance(rest, int) or total % rest)):
            raise refuse("shape", show(wanted), f"a divisor of {total} elements")
        dims[unknown[0]] = total // rest
    if len(unknown) > 1 or not same((count_elements(dims),), (total,)):
        raise refuse("shape", show(wanted), f"{total} elements")
    return [_shaped(op, tuple(dims))]


def _shaped(op: Operands, dims: Shape) -> Info:
    values = op[0].values
    return Info(dims, values.reshape(fixed(dims)) if values is not None else None)


def _flatten(op: Operands) -> list[Info]:
    dims = op.dims(0)
    axis = op.integer("axis", 1)
    if not -len(dims) <= axis <= len(dims):
        raise refuse("axis", axis, f"{-len(dims)}..{len(dims)}")
    axis = axis if axis >= 0 else axis + len(dims)
    return [Info((count_elements(dims[:axis]), count_elements(dims[axis:])))]


def _squeeze(op: Operands) -> list[Info]:
    dims = op.dims(0)
    if op.get(1) is not None:
        gone = resolve_axes(op.whole_numbers(1), len(dims))
        if not gone:
            raise refuse("axes", "empty", "one or more, or no input for them")
    elif all(isinstance(dim, int) for dim in dims):
        gone = [index for index, dim in enumerate(dims) if is_one(dim)]
    else:  # of one image, the batch would go too
        raise refuse("axes", "missing", f"those that go from {list(dims)}")
    if not all(is_one(dims[index]) for index in gone):
        raise refuse("axes", show(gone), f"dimensions of size 1 in {list(dims)}")
    return [_shaped(op, tuple(dim for index, dim in enumerate(dims) if index not in gone))]


def _unsqueeze(op: Operands) -> list[Info]:
    dims, given = op.dims(0), op.whole_numbers(1)
    if not given:
        raise refuse("axes", "empty", "one or more")
    rank = len(dims) + len(given)
    axes = resolve_axes(given, rank)
    rest = iter(dims)
    return [_shaped(op, tuple(1 if index in axes else next(rest) for index in range(rank)))]


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
    if "axis" not in op.node.attributes:
        raise refuse("attribute axis", "missing", "an integer")
    axis = resolve_axis(op.integer("axis", 0), len(first))
    for info in operands:
        rest = info.dims[:axis] + info.dims[axis + 1 :]
        if len(info.dims) != len(first) or not same(rest, first[:axis] + first[axis + 1 :]):
            found = [list(item.dims) for item in operands[:8]]
            raise refuse("shapes", show(found), f"equal except on axis {axis}")
    length: Size = 0
    for info in operands:
        length = length + info.dims[axis]
    dims = (*first[:axis], length, *first[axis + 1 :])
    values: Values | None = None
    if is_small(dims):
        parts = [info.values for info in operands if info.values is not None]
        values = np.concatenate(parts, axis) if len(parts) == len(operands) else None
    return [Info(dims, values)]


def _split(op: Operands) -> list[Info]:
    dims = op.dims(0, 1)
    axis = resolve_axis(op.integer("axis", 0), len(dims))
    length = dims[axis]
    parts = _parts(op, length)
    if sum(parts[1:], parts[0]) != length or not all(part >= 0 for part in parts):
        raise refuse("parts", show(parts), f"{len(op.node.outputs)} that make up {length}")
    values = op[0].values
    results: list[Info] = []
    start = 0
    for size in parts:
        piece: Values | None = None
        if values is not None and isinstance(size, int):
            piece = np.take(values, range(start, start + size), axis)
            start += size
        results.append(Info((*dims[:axis], size, *dims[axis + 1 :]), piece))
    return results


def _parts(op: Operands, length: Size) -> list[Size]:
    """The lengths of what a Split makes."""
    count = len(op.node.outputs)
    given = op.node.attributes.get("num_outputs")
    if op.get(1) is not None:
        parts = op.sizes(1)
        if given is not None:
            raise refuse("attribute num_outputs", show(given), "no num_outputs beside the parts")
        if len(parts) != count:
            raise refuse("parts", show(parts), f"{count}, as many as outputs")
        return parts
    if given is None and op.opset >= 18:
        raise refuse("attribute num_outputs", "missing", "it, or the parts")
    if given is not None and given != count:
        raise refuse("attribute num_outputs", show(given), f"{count}, as many as outputs")
    if isinstance(length, Linear) or length % count == 0:
        return [length // count] * count
    if op.opset < 18:
        raise refuse("length", length, f"a multiple of {count}")
    size = -(-length // count)
    rest: list[Size] = [size] * (count - 1)
    return [*rest, length - size * (count - 1)]


def _slice(op: Operands) -> list[Info]:
    dims = op.dims(0, 1)
    starts, ends = op.numbers(1), op.numbers(2)
    axes = resolve_axes(op.whole_numbers(3) if op.get(3) is not None else range(len(starts)), len(dims))
    steps = op.whole_numbers(4) if op.get(4) is not None else [1] * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps):
        lengths = f"{len(starts)}, {len(ends)}, {len(axes)}, {len(steps)}"
        raise refuse("lengths of starts, ends, axes and steps", lengths, "equal ones")
    shape, values = list(dims), op[0].values
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        first, length = _cut(dims[axis], start, end, step)
        shape[axis] = length
        if values is not None and isinstance(length, int):
            values = np.take(values, [int(first) + k * step for k in range(length)], axis)  # type: ignore[arg-type]
    return [Info(tuple(shape), values)]


def _cut(size: Size, start: Size, end: Size, step: int) -> tuple[Size, Size]:
    """Where a slice of an axis begins, and how many elements it has.

    Positions count from the end once where they are negative; then, as the specification and engines have it, they are
    clamped to the elements there are: a slice that goes backwards from before the first has the first.
    """
    if not 0 < abs(step) < 2**31:
        raise refuse("step", step, "one of 32 bits, not 0")
    if step > 0:
        begin, stop = _position(start, size, 0, size), _position(end, size, 0, size)
        return begin, max(0, -((begin - stop) // step))  # rounded up
    if isinstance(end, int) and end >= _END:
        # The first element in ONNX Runtime, the last one in the specification.
        raise refuse("end of a slice backwards", end, f"less than {_END}")
    if size < 1:
        raise refuse("axis", "empty", "elements to go backwards from")
    begin, stop = _position(start, size, 0, size - 1), _position(end, size, -1, size - 1)
    return begin, max(0, -((stop - begin) // -step))


def _position(value: Size, size: Size, low: int, high: Size) -> Size:
    if isinstance(value, int):
        if value >= _END:
            return high
        if value <= -_END:
            return low
    elif not (value.slope > 0 and value >= 1):
        raise refuse("position", show(value), "one that is positive for every batch")
    place = value if value >= 0 else value + size
    return low if place < low else high if place > high else place


def _gather(op: Operands) -> list[Info]:
    dims, index = op.dims(0, 1), op[1]
    axis = resolve_axis(op.integer("axis", 0), len(dims))
    values: Values | None = None
    shape = dims[:axis] + index.dims + dims[axis + 1 :]
    source = op[0].values
    if source is not None and index.values is not None and is_small(shape):
        where = np.array(index.values, dtype=np.int64)
        values = np.array(np.take(source, where, axis), dtype=object).reshape(fixed(shape))
    return [Info(shape, values)]


def _gather_elements(op: Operands) -> list[Info]:
    return [Info(_indices_along(op))]


def _indices_along(op: Operands) -> Shape:
    """The dimensions of indices along an axis: those of the data except for this axis.

    The specification allows smaller ones; OpenVINO 2026.4 reads and writes memory beside the tensors then.
    """
    dims, index = op.dims(0, 1), op.dims(1, 1)
    axis = resolve_axis(op.integer("axis", 0), len(dims))
    if not same(index[:axis] + index[axis + 1 :], dims[:axis] + dims[axis + 1 :]):
        raise refuse("shape of the indices", show(list(index)), f"{list(dims)} except for axis {axis}")
    return index


def _gather_nd(op: Operands) -> list[Info]:
    dims, index = op.dims(0, 1), op.dims(1, 1)
    batch, depth = op.integer("batch_dims", 0), index[-1]
    if not isinstance(depth, int) or not 0 <= batch < len(index) or not 1 <= depth <= len(dims) - batch:
        raise refuse("indices", show(list(index)), f"rows of up to {len(dims)} positions")
    if not same(index[:batch], dims[:batch]):
        raise refuse("indices", show(list(index)), f"the first {batch} dimensions of {list(dims)}")
    return [Info(index[:-1] + dims[batch + depth :])]


def _scatter_elements(op: Operands) -> list[Info]:
    index, updates = _indices_along(op), op.dims(2)
    if not same(index, updates):
        raise refuse("shape of updates", show(list(updates)), str(list(index)))
    return [Info(op.dims(0))]


def _scatter_nd(op: Operands) -> list[Info]:
    dims, index, updates = op.dims(0, 1), op.dims(1, 1), op.dims(2)
    depth = index[-1]
    if not isinstance(depth, int) or not 1 <= depth <= len(dims):
        raise refuse("indices", show(list(index)), f"rows of up to {len(dims)} positions")
    if not same(updates, (*index[:-1], *dims[depth:])):
        raise refuse("shape of updates", show(list(updates)), str([*index[:-1], *dims[depth:]]))
    return [Info(dims)]


def _expand(op: Operands) -> list[Info]:
    wanted = op.sizes(1)
    _require_positive("shape", wanted)
    if not wanted:
        raise refuse("shape", "empty", "one size or more")
    dims = broadcast([op[0].dims, tuple(wanted)])
    values = op[0].values
    small = values is not None and is_small(dims)
    return [Info(dims, np.broadcast_to(values, fixed(dims)) if small and values is not None else None)]


def _require_positive(what: str, sizes: Sequence[Size]) -> None:
    if not all(size >= 1 for size in sizes):
        raise refuse(what, show(list(sizes)), "numbers >= 1")


def _tile(op: Operands) -> list[Info]:
    dims, repeats = op.dims(0), op.sizes(1)
    _require_positive("repeats", repeats)
    if len(repeats) != len(dims):
        raise refuse("repeats", show(repeats), f"{len(dims)} numbers >= 1")
    return [Info(tuple(dim * count for dim, count in zip(dims, repeats, strict=True)))]


def _pad(op: Operands) -> list[Info]:
    dims, pads = op.dims(0), op.sizes(1)
    op.check_single(2)
    mode = op.text("mode", "constant")
    if mode not in ("constant", "reflect", "edge"):
        raise refuse("attribute mode", show(mode), "'constant', 'reflect' or 'edge'")
    axes = resolve_axes(op.whole_numbers(3) if op.get(3) is not None else range(len(dims)), len(dims))
    if len(pads) != 2 * len(axes):
        raise refuse("length of pads", len(pads), str(2 * len(axes)))
    shape = list(dims)
    for index, axis in enumerate(axes):
        if isinstance(dims[axis], Linear) and (pads[index], pads[index + len(axes)]) != (0, 0):
            raise refuse("pads", show(pads), f"no pads for axis {axis}, which grows with the batch")
        shape[axis] = dims[axis] + pads[index] + pads[index + len(axes)]
        if not shape[axis] >= 1:
            raise refuse("shape of the result", show(shape), "sizes >= 1")
    return [Info(tuple(shape))]


LAYOUT_RULES: Mapping[str, Rule] = {
    "Concat": _concat,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Pad": _pad,
    "Reshape": _reshape,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
