"""One shape rule for each operator that plans may use: dimensions of the results from those of the operands.

The semantics are those of the ONNX operator specification, sets 13 to 24. Elementwise and layout operators
also carry small values along, because sizes are computed with them (Shape, Gather, Mul, Concat, Reshape ...).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from cgnrt.errors import refuse, show
from cgnrt.plan.onnx.shapes import (
    LAYOUT_RULES,
    MAX_VALUES,
    Info,
    Operands,
    Rule,
    Values,
    broadcast,
    elements,
    resolve_axes,
    resolve_axis,
)
from cgnrt.plan.onnx.windows import WINDOW_RULES
from cgnrt.plan.onnx.wire import DATA_TYPES


def _first(op: Operands) -> list[Info]:
    """The result is shaped like the first operand."""
    return [Info(op.dims(0))]


def _keep(op: Operands) -> list[Info]:
    return [Info(op[0].dims, op[0].values)]


def _map(function: Callable[..., Any], arity: int = 2) -> Rule:
    """An elementwise operator that carries values; those of any number of operands go two by two."""

    def rule(op: Operands) -> list[Info]:
        operands = op.all()
        dims = broadcast([info.dims for info in operands])
        values: Values | None = None
        if elements(dims) <= MAX_VALUES and all(info.values is not None for info in operands):
            apply = np.frompyfunc(_exactly(function), arity, 1)
            found: Any = [info.values for info in operands]
            found = apply(*found) if arity != 2 else functools.reduce(apply, found)
            values = _known(np.array(found, dtype=object).reshape(dims))
        return [Info(dims, values)]

    return rule


def _exactly(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` with None (unknown) where an engine could come to another number than Python does.

    A size that is small here and large there is what a hostile graph would look for. Integers stay within 32
    bits, so that neither int32 nor int64 wraps around; floats are rounded to float32 after each step, as an
    engine does, which double precision makes exact; nothing is calculated with infinity or NaN.
    """

    def guarded(*operands: Any) -> Any:
        for value in operands:
            if value is None or (isinstance(value, float) and not math.isfinite(value)):
                return None
        result = function(*operands)
        if isinstance(result, float):
            return float(np.float32(result)) if abs(result) < _FLOAT32_MAX else None
        if type(result) is int and not -(2**31) <= result < 2**31:
            return None
        return result

    return guarded


_FLOAT32_MAX = 3.4e38


def _known(values: Values) -> Values | None:
    return None if any(value is None for value in values.reshape(-1)) else values


def _broadcast(op: Operands) -> list[Info]:
    return [Info(broadcast([info.dims for info in op.all()]))]


def _divide(a: Any, b: Any) -> Any:
    if b == 0:
        return None
    if isinstance(a, float) or isinstance(b, float):
        return a / b
    # Engines disagree on which way negative quotients are rounded.
    return a // b if a % b == 0 or (a < 0) == (b < 0) else None


def _mod(op: Operands) -> list[Info]:
    if op.integer("fmod", 0):
        return _broadcast(op)
    return _map(lambda a, b: a % b if b else None)(op)


def _cast(op: Operands) -> list[Info]:
    kind = op.integer("to", 0)
    if kind not in DATA_TYPES:
        raise refuse("attribute to", kind, "an element type that plans use")
    convert = {1: float, 6: int, 7: int, 9: bool}.get(kind)
    values = op[0].values
    if values is None or convert is None:
        return _first(op)
    if kind == 7 and all(type(value) is int for value in values.reshape(-1)):
        return _keep(op)  # as far as 64 bits: they mark the ends of slices
    return _map(convert, 1)(op)


def _dropout(op: Operands) -> list[Info]:
    training = op.get(2)
    if training is not None and (training.values is None or bool(training.values.reshape(-1)[0])):
        raise refuse("training_mode", "set", "an inference graph")
    return [Info(op.dims(0)), Info(op.dims(0))]


def _batch_normalization(op: Operands) -> list[Info]:
    if op.integer("training_mode", 0):
        raise refuse("training_mode", "set", "an inference graph")
    return _first(op)


def _matmul(op: Operands) -> list[Info]:
    a, b = op.dims(0, 1), op.dims(1, 1)
    left = a if len(a) > 1 else (1, *a)
    right = b if len(b) > 1 else (*b, 1)
    if left[-1] != right[-2]:
        raise refuse("shapes", f"{list(a)} and {list(b)}", "equal inner dimensions")
    dims = list(broadcast([left[:-2], right[:-2]])) if len(left) > 2 or len(right) > 2 else []
    if len(a) > 1:
        dims.append(left[-2])
    if len(b) > 1:
        dims.append(right[-1])
    return [Info(tuple(dims))]


