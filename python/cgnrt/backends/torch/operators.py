"""What each ONNX operator is in torch: functions that record it, and return a Value or a list of them.

What torch has no operation for is refused, with a reason. `windows` has convolutions, pools and resizing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from cgnrt.backends.torch.operands import TYPES, Operands, UnsupportedError
from cgnrt.backends.torch.tracer import META, Value, sizes
from cgnrt.backends.torch.windows import WINDOWS
from cgnrt.plan.onnx.wire import DATA_TYPES
from cgnrt.plan.onnx.wire import Tensor as OnnxTensor

Operator = Callable[[Operands], Any]


# Element by element.


def _unary(function: Callable[..., Tensor]) -> Operator:
    return lambda x: x.call(function, x[0])


def _several(function: Callable[..., Tensor]) -> Operator:
    """Of two operands or more, from the left."""

    def operator(x: Operands) -> Value:
        found, *others = x.all()
        for other in others:
            found = x.call(function, found, other)
        return found

    return operator


def _divide(x: Operands) -> Value:
    if x[0].dtype.is_floating_point:
        return x.call(torch.div, x[0], x[1])
    return x.call(torch.div, x[0], x[1], rounding_mode="trunc")


def _power(x: Operands) -> Value:
    return x.call(Tensor.to, x.call(torch.pow, x[0], x[1]), x[0].dtype)


def _mod(x: Operands) -> Value:
    return x.call(torch.fmod if x.want("fmod", 0, 1) else torch.remainder, x[0], x[1])


def _clip(x: Operands) -> Value:
    low, high = (x.numbers(k) if x.has(k) else None for k in (1, 2))
    if low is None and high is None:
        return x[0]
    return x.call(torch.clamp, x[0], low, high)


def _prelu(x: Operands) -> Value:
    return x.call(torch.where, x.call(torch.lt, x[0], 0), x.call(torch.mul, x[0], x[1]), x[0])


def _hard_sigmoid(x: Operands) -> Value:
    scaled = x.call(torch.mul, x[0], x.get("alpha", 0.2))
    return x.call(torch.clamp, x.call(torch.add, scaled, x.get("beta", 0.5)), 0, 1)


def _selu(x: Operands) -> Value:
    alpha, gamma = x.get("alpha", 1.67326319217681884765625), x.get("gamma", 1.05070102214813232421875)
    return x.call(torch.mul, x.call(F.elu, x[0], alpha), gamma)


def _cast(x: Operands) -> Value:
    kind = DATA_TYPES.get(x.get("to", 0))
    if kind is None:
        raise UnsupportedError(f"Cast to type {x.get('to', 0)}")
    return x.call(Tensor.to, x[0], TYPES[kind.name])


def _dropout(x: Operands) -> Value:
    if len(x.node.outputs) > 1:
        raise UnsupportedError("Dropout with a mask")
    return x[0]


# Products and reductions.


def _gemm(x: Operands) -> Value:
    a = x.call(torch.t, x[0]) if x.get("transA", 0) else x[0]
    alpha, beta, third = x.get("alpha", 1.0), x.get("beta", 1.0), x.optional(2)
    if x.get("transB", 0) and alpha == 1 and (third is None or (beta == 1 and third.rank == 1)):
        return x.call(F.linear, a, x[1], third)
    b = x.call(torch.t, x[1]) if x.get("transB", 0) else x[1]
    product = x.call(torch.matmul, a, b)
    if alpha != 1:
        product = x.call(torch.mul, product, alpha)
    return product if third is None else x.call(torch.add, product, third, alpha=beta)


def _reduction(function: Callable[..., Tensor]) -> Operator:
    def operator(x: Operands) -> Value:
        axes = x.axes(1)
        if not axes:
            if x.get("noop_with_empty_axes", 0):
                return x[0]
            axes = list(range(x[0].rank))
        return x.call(function, x[0], axes, keepdim=bool(x.get("keepdims", 1)))

    return operator


def _l2(x: Tensor, axes: list[int], *, keepdim: bool) -> Tensor:
    return x.square().sum(axes, keepdim=keepdim).sqrt()


def _l1(x: Tensor, axes: list[int], *, keepdim: bool) -> Tensor:
    return x.abs().sum(axes, keepdim=keepdim)


def _sum_square(x: Tensor, axes: list[int], *, keepdim: bool) -> Tensor:
    return x.square().sum(axes, keepdim=keepdim)


def _product(x: Tensor, axes: list[int], *, keepdim: bool) -> Tensor:
    for axis in sorted((axis % x.dim() for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=keepdim)
    return x


def _softmax(function: Callable[..., Tensor]) -> Operator:
    return lambda x: x.call(function, x[0], x.get("axis", -1))


# Normalisations.


def _batch_norm(x: Operands) -> Value:
    x.want("training_mode", 0)
    scale, shift, mean, variance = (x[k] for k in range(1, 5))
    return x.call(F.batch_norm, x[0], mean, variance, scale, shift, eps=x.get("epsilon", 1e-5))


def _instance_norm(x: Operands) -> Value:
    # A group for each channel: torch's own instance_norm makes pictures contiguous first.
    return x.call(torch.group_norm, x[0], x[0].shape[1], x[1], x[2], x.get("epsilon", 1e-5))


def _group_norm(x: Operands) -> Value:
    groups, scale, shift = x.get("num_groups", 0), x[1], x[2]
    if x.opset < 21:  # one number for each group
        each = int(x[0].shape[1]) // groups
        scale, shift = (x.call(torch.repeat_interleave, vector, each) for vector in (scale, shift))
    return x.call(torch.group_norm, x[0], groups, scale, shift, x.get("epsilon", 1e-5))


def _layer_norm(x: Operands) -> Value:
    if len(x.node.outputs) > 1:
        raise UnsupportedError("LayerNormalization with its statistics")
    shape = list(x[0].shape[x.get("axis", -1) :])
    return x.call(torch.layer_norm, x[0], shape, x[1], x.optional(2), x.get("epsilon", 1e-5))


# Layout.


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
    """A call with the sizes that a trial has: whole numbers, and such as hang on the batch; also for a batch of 0."""
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


_UNARY: dict[str, Callable[..., Tensor]] = {
    "Abs": torch.abs,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "HardSwish": F.hardswish,
    "IsNaN": torch.isnan,
    "Log": torch.log,
    "Mish": F.mish,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Reciprocal": torch.reciprocal,
    "Relu": torch.relu,
    "Round": torch.round,  # ties to even, as ONNX has it
    "Sigmoid": torch.sigmoid,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Softplus": F.softplus,
    "Softsign": F.softsign,
    "Sqrt": torch.sqrt,
    "Tanh": torch.tanh,
}
_SEVERAL: dict[str, Callable[..., Tensor]] = {
    "Add": torch.add,
    "And": torch.logical_and,
    "Equal": torch.eq,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "MatMul": torch.matmul,
    "Max": torch.maximum,
    "Min": torch.minimum,
    "Mul": torch.mul,
    "Or": torch.logical_or,
    "Sub": torch.sub,
    "Sum": torch.add,
    "Xor": torch.logical_xor,
}
_REDUCTIONS: dict[str, Callable[..., Tensor]] = {
    "ReduceL1": _l1,
    "ReduceL2": _l2,
    "ReduceLogSumExp": torch.logsumexp,
    "ReduceMax": torch.amax,
    "ReduceMean": torch.mean,
    "ReduceMin": torch.amin,
    "ReduceProd": _product,
    "ReduceSum": torch.sum,
    "ReduceSumSquare": _sum_square,
}
OPERATORS: Mapping[str, Operator] = {
    **{name: _unary(function) for name, function in _UNARY.items()},
    **{name: _several(function) for name, function in _SEVERAL.items()},
    **{name: _reduction(function) for name, function in _REDUCTIONS.items()},
    **WINDOWS,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "DepthToSpace": _depth_to_space,
    "Div": _divide,
    "Dropout": _dropout,
    "Elu": lambda x: x.call(F.elu, x[0], x.get("alpha", 1.0)),
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gelu": lambda x: x.call(F.gelu, x[0], approximate=x.want("approximate", "none", "tanh")),
    "Gemm": _gemm,
    "GroupNormalization": _group_norm,
    "HardSigmoid": _hard_sigmoid,
    "Identity": lambda x: x[0],
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "LeakyRelu": lambda x: x.call(F.leaky_relu, x[0], x.get("alpha", 0.01)),
    "LogSoftmax": _softmax(torch.log_softmax),
    "Mod": _mod,
    "PRelu": _prelu,
    "Pow": _power,
    "Range": _range,
    "Reshape": _reshape,
    "Selu": _selu,
    "Shape": _shape,
    "Size": _size,
    "Slice": _slice,
    "Softmax": _softmax(torch.softmax),
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": lambda x: x.call(torch.where, x[0], x[1], x[2]),
}
