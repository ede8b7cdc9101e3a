"""What each ONNX operator is in torch: functions that record it, and return a Value or a list of them.

What torch has no operation for is refused, with a reason. `windows` has convolutions, pools and resizing, `layout` what
moves values without computing new ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from cgnrt.backends.torch.layout import LAYOUT
from cgnrt.backends.torch.operands import TYPES, Operands, UnsupportedError
from cgnrt.backends.torch.tracer import Value
from cgnrt.backends.torch.windows import WINDOWS
from cgnrt.plan.onnx.wire import DATA_TYPES

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
    **LAYOUT,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Clip": _clip,
    "Div": _divide,
    "Dropout": _dropout,
    "Elu": lambda x: x.call(F.elu, x[0], x.get("alpha", 1.0)),
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
    "Selu": _selu,
    "Softmax": _softmax(torch.softmax),
    "Where": lambda x: x.call(torch.where, x[0], x[1], x[2]),
}