def _gemm(op: Operands) -> list[Info]:
    a, b = op.dims(0), op.dims(1)
    if len(a) != 2 or len(b) != 2:
        raise refuse("shapes", f"{list(a)} and {list(b)}", "two matrices")
    rows, inner = a[::-1] if op.integer("transA", 0) else a
    inner_b, columns = b[::-1] if op.integer("transB", 0) else b
    if inner != inner_b:
        raise refuse("shapes", f"{list(a)} and {list(b)}", "equal inner dimensions")
    bias = op.get(2)
    if bias is not None and broadcast([bias.dims, (rows, columns)]) != (rows, columns):
        raise refuse("shape of C", list(bias.dims), f"one that broadcasts to {[rows, columns]}")
    return [Info((rows, columns))]


def _einsum(op: Operands) -> list[Info]:
    equation = op.text("equation", "").replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    sizes: dict[str, int] = {}
    operands = op.all()
    if not arrow or not equation.replace(",", "").replace("->", "").isalpha() or len(terms) != len(operands):
        raise refuse("equation", show(equation), "letters, one term an input, and ->")
    for term, info in zip(terms, operands, strict=True):
        if len(term) != len(info.dims):
            raise refuse("equation", show(equation), f"{len(info.dims)} letters for {list(info.dims)}")
        for letter, dim in zip(term, info.dims, strict=True):
            if sizes.setdefault(letter, dim) != dim:
                raise refuse(f"size of {letter!r}", dim, str(sizes[letter]))
    if not set(right) <= set(sizes):
        raise refuse("equation", show(equation), "output letters that the inputs have")
    return [Info(tuple(sizes[letter] for letter in right))]


def _shape(op: Operands) -> list[Info]:
    dims = op[0].dims
    end = op.integer("end", len(dims))
    part = dims[op.integer("start", 0) : end]
    return [Info((len(part),), np.array(part, dtype=object).reshape(len(part)))]


def _size(op: Operands) -> list[Info]:
    return [Info((), np.array(elements(op[0].dims), dtype=object))]


def _constant(op: Operands) -> list[Info]:
    attributes = op.node.attributes
    name, value = next(iter(attributes.items()), ("", 0))
    tensor = op.tensor("value") if name == "value" else None
    if len(attributes) != 1 or op.inputs:
        raise refuse("attributes", show(sorted(attributes)), "one, and no inputs")
    if tensor is not None:
        return [tensor]
    if name in ("value_int", "value_float") and isinstance(value, int | float):
        return [Info((), np.array(value, dtype=object))]
    if name in ("value_ints", "value_floats") and isinstance(value, list):
        return [Info((len(value),), np.array(value, dtype=object))]
    raise refuse(
        f"attribute {name}", show(value), "value, value_int, value_ints, value_float or value_floats"
    )


def _constant_of_shape(op: Operands) -> list[Info]:
    dims = tuple(op.sizes(0))
    if min(dims, default=0) < 0:
        raise refuse("shape", show(list(dims)), "sizes >= 0")
    fill = op.tensor("value")
    value: Values | None = np.array([0.0], dtype=object) if fill is None else fill.values
    if fill is not None and elements(fill.dims) != 1:
        raise refuse("shape of value", list(fill.dims), "one element")
    small = value is not None and elements(dims) <= MAX_VALUES
    return [Info(dims, np.broadcast_to(value.reshape(()), dims) if small and value is not None else None)]


def _range(op: Operands) -> list[Info]:
    (start,), (limit,), (delta,) = (op.numbers(index) for index in range(3))
    for value in (start, limit, delta):
        # Of other floats, engines could count one more or less.
        if isinstance(value, float) and (not value.is_integer() or abs(value) >= 1 << 24):
            raise refuse("bounds", f"{start}, {limit}, {delta}", "integers")
    count = max(math.ceil((limit - start) / delta), 0)
    values = [start + index * delta for index in range(count)] if count <= MAX_VALUES else None
    return [Info((count,), np.array(values, dtype=object) if values is not None else None)]


