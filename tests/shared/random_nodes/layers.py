"""Random nodes of operators with parameters: products, normalizations, quantization."""

from __future__ import annotations

from typing import Any

import numpy as np

from random_nodes.draws import Case, Data, Draw, f32, generates


@generates("BatchNormalization", "InstanceNormalization")
def _norm(draw: Draw, op: str) -> Case:
    data = draw.any(2, 4)
    channels = data.shape[1] if draw.chance(0.9) else draw.random.randint(1, 6)
    shape = (channels,) if draw.chance(0.9) else draw.dims(0, 2)
    return Case(op, [data, *[f32(np.ones(shape))] * (4 if op[0] == "B" else 2)], attributes={"epsilon": 1e-3})


@generates("GroupNormalization")
def _group_norm(draw: Draw, op: str) -> Case:
    draw.opset = draw.random.choice((18, 21, 22))
    groups = draw.random.choice((1, 2, 3))
    data = draw.data(draw.random.randint(1, 3), groups * draw.random.randint(1, 2), *draw.dims(1, 2))
    count = draw.random.choice((groups, data.shape[1], data.shape[1], 5))
    return Case(
        op,
        [data, *[f32(np.ones(count))] * 2],
        attributes={"num_groups": draw.number(1, 3) if draw.chance(0.2) else groups},
    )


@generates("LayerNormalization", "RMSNormalization")
def _layer_norm(draw: Draw, op: str) -> Case:
    data = draw.any(1, 4)
    axis = draw.axis(len(data.shape))
    part = (
        data.shape[axis if axis >= 0 else axis + len(data.shape) :]
        if -len(data.shape) <= axis < len(data.shape)
        else (1,)
    )
    shapes = [part if draw.chance(0.8) else draw.like(data.shape) for _ in range(2)]
    count = 1 if op[0] == "R" else draw.random.randint(1, 2)
    draw.opset = max(draw.opset, 23 if op[0] == "R" else 17)
    return Case(
        op,
        [data, *(f32(np.ones(shape)) for shape in shapes[:count])],
        attributes={"axis": draw.maybe(axis, 0.9)},
    )


@generates("QuantizeLinear", "DequantizeLinear")
def _quantize(draw: Draw, op: str) -> Case:
    dims = draw.dims(1, 3)
    axis = draw.axis(len(dims))
    each = (dims[axis % len(dims)],)
    shape = draw.random.choice(((), (), (1,), each, each, draw.dims(0, 2)))
    data: Any = draw.data(*dims) if op[0] == "Q" else np.zeros(dims, np.uint8)
    zero = np.zeros(shape if draw.chance(0.9) else draw.dims(0, 2), np.uint8)
    return Case(
        op,
        [data, f32(np.ones(shape)), *([zero] if draw.chance(0.7) else [])],
        attributes={"axis": draw.maybe(axis, 0.8), "block_size": draw.maybe(draw.number(0, 2), 0.1)},
    )


@generates("MatMul")
def _matmul(draw: Draw, op: str) -> Case:
    k = draw.random.randint(1, 4)
    a, b = (*draw.dims(0, 3), k), (*draw.dims(0, 2), k if draw.chance(0.95) else 5, *draw.dims(0, 1))
    if draw.chance(0.6) and len(a) > 2:
        b = (*draw.like(a[:-2]), k, draw.random.randint(1, 4))
    return Case(op, [draw.data(*a), f32(np.ones(b)) if draw.chance(0.6) else Data(b)])


@generates("Gemm")
def _gemm(draw: Draw, op: str) -> Case:
    m, k, n = draw.dims(3, 3)
    a, b = draw.flag(), draw.flag()
    c = draw.random.choice((None, (), (n,), (1, n), (m, 1), (m, n), (2, m, n), (7,)))
    return Case(
        op,
        [
            draw.data(*((k, m) if a else (m, k))),
            f32(np.ones((n, k) if b else (k, n))),
            *([f32(np.ones(c))] if c is not None else []),
        ],
        attributes={"transA": a, "transB": b},
    )


@generates("Einsum")
def _einsum(draw: Draw, op: str) -> Case:
    sizes = dict(zip("abcd", draw.dims(4, 4), strict=True))
    terms = [
        "".join(
            draw.random.choices("abcd", k=draw.random.randint(1, 3))
            if draw.chance(0.2)
            else draw.random.sample("abcd", draw.random.randint(1, 3))
        )
        for _ in range(draw.random.choice((1, 2, 2, 2, 3)))
    ]
    letters = sorted(set("".join(terms)))
    right = "".join(draw.random.sample(letters, draw.random.randint(0, len(letters))))
    equation = draw.random.choice(
        (
            f"{','.join(terms)}->{right}",
            f"{', '.join(terms)} -> {right}",
            ",".join(terms) if draw.chance(0.2) else f"{','.join(terms)}->{right}",
        )
    )
    return Case(
        op,
        [
            Data(tuple(sizes[c] for c in term), draw.batched and k == 0 and draw.chance(0.3))
            for k, term in enumerate(terms)
        ],
        attributes={"equation": equation},
    )
