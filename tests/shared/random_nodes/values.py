"""Random nodes of operators that make or reduce values."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import numpy_helper

from random_nodes.draws import Case, Draw, f32, generates, i64


@generates("Shape")
def _shape(draw: Draw, op: str) -> Case:
    data = draw.any(0 if draw.chance(0.05) else 1, 4)
    bounds = {name: draw.maybe(draw.random.randint(-6, 6)) for name in ("start", "end")}
    return Case(op, [data], attributes=bounds if draw.chance(0.7) else {})


@generates("ConstantOfShape")
def _constant_of_shape(draw: Draw, op: str) -> Case:
    value = draw.random.choice((None, i64([3]), f32([2.5]), i64([1, 2]), i64(4), np.array([True])))
    shape = draw.numbers(draw.random.randint(0, 3), 1, 4)
    return Case(
        op, [i64(shape)], attributes={"value": None if value is None else numpy_helper.from_array(value)}
    )


@generates("Constant")
def _constant(draw: Draw, op: str) -> Case:
    values = {
        "value_int": 3,
        "value_ints": [3, 4],
        "value_float": 2.5,
        "value_floats": [2.5, 1.0],
        "value": numpy_helper.from_array(i64([7, 8])),
    }
    names = draw.random.sample(sorted(values), 1 if draw.chance(0.9) else 2)
    return Case(op, [], attributes={name: values[name] for name in names})


@generates("Range")
def _range(draw: Draw, op: str) -> Case:
    kind = draw.random.choice((np.int64, np.int32, np.float32))
    pool = (
        [-7, -2, 0, 1, 3, 10, 40]
        + [2**31 - 1, -(2**31) + 1] * (kind is not np.float32)
        + [2**40, 2**62] * (kind is np.int64)
        + [0.5, -0.1, 2.5, 1e9] * (kind is np.float32)
    )
    start, limit = (draw.random.choice(pool) for _ in range(2))
    delta = draw.random.choice((1, 2, 3, -1, -4, *((0, 2**30, 0.1) if draw.chance(0.2) else ())))
    shape = () if draw.chance(0.9) else (1,)
    return Case(op, [np.array(value).astype(kind).reshape(shape) for value in (start, limit, delta)])


@generates(
    *(
        f"Reduce{kind}"
        for kind in ["L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"]
    )
)
def _reduce(draw: Draw, op: str) -> Case:
    data: Any = draw.any(0 if draw.chance(0.05) else 1, 4)
    axes = draw.axes(len(data.shape))
    attributes: dict[str, Any] = {
        "keepdims": draw.flag(),
        "noop_with_empty_axes": draw.maybe(draw.flag(), 0.2),
    }
    if draw.chance(0.2):
        data = i64(draw.random.choices((1, 2, -3, 2**15, 2**31), k=int(np.prod(data.shape)))).reshape(
            data.shape
        )
    if (draw.opset < 18 and op != "ReduceSum") != draw.chance(0.05):
        attributes["axes"] = draw.maybe(axes, 0.8)
        return Case(op, [data], attributes=attributes)
    return Case(op, [data, *([i64(axes)] if draw.chance(0.8) else [])], attributes=attributes)


@generates("ArgMax", "ArgMin")
def _arg(draw: Draw, op: str) -> Case:
    data = draw.any()
    return Case(
        op,
        [data],
        attributes={
            "axis": draw.maybe(draw.axis(len(data.shape)), 0.8),
            "keepdims": draw.flag(),
            "select_last_index": draw.maybe(draw.flag(), 0.2),
        },
    )


@generates("TopK")
def _top_k(draw: Draw, op: str) -> Case:
    data = draw.any()
    axis = draw.axis(len(data.shape))
    k = draw.number(1, data.shape[axis % len(data.shape)])
    return Case(
        op,
        [data, i64([k]) if draw.chance(0.9) else i64(k)],
        outputs=2,
        attributes={"axis": draw.maybe(axis, 0.9)},
    )


@generates("OneHot")
def _one_hot(draw: Draw, op: str) -> Case:
    dims = draw.dims(0, 3)
    depth = min(draw.number(1, 5), 64)
    return Case(
        op,
        [
            np.zeros(dims, np.int64),
            i64(depth) if draw.chance(0.5) else i64([depth]),
            f32([0, 1] if draw.chance(0.95) else [0, 1, 2]),
        ],
        attributes={"axis": draw.maybe(draw.axis(len(dims) + 1), 0.8)},
    )