def _reduce(function: Callable[[list[Any]], Any] | None = None, floats: bool = False) -> Rule:
    """A reduction; `function` carries values where all axes go, `floats` too where order does not matter."""

    def rule(op: Operands) -> list[Info]:
        dims = op.dims(0)
        axes = resolve_axes(op, 1, len(dims))
        if not axes:
            if op.integer("noop_with_empty_axes", 0):
                return _keep(op)
            axes = list(range(len(dims)))
        kept = op.integer("keepdims", 1)
        shape = tuple(
            1 if index in axes else dim for index, dim in enumerate(dims) if kept or index not in axes
        )
        values = op[0].values
        if function is None or values is None or len(axes) != len(dims) or not values.size:
            return [Info(shape)]
        numbers = list(values.reshape(-1))
        if any(isinstance(value, float) for value in numbers) and not floats:
            return [Info(shape)]
        result = _exactly(lambda *operands: function(list(operands)))(*numbers)
        return [Info(shape, _known(np.array(result, dtype=object).reshape(shape)))]

    return rule


def _arg(op: Operands) -> list[Info]:
    dims = op.dims(0, 1)
    axis = resolve_axis(op.integer("axis", 0), len(dims))
    middle = (1,) if op.integer("keepdims", 1) else ()
    return [Info(dims[:axis] + middle + dims[axis + 1 :])]


def _top_k(op: Operands) -> list[Info]:
    dims, (count,) = op.dims(0, 1), op.sizes(1)
    axis = resolve_axis(op.integer("axis", -1), len(dims))
    if not 0 <= count <= dims[axis]:
        raise refuse("K", count, f"0..{dims[axis]}")
    shape = (*dims[:axis], count, *dims[axis + 1 :])
    return [Info(shape), Info(shape)]


def _one_hot(op: Operands) -> list[Info]:
    dims, (depth,) = op.dims(0), op.sizes(1)
    axis = resolve_axis(op.integer("axis", -1), len(dims) + 1)
    return [Info((*dims[:axis], depth, *dims[axis:]))]


# The result is shaped like the first operand; of two operands broadcast; of reductions that carry no values.
_FIRST = """
    Acos Acosh Asin Asinh Atan Atanh Celu Clip Cos Cosh CumSum DequantizeLinear Elu Erf Exp Gelu
    GroupNormalization HardSigmoid HardSwish Hardmax InstanceNormalization IsInf IsNaN LRN LayerNormalization
    LeakyRelu Log LogSoftmax LpNormalization MeanVarianceNormalization Mish QuantizeLinear RMSNormalization
    Reciprocal Relu Round ScatterElements ScatterND Selu Shrink Sigmoid Sign Sin Sinh Softmax Softplus
    Softsign Sqrt Swish Tan Tanh ThresholdedRelu Trilu
"""
_BROADCAST = "BitShift BitwiseAnd BitwiseOr BitwiseXor Mean PRelu Pow Xor"
_REDUCE = "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMean ReduceSumSquare"

RULES: Mapping[str, Rule] = {
    **dict.fromkeys(_FIRST.split(), _first),
    **dict.fromkeys(_BROADCAST.split(), _broadcast),
    **dict.fromkeys(_REDUCE.split(), _reduce()),
    **LAYOUT_RULES,
    **WINDOW_RULES,
    "Abs": _map(abs, 1),
    "Add": _map(lambda a, b: a + b),
    "And": _map(lambda a, b: bool(a and b)),
    "ArgMax": _arg,
    "ArgMin": _arg,
    "BatchNormalization": _batch_normalization,
    "Cast": _cast,
    "CastLike": _first,
    "Ceil": _map(lambda a: float(math.ceil(a)), 1),
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Div": _map(_divide),
    "Dropout": _dropout,
    "Einsum": _einsum,
    "Equal": _map(lambda a, b: bool(a == b)),
    "Floor": _map(lambda a: float(math.floor(a)), 1),
    "Gemm": _gemm,
    "Greater": _map(lambda a, b: bool(a > b)),
    "GreaterOrEqual": _map(lambda a, b: bool(a >= b)),
    "Identity": _keep,
    "Less": _map(lambda a, b: bool(a < b)),
    "LessOrEqual": _map(lambda a, b: bool(a <= b)),
    "MatMul": _matmul,
    "Max": _map(max),
    "Min": _map(min),
    "Mod": _mod,
    "Mul": _map(lambda a, b: a * b),
    "Neg": _map(lambda a: -a, 1),
    "Not": _map(lambda a: not a, 1),
    "OneHot": _one_hot,
    "Or": _map(lambda a, b: bool(a or b)),
    "Range": _range,
    "ReduceMax": _reduce(max, floats=True),
    "ReduceMin": _reduce(min, floats=True),
    "ReduceProd": _reduce(math.prod),
    "ReduceSum": _reduce(sum),
    "Shape": _shape,
    "Size": _size,
    "Sub": _map(lambda a, b: a - b),
    "Sum": _map(lambda a, b: a + b),
    "TopK": _top_k,
    "Where": _map(lambda condition, a, b: a if condition else b, 3),
}
