"""One shape rule for each operator that plans may use: dimensions of the results from those of the operands.

The semantics are those of the ONNX operator specification, sets 13 to 24, where engines follow it alike; the rest is
refused. Elementwise and layout operators also carry small values along, because sizes are computed with them (Shape,
Gather, Mul, Concat, Reshape ...).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from cgnrt.errors import refuse, show
from cgnrt.plan.onnx.layers import LAYER_RULES
from cgnrt.plan.onnx.layout import LAYOUT_RULES
from cgnrt.plan.onnx.shapes import (
    MAX_VALUES,
    Info,
    Operands,
    Rule,
    Values,
    broadcast,
    is_small,
    resolve_axes,
    resolve_axis,
)
from cgnrt.plan.onnx.sizes import Linear, Shape, Size, count_elements, fixed
from cgnrt.plan.onnx.values import divide, elementwise, exactly, is_exact, known
from cgnrt.plan.onnx.windows import WINDOW_RULES
from cgnrt.plan.onnx.wire import DATA_TYPES


def _first(op: Operands) -> list[Info]:
    """The result is shaped like the first operand."""
    return [Info(op.dims(0))]


def _keep(op: Operands) -> list[Info]:
    return [Info(op[0].dims, op[0].values)]


def _along(default: int) -> Rule:
    """Shaped like the first operand, with an axis that it must have."""

    def rule(op: Operands) -> list[Info]:
        resolve_axis(op.integer("axis", default), len(op.dims(0, 1)))
        return _first(op)

    return rule


def _broadcast(op: Operands) -> list[Info]:
    return [Info(broadcast([info.dims for info in op.all()]))]


def _mod(op: Operands) -> list[Info]:
    if op.flag("fmod", False):
        return _broadcast(op)
    return elementwise(lambda a, b: a % b if b else None)(op)


def _to_float(value: Any) -> Any:
    return None if isinstance(value, Linear) else float(value)


def _to_int(value: Any) -> Any:
    return value if isinstance(value, Linear) else int(value)


def _to_bool(value: Any) -> Any:
    return None if isinstance(value, Linear) else bool(value)


def _cast(op: Operands) -> list[Info]:
    kind = op.integer("to", 0)
    if kind not in DATA_TYPES:
        raise refuse("attribute to", kind, "an element type that plans use")
    convert = {1: _to_float, 6: _to_int, 7: _to_int, 9: _to_bool}.get(kind)
    values = op[0].values
    if values is None or convert is None:
        return _first(op)
    if kind == 7 and all(type(value) is int or isinstance(value, Linear) for value in values.reshape(-1)):
        return _keep(op)  # as far as 64 bits: they mark the ends of slices
    return elementwise(convert, 1)(op)


def _mean_variance(op: Operands) -> list[Info]:
    axes = op.integers("axes")
    resolve_axes([0, 2, 3] if axes is None else axes, len(op.dims(0)))
    return _first(op)


def _clip(op: Operands) -> list[Info]:
    for index in (1, 2):
        if op.get(index) is not None:
            op.check_rank(index, 0)
    return _first(op)


def _cum_sum(op: Operands) -> list[Info]:
    dims, axis = op.dims(0, 1), op.number(1)
    if type(axis) is not int:
        raise refuse("axis", show(axis), "an integer")
    resolve_axis(axis, len(dims))  # OpenVINO 2026.4 reads other memory for one out of range
    return [Info(dims)]


def _trilu(op: Operands) -> list[Info]:
    if op.get(1) is not None and not is_exact(op.number(1)):
        raise refuse("k", show(op.number(1)), "an integer of 32 bits")
    return [Info(op.dims(0, 2))]


def _dropout(op: Operands) -> list[Info]:
    training = op.get(2)
    op.check_single(1, 2)
    if training is not None and (training.values is None or training.values.reshape(-1)[0] is not False):
        raise refuse("training_mode", "set", "an inference graph")
    return [Info(op.dims(0)), Info(op.dims(0))]


def _shape(op: Operands) -> list[Info]:
    dims = op[0].dims
    end = op.integer("end", len(dims))
    part = dims[op.integer("start", 0) : end]
    return [Info((len(part),), _vector(part))]


def _vector(values: Any) -> Values:
    """Values in one dimension."""
    found = np.empty(len(values), dtype=object)
    found[:] = values
    return found


def _size(op: Operands) -> list[Info]:
    return [Info((), _scalar(count_elements(op[0].dims)))]


def _scalar(value: Any) -> Values:
    found = np.empty((), dtype=object)
    found[()] = value
    return found


def _constant(op: Operands) -> list[Info]:
    attributes = op.node.attributes
    name, value = next(iter(attributes.items()), ("", 0))
    tensor = op.tensor("value") if name == "value" else None
    if len(attributes) != 1 or op.inputs:
        raise refuse("attributes", show(sorted(attributes)), "one, and no inputs")
    if tensor is not None:
        return [tensor]
    if name in ("value_int", "value_float") and isinstance(value, int | float):
        return [Info((), _scalar(value))]
    if name in ("value_ints", "value_floats") and isinstance(value, list):
        return [Info((len(value),), _vector(value))]
    raise refuse(
        f"attribute {name}", show(value), "value, value_int, value_ints, value_float or value_floats"
    )


def _constant_of_shape(op: Operands) -> list[Info]:
    dims = tuple(op.sizes(0))
    if not all(dim >= 0 for dim in dims):
        raise refuse("shape", show(list(dims)), "sizes >= 0")
    fill = op.tensor("value")
    value: Values | None = _vector([0.0]) if fill is None else fill.values
    if fill is not None and fill.dims != (1,):
        raise refuse("shape of value", show(list(fill.dims)), "[1]")
    small = value is not None and is_small(dims)
    return [
        Info(dims, np.broadcast_to(value.reshape(()), fixed(dims)) if small and value is not None else None)
    ]


def _range(op: Operands) -> list[Info]:
    start, limit, delta = (op.number(index) for index in range(3))
    if not all(
        is_exact(value) and (not isinstance(value, float) or value.is_integer())
        for value in (start, limit, delta)
    ):
        # Of other floats, engines could count one more or less.
        raise refuse("bounds", f"{start}, {limit}, {delta}", "integers of 32 bits")
    if isinstance(delta, Linear) or delta == 0:
        raise refuse("step", show(delta), "a number, not 0")
    count = _count(limit - start, delta)
    values = None
    if isinstance(count, int) and count <= MAX_VALUES:
        values = known(_vector([exactly(lambda a, k: a + k)(start, k * delta) for k in range(count)]))
    return [Info((count,), values)]


def _count(span: Any, delta: int | float) -> Size:
    """How many steps of `delta` begin within a span."""
    if not is_exact(span):
        raise refuse("bounds", f"{show(span)} apart", "within 32 bits")
    if isinstance(span, Linear):
        if not isinstance(delta, int) or not span >= 1 or delta < 0:
            raise refuse("bounds", f"{span} apart", "a positive distance and step")
        return Linear(span.slope, span.offset) // delta
    steps: int = math.ceil(span / delta)
    return max(steps, 0)


def _reduce(function: Callable[[list[Any]], Any] | None = None, floats: bool = False) -> Rule:
    """A reduction; `function` carries values where all axes go, `floats` too where order does not matter."""

    def rule(op: Operands) -> list[Info]:
        dims = op.dims(0)
        axes = _reduced(op, len(dims))
        if axes is None:
            return _keep(op)
        kept = op.flag("keepdims", True)
        shape: Shape = tuple(
            1 if index in axes else dim for index, dim in enumerate(dims) if kept or index not in axes
        )
        values = op[0].values
        if function is None or values is None or len(axes) != len(dims) or not values.size:
            return [Info(shape)]
        numbers = list(values.reshape(-1))
        if any(isinstance(value, float) for value in numbers) and not floats:
            return [Info(shape)]
        result = exactly(lambda *operands: function(list(operands)))(*numbers)
        return [Info(shape, None if result is None else _scalar(result).reshape((1,) * len(shape)))]

    return rule


def _reduced(op: Operands, rank: int) -> list[int] | None:
    """The axes that a reduction takes away; None if it does nothing."""
    given: list[int] | None = op.integers("axes")
    if given is not None and op.node.op in ("ReduceL1", "ReduceLogSum", "ReduceLogSumExp"):
        # OpenVINO 2026.4 reads none and reduces over all.
        raise refuse("operator set", op.opset, f">= 18 for {op.node.op} with axes")
    if given is None and op.get(1) is not None:
        given = op.whole_numbers(1)
    idle = op.flag("noop_with_empty_axes", False)
    if given:
        return resolve_axes(given, rank)
    if idle and given is not None:
        return None
    if idle or given is not None:
        raise refuse("axes", "empty", "one or more, or all without noop_with_empty_axes")
    return list(range(rank))


def _arg(op: Operands) -> list[Info]:
    dims = op.dims(0, 1)
    axis = resolve_axis(op.integer("axis", 0), len(dims))
    middle: Shape = (1,) if op.flag("keepdims", True) else ()
    return [Info(dims[:axis] + middle + dims[axis + 1 :])]


def _top_k(op: Operands) -> list[Info]:
    dims, wanted = op.dims(0, 1), op.sizes(1)
    axis = resolve_axis(op.integer("axis", -1), len(dims))
    if len(wanted) != 1 or not 1 <= wanted[0] <= dims[axis]:
        raise refuse("K", show(wanted), f"1..{dims[axis]}")
    shape = (*dims[:axis], wanted[0], *dims[axis + 1 :])
    return [Info(shape), Info(shape)]


def _one_hot(op: Operands) -> list[Info]:
    dims, depth = op.dims(0), op.number(1)
    axis = resolve_axis(op.integer("axis", -1), len(dims) + 1)
    op.check_vectors(2, 2)
    if type(depth) is not int or not 1 <= depth < 2**31:
        raise refuse("depth", show(depth), "an integer >= 1")
    return [Info((*dims[:axis], depth, *dims[axis:]))]


# The result is shaped like the first operand; of two operands broadcast; of reductions that carry no values.
_FIRST = """
    Acos Acosh Asin Asinh Atan Atanh Celu Cos Cosh Elu Erf Exp Gelu HardSigmoid HardSwish IsInf IsNaN LeakyRelu Log
    Mish Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt
    Swish Tan Tanh ThresholdedRelu
