"""Operators that make constants, read sizes, and cut, join, reshape and reorder tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from cgnrt.backends.torch.operands import Operands, UnsupportedError
from cgnrt.backends.torch.tracer import META, Value, sizes
from cgnrt.plan.onnx.wire import Tensor as OnnxTensor


def _shape(x: Operands) -> Value:
    axes = slice(x.get("start", 0), x.get("end", None))
    return x.tracer.shape(x[0], axes)


def _size(x: Operands) -> Value:
    return x.call(torch.prod, x.tracer.shape(x[0], slice(None)))


def _constant(x: Operands) -> Value:
    (value,) = x.node.attributes.values()
    if isinstance(value, OnnxTensor):
        return x.tracer.host(x.read(value))
    if isinstance(value, str) or (isinstance(value, list) and value and isinstance(value[0], str)):
        raise UnsupportedError("Constant with text")
    first = value[0] if isinstance(value, list) and value else value
    return x.tracer.host(
        torch.tensor(value, dtype=torch.float32 if isinstance(first, float) else torch.int64)
    )


def _constant_of_shape(x: Operands) -> Value:
    given = x.node.attributes.get("value")
    fill = (
        x.read(given).reshape(()) if isinstance(given, OnnxTensor) else torch.zeros((), dtype=torch.float32)
    )
    shape = x.sizes(0)
    if all(type(size) is int for size in shape):
        return x.tracer.host(fill.expand(shape))
    return x.call(torch.full, shape, fill.item(), dtype=fill.dtype, device=META)


def _range(x: Operands) -> Value:
    start, limit, step = (x.numbers(k) for k in range(3))
    if all(isinstance(number, int | float) for number in (start, limit, step)):
        return x.tracer.host(torch.arange(start, limit, step, dtype=x[0].dtype))
    return x.call(torch.arange, start, limit, step, dtype=x[0].dtype, device=META)


def _reshape(x: Operands) -> Value:
    wanted = x.sizes(1)
    if not x.get("allowzero", 0):
        rows = [list(example.shape) for example in x[0].examples]
        kept = sizes([row[: len(wanted)] + [0] * (len(wanted) - len(row)) for row in rows])
        wanted = [kept[k] if size == 0 else size for k, size in enumerate(wanted)]
    return _sized(x, torch.reshape, x.call(torch.reshape, x[0], wanted))


def _expand(x: Operands) -> Value:
    # Both ways: an axis of one in the shape keeps the tensor's.
    return _sized(x, torch.Tensor.expand, x.call(_broadcast, x[0], x.sizes(1)))


def _broadcast(x: Tensor, shape: list[int]) -> Tensor:
    whole: torch.Size = torch.broadcast_shapes(x.shape, shape)  # type: ignore[no-untyped-call]
    return x.expand(whole)


def _sized(x: Operands, function: Callable[..., Tensor], trial: Value) -> Value:
    """A call with the sizes that a trial has: fixed ones, and those that depend on the batch; also for a batch of 0."""
    if trial.on_host:
        return trial
    shape = sizes([list(example.shape) for example in trial.examples])
    return x.call(function, x[0], shape)


def _flatten(x: Operands) -> Value:
    axis = x.get("axis", 1)
    rows = []
    for example in x[0].examples:
        at = axis + example.dim() if axis < 0 else axis
        rows.append([math.prod(example.shape[:at]), math.prod(example.shape[at:])])
    return x.call(torch.reshape, x[0], sizes(rows))


def _squeeze(x: Operands) -> Value:
    axes = x.axes(1)
    if axes is None:
        axes = [axis for axis, size in enumerate(x[0].shape) if size == 1]
    return x.call(torch.squeeze, x[0], tuple(axes)) if axes else x[0]


def _unsqueeze(x: Operands) -> Value:
    axes: list[int] = x.axes(1) or []
    rank, found = x[0].rank + len(axes), x[0]
    for axis in sorted(axis % rank for axis in axes):
        found = x.call(torch.unsqueeze, found, axis)
    return found


def _transpose(x: Operands) -> Value:
    order = x.get("perm", list(range(x[0].rank))[::-1])
    return x.call(torch.permute, x[0], order)


def _concat(x: Operands) -> Value:
    return x.call(torch.cat, x.all(), x.get("axis", 0))


def _split(x: Operands) -> list[Value]:
    axis = x.get("axis", 0)
    if x.has(1):
        lengths = x.fixed(1)
    else:
        whole = x[0].shape[axis]
        if not isinstance(whole, int):
            raise UnsupportedError("Split of the batch")
        each = -(-whole // len(x.node.outputs))
        lengths = [min(each, whole - k * each) for k in range(len(x.node.outputs))]
    found: list[Value] = x.tracer.call(torch.split, x[0], lengths, axis)
    return found


def _slice(x: Operands) -> Value:
    starts, ends = x.sizes(1), x.sizes(2)
    axes = x.fixed(3) if x.has(3) else list(range(len(starts)))
    steps = x.fixed(4) if x.has(4) else [1] * len(starts)
    found = x[0]
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        whole = found.shape[axis]
        if isinstance(whole, int) and type(start) is int and type(end) is int:
            chosen = range(whole)[start:end:step]
            if step == 1:
                found = x.call(torch.narrow, found, axis, chosen.start if chosen else 0, len(chosen))
            else:
                index = x.tracer.host(torch.tensor(chosen, dtype=torch.int64))
                found = x.call(torch.index_select, found, axis, index)
        elif step < 1:
            raise UnsupportedError("Slice of the batch with a step below 1")
        else:
            found = x.call(_part, found, axis, start, end, step)
    return found


def _part(x: Tensor, axis: int, start: int, end: int, step: int) -> Tensor:
    return x[(slice(None),) * (axis % x.dim()) + (slice(start, end, step),)]


def _gather(x: Operands) -> Value:
    axis = x.get("axis", 0) % x[0].rank
    index, whole = x[1], x[0].shape[axis]
    constant = index.constant
    if constant is None and isinstance(whole, int):
        # An index that the network computes: one out of range would end a GPU's context.
        index = x.call(torch.clamp, index, -whole, whole - 1)
    elif constant is not None and isinstance(whole, int) and constant.numel():
        if not -whole <= int(constant.min()) <= int(constant.max()) < whole:
            raise UnsupportedError(f"Gather with an index outside 0..{whole - 1}")
        if not constant.dim():
            return x.call(torch.select, x[0], axis, int(constant))
    return x.call(_rows, x[0], axis, index)


def _rows(x: Tensor, axis: int, index: Tensor) -> Tensor:
    return x[(slice(None),) * axis + (index,)]


def _tile(x: Operands) -> Value:
    return x.call(torch.tile, x[0], x.sizes(1))


def _depth_to_space(x: Operands) -> Value:
    function = _blocks if x.want("mode", "DCR", "CRD") == "DCR" else F.pixel_shuffle
    return x.call(function, x[0], x.get("blocksize", 0))


def _blocks(x: Tensor, size: int) -> Tensor:
    n, c, h, w = x.shape
    x = x.reshape(n, size, size, c // size**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return x.reshape(n, c // size**2, h * size, w * size)


def _space_to_depth(x: Operands) -> Value:
    return x.call(_unblocks, x[0], x.get("blocksize", 0))


def _unblocks(x: Tensor, size: int) -> Tensor:
    n, c, h, w = x.shape
    x = x.reshape(n, c, h // size, size, w // size, size).permute(0, 3, 5, 1, 2, 4)
    return x.reshape(n, c * size**2, h // size, w // size)


LAYOUT: Mapping[str, Callable[[Operands], Any]] = {
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Range": _range,
    "Reshape": _reshape,
    "Shape": _shape,
    "Size": _size,
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
