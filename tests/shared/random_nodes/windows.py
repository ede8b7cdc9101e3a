"""Random nodes of operators with windows: convolutions, pools, and what resizes pictures."""

from __future__ import annotations

from typing import Any

import numpy as np

from random_nodes.draws import Case, Draw, f32, generates, i64


def _space(draw: Draw, count: int) -> tuple[int, ...]:
    return tuple(draw.random.randint(1, 12) for _ in range(count))


def _automatic(draw: Draw) -> dict[str, Any]:
    """auto_pad, mostly without what does not go with it."""
    without: dict[str, Any] = {"pads": None, "dilations": None} if draw.chance(0.8) else {}
    return without | {"auto_pad": draw.random.choice(("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"))}


def _windows(draw: Draw, count: int, kernel: list[int]) -> dict[str, Any]:
    pads = [
        draw.random.randint(0, max(0, k - 1)) if draw.chance(0.9) else draw.number(0, 4) for k in kernel * 2
    ]
    return {
        "strides": draw.maybe(draw.numbers(count, 1, 3), 0.7),
        "dilations": draw.maybe(draw.numbers(count, 1, 2), 0.4),
        "pads": draw.maybe(pads, 0.6),
    } | ({} if draw.chance(0.75) else _automatic(draw))


@generates("Conv", "ConvTranspose")
def _conv(draw: Draw, op: str) -> Case:
    count = draw.random.choice((1, 2, 2, 2, 3))
    group = draw.random.choice((1, 1, 1, 2))
    c, m = (group * draw.random.randint(1, 2) for _ in range(2))
    kernel = [draw.random.randint(1, 4) for _ in range(count)]
    weights = (m, c // group, *kernel) if op == "Conv" else (c, m // group, *kernel)
    if draw.chance(0.03):
        weights = draw.dims(count + 2, count + 2)
    attributes = _windows(draw, count, kernel)
    attributes["group"] = group if group > 1 or draw.chance(0.2) else None
    attributes["kernel_shape"] = draw.maybe(kernel if draw.chance(0.95) else draw.numbers(count, 1, 4), 0.5)
    space = _space(draw, count)
    if op == "ConvTranspose":
        attributes["output_padding"] = draw.maybe(draw.numbers(count, 0, 1), 0.3)
        if draw.chance(0.2):
            attributes["output_shape"] = [draw.number(1, 3 * size + 2) for size in space]
            if draw.chance(0.7):
                attributes |= {"pads": None, "output_padding": None}
    bias = [f32(np.ones(m if draw.chance(0.95) else 7))] if draw.chance(0.4) else []
    return Case(
        op,
        [draw.data(draw.random.randint(1, 3), c, *space), f32(np.ones(weights)), *bias],
        attributes=attributes,
    )


@generates("AveragePool", "MaxPool", "LpPool")
def _pool(draw: Draw, op: str) -> Case:
    count = draw.random.choice((1, 2, 2, 2, 3))
    kernel = [draw.random.randint(1, 4) for _ in range(count)]
    attributes = _windows(draw, count, kernel)
    if draw.chance(0.6):
        attributes["dilations"] = None
    attributes["kernel_shape"] = draw.maybe(kernel if draw.chance(0.97) else draw.numbers(count, 1, 4), 0.98)
    attributes["ceil_mode"] = draw.flag()
    if op == "AveragePool":
        attributes["count_include_pad"] = draw.flag()
    return Case(
        op,
        [draw.data(draw.random.randint(1, 3), draw.random.randint(1, 3), *_space(draw, count))],
        outputs=2 if op == "MaxPool" and draw.chance(0.2) else 1,
        attributes=attributes,
    )


@generates("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(draw: Draw, op: str) -> Case:
    return Case(op, [draw.any(2, 5)])


@generates("LRN")
def _lrn(draw: Draw, op: str) -> Case:
    return Case(op, [draw.any(3, 4)], attributes={"size": draw.random.choice((1, 3, 5, 2, 1001))})


@generates("Resize")
def _resize(draw: Draw, op: str) -> Case:
    rank = draw.random.choice((3, 4, 4, 4, 5))
    draw.batched = draw.chance(0.3)
    dims = (
        draw.random.randint(1, 3),
        draw.random.randint(1, 3),
        *(draw.random.choice((1, 3, 8, 10, 37, 100)) for _ in range(rank - 2)),
    )
    axes = draw.axes(rank) if draw.chance(0.3) else None
    places = [axis % rank for axis in axes] if axes is not None else list(range(rank))
    mode = draw.random.choice((None, "nearest", "linear", "cubic"))
    scales = [
        1.0
        if place < 2 and draw.chance(0.95)
        else draw.random.choice(
            (1, 2, 0.5, 1.5, 0.1, 0.3, 3, 1.7, 2.000001, 1.9999999, 0.999, 1 / 3, 0, -1, 1e9)[
                : 12 + 3 * draw.chance(0.05)
            ]
        )
        for place in places
    ]
    sizes = [dims[place] if place < 2 and draw.chance(0.95) else draw.number(1, 20) for place in places]
    by_scales = draw.chance(0.5)
    both = draw.chance(0.05)
    roi = draw.random.choice((None, None, f32([]), f32([0.0] * rank + [1.0] * rank)))
    inputs: list[Any] = [
        draw.data(*dims),
        roi,
        f32(scales) if by_scales or both else draw.random.choice((None, f32([]))),
    ]
    if not by_scales or both:
        inputs.append(i64(sizes))
    return Case(
        op,
        inputs,
        attributes={
            "axes": axes,
            "mode": mode,
            "coordinate_transformation_mode": draw.random.choice(
                (
                    None,
                    "asymmetric",
                    "half_pixel",
                    "align_corners",
                    "pytorch_half_pixel",
                    *(("tf_crop_and_resize",) if draw.chance(0.2) else ()),
                )
            ),
            "keep_aspect_ratio_policy": draw.maybe(
                draw.random.choice(("stretch", "not_larger", "not_smaller")), 0.1
            ),
            "nearest_mode": draw.maybe("floor", 0.3),
            "antialias": draw.maybe(draw.flag(), 0.1),
        },
    )


@generates("DepthToSpace", "SpaceToDepth")
def _depth(draw: Draw, op: str) -> Case:
    size = draw.random.randint(1, 3)
    dims = (
        draw.random.randint(1, 2),
        size * size * draw.random.randint(1, 2),
        *(size * draw.random.randint(1, 3) for _ in range(2)),
    )
    if draw.chance(0.1):
        dims = draw.dims(3, 5)
    return Case(
        op,
        [draw.data(*dims)],
        attributes={
            "blocksize": size if draw.chance(0.9) else draw.number(1, 3),
            "mode": draw.maybe("CRD", 0.3) if op[0] == "D" else None,
        },
    )


@generates("GridSample")
def _grid_sample(draw: Draw, op: str) -> Case:
    count = 2 if draw.chance(0.8) else draw.random.choice((1, 3))
    n = draw.random.randint(1, 3)
    grid = (n if draw.chance(0.95) else 4, *_space(draw, count), count if draw.chance(0.95) else 4)
    return Case(
        op,
        [draw.data(n, draw.random.randint(1, 3), *_space(draw, count)), draw.data(*grid)],
        attributes={
            "align_corners": draw.flag(),
            "mode": draw.random.choice((None, "bilinear", "linear", "nearest")),
        },
    )