"""
_BROADCAST = "BitShift BitwiseAnd BitwiseOr BitwiseXor Mean Pow Xor"
_REDUCE = "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMean ReduceSumSquare"

RULES: Mapping[str, Rule] = {
    **dict.fromkeys(_FIRST.split(), _first),
    **dict.fromkeys(_BROADCAST.split(), _broadcast),
    **dict.fromkeys(_REDUCE.split(), _reduce()),
    **LAYER_RULES,
    **LAYOUT_RULES,
    **WINDOW_RULES,
    "Abs": elementwise(abs, 1),
    "Add": elementwise(lambda a, b: a + b),
    "And": elementwise(lambda a, b: bool(a and b)),
    "ArgMax": _arg,
    "ArgMin": _arg,
    "Cast": _cast,
    "CastLike": _first,
    "Clip": _clip,
    "CumSum": _cum_sum,
    "Ceil": elementwise(lambda a: float(math.ceil(a)), 1),
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Div": elementwise(divide),
    "Dropout": _dropout,
    "Equal": elementwise(lambda a, b: bool(a == b)),
    "Floor": elementwise(lambda a: float(math.floor(a)), 1),
    "Greater": elementwise(lambda a, b: bool(a > b)),
    "Hardmax": _along(-1),
    "LogSoftmax": _along(-1),
    "LpNormalization": _along(-1),
    "Softmax": _along(-1),
    "Trilu": _trilu,
    "GreaterOrEqual": elementwise(lambda a, b: bool(a >= b)),
    "Identity": _keep,
    "Less": elementwise(lambda a, b: bool(a < b)),
    "LessOrEqual": elementwise(lambda a, b: bool(a <= b)),
    "Max": elementwise(max),
    "Min": elementwise(min),
    "MeanVarianceNormalization": _mean_variance,
    "Mod": _mod,
    "Mul": elementwise(lambda a, b: a * b),
    "Neg": elementwise(lambda a: -a, 1),
    "Not": elementwise(lambda a: not a, 1),
    "OneHot": _one_hot,
    "Or": elementwise(lambda a, b: bool(a or b)),
    "Range": _range,
    "ReduceMax": _reduce(max, floats=True),
    "ReduceMin": _reduce(min, floats=True),
    "ReduceProd": _reduce(math.prod),
    "ReduceSum": _reduce(sum),
    "Shape": _shape,
    "Size": _size,
    "Sub": elementwise(lambda a, b: a - b),
    "Sum": elementwise(lambda a, b: a + b),
    "TopK": _top_k,
    "Where": elementwise(lambda condition, a, b: a if condition else b, 3),
}
