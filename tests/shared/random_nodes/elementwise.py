"""Random nodes of operators that go element by element."""

from __future__ import annotations

from typing import Any

import numpy as np

from random_nodes.draws import Case, Draw, f32, generates, i64

_ONE = """
    Abs Acos Acosh Asin Asinh Atan Atanh Ceil Celu Cos Cosh Elu Erf Exp Floor Gelu HardSigmoid HardSwish Identity
    IsInf IsNaN LeakyRelu Log Mish Neg Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign
    Sqrt Swish Tan Tanh ThresholdedRelu Size
"""


@generates(*_ONE.split())
def _one(draw: Draw, op: str) -> Case:
    extra = {"alpha": 0.5} if draw.chance(0.1) else {"axis": 0} if draw.chance(0.05) else {}
    inputs: list[Any] = [draw.any(0 if draw.chance(0.1) else 1, 5)]
    if draw.chance(0.03):
        inputs.append(draw.any())
    if draw.chance(0.3):
        draw.batched = False
        values = [draw.random.choice((-2.5, -1, 0, 0.5, 1, 3, 7.25, 300, 1e9)) for _ in range(3)]
        inputs = [f32(values) if draw.chance(0.6) else i64([int(v) for v in values])]
    draw.opset = max(
        draw.opset, {"Gelu": 20, "Swish": 24, "Mish": 18}.get(op, 13) if draw.chance(0.9) else 13
    )
    return Case(op, inputs, attributes=dict(extra))


@generates("MeanVarianceNormalization")
def _mean_variance(draw: Draw, op: str) -> Case:
    data = draw.any(2, 5)
    return Case(op, [data], attributes={"axes": draw.maybe(draw.axes(len(data.shape)))})


@generates("Not")
def _not(draw: Draw, op: str) -> Case:
    return Case(op, [np.array([True, False])])


@generates(
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Pow",
    "PRelu",
    "Equal",
    "Less",
    "LessOrEqual",
    "Greater",
    "GreaterOrEqual",
    "Mod",
)
def _two(draw: Draw, op: str) -> Case:
    attributes = {"fmod": draw.flag()} if op == "Mod" else {}
    if draw.chance(0.5):
        dims = draw.dims(0, 3)
        kind = draw.random.choice((np.int64, np.int32, np.float32))
        pool = [-7, -1, 1, 2, 3, 8, 100, 2**15, 2**16, 2**30, 2**31 - 1] + [2**31, 2**40, -(2**33)] * (
            kind is np.int64
        )
        if kind is np.float32:
            pool = [-2.5, -1, 0.1, 0.5, 1, 2, 3, 7, 224, 257, 1.7, 1e9]
        arrays = [
            np.array(draw.random.choices(pool, k=int(np.prod(d))), kind).reshape(d)
            for d in (dims, draw.like(dims))
        ]
        return Case(op, arrays if draw.chance(0.5) else arrays[::-1], attributes=attributes)
    data = draw.any(1, 4)
    other = draw.like(data.shape)
    second: Any = (
        draw.data(*other) if len(other) == len(data.shape) and draw.chance(0.5) else f32(np.ones(other))
    )
    return Case(op, [data, second], attributes=attributes)


@generates("And", "Or", "Xor")
def _logic(draw: Draw, op: str) -> Case:
    dims = draw.dims(0, 3)
    return Case(
        op,
        [
            np.array(draw.random.choices((True, False), k=int(np.prod(d)))).reshape(d)
            for d in (dims, draw.like(dims))
        ],
    )


@generates("BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor")
def _bits(draw: Draw, op: str) -> Case:
    dims = draw.dims(1, 3)
    return Case(
        op,
        [np.ones(dims, np.uint8), np.ones(draw.like(dims), np.uint8)],
        attributes={"direction": "LEFT"} if op == "BitShift" else {},
    )


@generates("Max", "Min", "Sum", "Mean")
def _many(draw: Draw, op: str) -> Case:
    count = draw.random.randint(1, 4)
    if draw.chance(0.4) and op != "Mean":
        return Case(op, [f32(draw.random.choices((-2.5, 1, 2, 3, 7, 257, 0.1), k=2)) for _ in range(count)])
    data = draw.any(1, 3)
    return Case(op, [data, *(f32(np.ones(draw.like(data.shape))) for _ in range(count - 1))])


@generates("Where")
def _where(draw: Draw, op: str) -> Case:
    dims = draw.dims(1, 3)
    if draw.chance(0.5):
        pool = (1, 2, -1, 2**31, 2**33)
        arrays = [
            i64(draw.random.choices(pool, k=int(np.prod(d)))).reshape(d)
            for d in (draw.like(dims), draw.like(dims))
        ]
        return Case(
            op, [np.array(draw.random.choices((True, False), k=int(np.prod(dims)))).reshape(dims), *arrays]
        )
    return Case(op, [np.ones(draw.like(dims), bool), draw.data(*dims), f32(np.ones(draw.like(dims)))])


@generates("Clip")
def _clip(draw: Draw, op: str) -> Case:
    bounds: list[Any] = [f32(v) if draw.chance(0.8) else f32(np.full(draw.dims(1, 2), v)) for v in (0.0, 1.0)]
    return Case(op, [draw.any(), *(draw.maybe(b, 0.8) for b in bounds)][: draw.random.randint(1, 3)])


@generates("Cast", "CastLike")
def _cast(draw: Draw, op: str) -> Case:
    values = draw.random.choice(
        (
            f32([1.9, -1.9, 0]),
            f32([1e10, 3, 0]),
            i64([300, -1, 0]),
            i64([2**31, 2**40]),
            np.array([True, False]),
            f32([257, 0.5]),
        )
    )
    if op == "CastLike":
        return Case(op, [draw.any(), np.zeros(draw.dims(0, 2), draw.random.choice((np.int64, np.float32)))])
    source: Any = values if draw.chance(0.7) else draw.any()
    return Case(
        op, [source], attributes={"to": draw.random.choice((1, 6, 7, 9, 10, 11, 2, 3, 1, 7, 7, 0, 8, 99))}
    )


@generates("Softmax", "LogSoftmax", "Hardmax", "LpNormalization")
def _along(draw: Draw, op: str) -> Case:
    data = draw.any()
    return Case(op, [data], attributes={"axis": draw.maybe(draw.axis(len(data.shape)), 0.8)})


@generates("CumSum")
def _cum_sum(draw: Draw, op: str) -> Case:
    data = draw.any()
    axis = draw.axis(len(data.shape))
    return Case(
        op,
        [data, i64(axis) if draw.chance(0.5) else i64([axis])],
        attributes={"exclusive": draw.flag(), "reverse": draw.flag()},
    )


@generates("Trilu")
def _trilu(draw: Draw, op: str) -> Case:
    return Case(
        op,
        [draw.any(1, 4), *([i64(draw.number(-3, 3))] if draw.chance(0.5) else [])],
        attributes={"upper": draw.flag()},
    )


@generates("Dropout")
def _dropout(draw: Draw, op: str) -> Case:
    extra = [draw.maybe(f32(0.5)), draw.maybe(np.array(draw.chance(0.2)))][: draw.random.randint(0, 2)]
    return Case(op, [draw.any(), *extra], outputs=draw.random.randint(1, 2))
