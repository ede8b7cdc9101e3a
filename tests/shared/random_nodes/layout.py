"""Random nodes of operators that move elements."""

from __future__ import annotations

from typing import Any

import numpy as np

from random_nodes.draws import Case, Draw, f32, generates, i64


@generates("Reshape")
def _reshape(draw: Draw, op: str) -> Case:
    data = draw.any(1, 4)
    total = int(np.prod(data.shape))
    wanted: list[int] = []
    rest = total
    for _ in range(draw.random.randint(0, 3)):
        divisor = draw.random.choice([d for d in range(1, rest + 1) if rest % d == 0])
        wanted.append(divisor)
        rest //= divisor
    wanted.append(rest)
    for k in range(len(wanted)):
        if draw.chance(0.25):
            wanted[k] = draw.random.choice((-1, 0, 0))
    if draw.chance(0.1):
        wanted[draw.random.randrange(len(wanted))] = draw.number(-2, 6)
    if draw.chance(0.4):
        wanted = [-1, *data.shape[1:]] if draw.chance(0.5) else [0, -1]
    if draw.chance(0.1):  # values
        return Case(op, [i64(np.arange(total)), i64(wanted)], attributes={"allowzero": draw.flag()})
    return Case(op, [data, i64(wanted)], attributes={"allowzero": draw.flag()})


@generates("Flatten")
def _flatten(draw: Draw, op: str) -> Case:
    data = draw.any(0 if draw.chance(0.1) else 1, 4)
    return Case(op, [data], attributes={"axis": draw.maybe(draw.axis(len(data.shape) + 1))})


@generates("Squeeze", "Unsqueeze")
def _squeeze(draw: Draw, op: str) -> Case:
    dims = tuple(1 if draw.chance(0.5) else dim for dim in draw.dims(1, 4))
    data = draw.data(*dims)
    rank = len(dims) + (2 if op[0] == "U" else 0)
    if op[0] == "S" and draw.chance(0.7):
        places = [k for k, dim in enumerate(dims) if dim == 1]
        axes = draw.random.sample(places, draw.random.randint(0, len(places)))
    else:
        axes = draw.axes(rank)[:2]
    if draw.chance(0.05):
        return Case(op, [data], attributes={"axes": axes or None})
    if op[0] == "S" and draw.chance(0.2):
        return Case(op, [data])
    return Case(op, [data, i64(axes)])


@generates("Transpose")
def _transpose(draw: Draw, op: str) -> Case:
    data = draw.any(1, 4)
    order = draw.random.sample(range(len(data.shape)), len(data.shape))
    if draw.chance(0.1):
        order[0] = draw.axis(len(order))
    return Case(op, [data], attributes={"perm": draw.maybe(order, 0.9)})


@generates("Concat")
def _concat(draw: Draw, op: str) -> Case:
    data = draw.any(1, 3)
    axis = draw.axis(len(data.shape))
    others: list[Any] = []
    for _ in range(draw.random.randint(0, 2)):
        shape = list(data.shape)
        shape[axis % len(shape)] = draw.random.randint(1, 4)
        if draw.chance(0.05):
            shape[0] += 1
        others.append(draw.data(*shape) if draw.chance(0.6) else f32(np.ones(shape)))
    return Case(op, [data, *others], attributes={"axis": draw.maybe(axis, 0.95)})


@generates("Split")
def _split(draw: Draw, op: str) -> Case:
    data = draw.any(1, 3)
    axis = draw.axis(len(data.shape))
    length = data.shape[axis % len(data.shape)]
    count = draw.random.randint(1, 4)
    attributes: dict[str, Any] = {"axis": axis if axis else draw.maybe(axis)}
    inputs: list[Any] = [data]
    if draw.chance(0.5):
        cuts = sorted(draw.random.choices(range(length + 1), k=count - 1))
        parts = [b - a for a, b in zip([0, *cuts], [*cuts, length], strict=True)]
        if draw.chance(0.1):
            parts[0] = draw.number(0, 4)
        inputs.append(i64(parts))
        if draw.chance(0.1):
            attributes["num_outputs"] = count
    elif draw.chance(0.9 if draw.opset >= 18 else 0.1):
        attributes["num_outputs"] = count if draw.chance(0.8) else draw.number(1, 5)
    return Case(op, inputs, outputs=count, attributes=attributes)


