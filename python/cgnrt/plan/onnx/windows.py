"""Shape rules of the operators that slide, pool or resample over space."""

from __future__ import annotations

import math
from collections.abc import Mapping

from cgnrt.errors import refuse, show
from cgnrt.plan.onnx.shapes import Info, Operands, Rule


def _numbers(op: Operands, name: str, count: int, default: int, low: int) -> list[int]:
    """An attribute with one number for each of `count` places."""
    values = op.integers(name) or [default] * count
    if len(values) != count or min(values, default=low) < low:
        raise refuse(f"attribute {name}", show(values), f"{count} numbers >= {low}")
    return values


def _window(op: Operands, space: tuple[int, ...], kernel: list[int], ceil: bool = False) -> tuple[int, ...]:
    """Sizes after a sliding window: convolutions and pools."""
    count = len(space)
    strides = _numbers(op, "strides", count, 1, 1)
    dilations = _numbers(op, "dilations", count, 1, 1)
    pads = _numbers(op, "pads", 2 * count, 0, 0)
    auto = _auto_pad(op, ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"))
    result: list[int] = []
    for index, size in enumerate(space):
        stride = strides[index]
        reach = (kernel[index] - 1) * dilations[index] + 1
        if auto in ("SAME_UPPER", "SAME_LOWER"):
            result.append(-(-size // stride))
            continue
        before, after = pads[index], pads[index + count]
        room = size + before + after - reach
        if room < 0:
            raise refuse("window", f"{reach} wide", f"<= {room + reach} (the padded input)")
        steps = -(-room // stride) if ceil else room // stride
        if ceil and steps * stride >= size + before:
            # Engines disagree on whether such a window is left out.
            raise refuse("last window", "one that starts beyond the input", "one that overlaps it")
        result.append(steps + 1)
    return tuple(result)


def _auto_pad(op: Operands, allowed: tuple[str, ...]) -> str:
    auto = op.text("auto_pad", "NOTSET")
    if auto not in allowed:
        raise refuse("attribute auto_pad", show(auto), " or ".join(map(repr, allowed)))
    if auto != "NOTSET" and any(op.integers("pads") or []):
        raise refuse("attribute pads", show(op.integers("pads")), f"none beside auto_pad {auto!r}")
    return auto


def _kernel(op: Operands, weights: tuple[int, ...]) -> list[int]:
    kernel = op.integers("kernel_shape") or list(weights[2:])
    if kernel != list(weights[2:]) or min(kernel, default=1) < 1:
        raise refuse("attribute kernel_shape", show(kernel), f"{list(weights[2:])} (that of the weights)")
    return kernel


def _conv(op: Operands) -> list[Info]:
    dims, weights = op.dims(0, 3), op.dims(1, 3)
    group = op.integer("group", 1)
    if len(weights) != len(dims) or group < 1 or weights[1] * group != dims[1] or weights[0] % group:
        raise refuse("shapes", f"{list(dims)} and {list(weights)}", f"channels that fit {group} groups")
    return [Info((dims[0], weights[0], *_window(op, dims[2:], _kernel(op, weights))))]


def _conv_transpose(op: Operands) -> list[Info]:
    dims, weights = op.dims(0, 3), op.dims(1, 3)
    group = op.integer("group", 1)
    if len(weights) != len(dims) or group < 1 or weights[0] != dims[1] or weights[0] % group:
        raise refuse("shapes", f"{list(dims)} and {list(weights)}", f"channels that fit {group} groups")
    count = len(dims) - 2
    kernel = _kernel(op, weights)
    strides = _numbers(op, "strides", count, 1, 1)
    dilations = _numbers(op, "dilations", count, 1, 1)
    pads = _numbers(op, "pads", 2 * count, 0, 0)
    extra = _numbers(op, "output_padding", count, 0, 0)
    _auto_pad(op, ("NOTSET", "VALID"))  # of SAME, engines make different sizes
    given = op.integers("output_shape")
    space: list[int] = []
    for index, size in enumerate(dims[2:]):
        full = strides[index] * (size - 1) + extra[index] + (kernel[index] - 1) * dilations[index] + 1
        if given is not None:
            space.append(given[index])
        else:
            space.append(full - pads[index] - pads[index + count])
    if given is not None and len(given) != count:
        raise refuse("attribute output_shape", show(given), f"{count} numbers")
    return [Info((dims[0], weights[1] * group, *space))]


def _pool(op: Operands) -> list[Info]:
    dims = op.dims(0, 3)
    kernel = _numbers(op, "kernel_shape", len(dims) - 2, 1, 1)
    shape = (*dims[:2], *_window(op, dims[2:], kernel, bool(op.integer("ceil_mode", 0))))
    return [Info(shape), Info(shape)]


def _global_pool(op: Operands) -> list[Info]:
    dims = op.dims(0, 3)
    return [Info(dims[:2] + (1,) * (len(dims) - 2))]


def _resize(op: Operands) -> list[Info]:
    dims = op.dims(0)
    axes = op.integers("axes")
    axes = (
        list(range(len(dims))) if axes is None else [axis + len(dims) if axis < 0 else axis for axis in axes]
    )
    if len(set(axes)) != len(axes) or not set(axes) <= set(range(len(dims))):
        raise refuse("attribute axes", show(axes), f"axes of {list(dims)}, each once")
    if op.text("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise refuse("keep_aspect_ratio_policy", show(op.text("keep_aspect_ratio_policy", "")), "'stretch'")
    shape = list(dims)
    scales = op.get(2)
    if scales is not None and scales.dims != (0,):
        for axis, scale in zip(axes, op.numbers(2), strict=True):
            if not 0 < scale <= 1 << 20:
                raise refuse("scale", scale, "0 < scale <= 1048576")
            shape[axis] = _scaled(dims[axis], scale)
    else:
        for axis, size in zip(axes, op.sizes(3), strict=True):
            shape[axis] = size
    return [Info(tuple(shape))]


def _scaled(size: int, scale: float) -> int:
    """A size that every engine rounds alike, however it calculates."""
    scaled = size * scale
    if scaled != round(scaled) and abs(scaled - round(scaled)) < 1e-3:
        raise refuse("scaled size", f"{size} x {scale}", "no such near-integer (or sizes instead of scales)")
    return math.floor(scaled)


def _block(op: Operands) -> int:
    size = op.integer("blocksize", 0)
    if not 1 <= size <= 1 << 10:
        raise refuse("attribute blocksize", size, "1..1024")
    return size


def _depth_to_space(op: Operands) -> list[Info]:
    (n, c, h, w), size = op.dims(0), _block(op)
    if c % (size * size):
        raise refuse("channels", c, f"a multiple of {size * size}")
    return [Info((n, c // (size * size), h * size, w * size))]


def _space_to_depth(op: Operands) -> list[Info]:
    (n, c, h, w), size = op.dims(0), _block(op)
    if h % size or w % size:
        raise refuse("height and width", f"{h} and {w}", f"multiples of {size}")
    return [Info((n, c * size * size, h // size, w // size))]


def _grid_sample(op: Operands) -> list[Info]:
    dims, grid = op.dims(0, 3), op.dims(1, 3)
    if len(grid) != len(dims) or grid[0] != dims[0] or grid[-1] != len(dims) - 2:
        raise refuse("shape of the grid", list(grid), f"one position of {len(dims) - 2} numbers a pixel")
    return [Info((*dims[:2], *grid[1:-1]))]


WINDOW_RULES: Mapping[str, Rule] = {
    "AveragePool": _pool,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "DepthToSpace": _depth_to_space,
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
    "GridSample": _grid_sample,
    "LpPool": _pool,
    "MaxPool": _pool,
    "Resize": _resize,
    "SpaceToDepth": _space_to_depth,
}