@generates("Slice")
def _slice(draw: Draw, op: str) -> Case:
    data: Any = draw.any(1, 3)
    rank = len(data.shape)
    axes = draw.axes(rank) if not data.batched or rank == 1 else [axis + 1 for axis in range(rank - 1)]
    ends = (-(2**63), -(2**31), -(2**31) + 1, 2**31 - 1, 2**31, 2**63 - 1)

    def position() -> int:
        return draw.random.choice(ends) if draw.chance(0.15) else draw.random.randint(-10, 10)

    count = len(axes)
    starts, stops = ([position() for _ in range(count)] for _ in range(2))
    steps = [
        draw.random.choice(
            (1, 1, 1, 2, 3, -1, -1, -2, -3, 7, -7, *((0, 2**31, -(2**63)) if draw.chance(0.1) else ()))
        )
        for _ in range(count)
    ]
    if draw.chance(0.03):
        stops = stops[:-1]
    if draw.chance(0.3):  # values
        data = i64(np.arange(int(np.prod(data.shape))).reshape(data.shape))
    inputs: list[Any] = [data, i64(starts), i64(stops)]
    if draw.chance(0.9) or count != rank:
        inputs.append(i64(axes))
        if draw.chance(0.8):
            inputs.append(i64(steps))
    elif draw.chance(0.5):
        inputs += [None, i64(steps)]
    return Case(op, inputs)


@generates("Gather", "GatherElements")
def _gather(draw: Draw, op: str) -> Case:
    data: Any = draw.any(1, 3)
    rank = len(data.shape)
    axis = draw.axis(rank)
    length = data.shape[axis % rank]
    if op == "GatherElements":
        shape = tuple(
            max(1, dim + draw.random.choice((-1, 0, 0, 0, 1) if draw.chance(0.3) else (0,)))
            for dim in data.shape
        )
        return Case(
            op,
            [data, np.zeros(shape if draw.chance(0.95) else draw.dims(1, 3), np.int64)],
            attributes={"axis": draw.maybe(axis, 0.8)},
        )
    shape = draw.dims(0, 2)
    if draw.chance(0.4):
        data = i64(np.arange(int(np.prod(data.shape))).reshape(data.shape))
    return Case(
        op,
        [
            data,
            i64([draw.random.randint(-length, length - 1) for _ in range(int(np.prod(shape)))]).reshape(
                shape
            ),
        ],
        attributes={"axis": draw.maybe(axis, 0.8)},
    )


@generates("GatherND")
def _gather_nd(draw: Draw, op: str) -> Case:
    data = draw.any(1, 4)
    batch = draw.random.choice((0, 0, 1))
    depth = draw.random.randint(1, max(1, len(data.shape) - batch))
    shape = (*data.shape[:batch], *draw.dims(0, 2), depth if draw.chance(0.95) else draw.number(0, 5) % 6)
    return Case(
        op,
        [data, np.zeros(shape, np.int64)],
        attributes={
            "batch_dims": draw.maybe(batch if draw.chance(0.95) else draw.axis(3), 0.9 if batch == 0 else 1)
        },
    )


@generates("ScatterElements", "ScatterND")
def _scatter(draw: Draw, op: str) -> Case:
    data = draw.any(1, 3)
    if op == "ScatterND":
        depth = draw.random.randint(1, len(data.shape))
        shape = (*draw.dims(0, 1), depth)
        updates = (*shape[:-1], *data.shape[depth:]) if draw.chance(0.9) else draw.dims(1, 3)
        return Case(op, [data, np.zeros(shape, np.int64), f32(np.ones(updates))])
    axis = draw.axis(len(data.shape))
    place = axis % len(data.shape)
    shape = tuple(
        draw.random.randint(1, dim + (k == place)) if k == place or draw.chance(0.1) else dim
        for k, dim in enumerate(data.shape)
    )
    updates = shape if draw.chance(0.9) else draw.dims(1, 3)
    return Case(
        op,
        [data, np.zeros(shape, np.int64), f32(np.ones(updates))],
        attributes={"axis": axis if place else draw.maybe(axis)},
    )


@generates("Expand")
def _expand(draw: Draw, op: str) -> Case:
    dims = draw.dims(1, 3)
    wanted = list(draw.like(dims))
    if draw.chance(0.1):
        wanted[:1] = [draw.number(-1, 5)]
    return Case(op, [draw.data(*draw.like(dims)), i64(wanted if draw.chance(0.5) else dims)])


@generates("Tile")
def _tile(draw: Draw, op: str) -> Case:
    data = draw.any(1, 3)
    return Case(op, [data, i64(draw.numbers(len(data.shape), 1, 3))])


@generates("Pad")
def _pad(draw: Draw, op: str) -> Case:
    draw.batched = draw.chance(0.2)
    data = draw.any(1, 3)
    axes = draw.axes(len(data.shape)) if draw.chance(0.3) else None
    count = 2 * len(axes if axes is not None else data.shape)
    pads = [
        draw.random.choice((0, 0, 1, 2, 3, *((-1, -2, 2**31, -(2**31), 2**62) if draw.chance(0.2) else ())))
        for _ in range(count)
    ]
    inputs = [
        data,
        i64(pads[: count - draw.chance(0.03)]),
        *([draw.maybe(f32(1))] if draw.chance(0.6) or axes is not None else []),
    ]
    if axes is not None:
        inputs.append(i64(axes))
    return Case(
        op, inputs, attributes={"mode": draw.random.choice((None, "constant", "reflect", "edge", "wrap"))}
    )
