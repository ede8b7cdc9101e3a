"""Shape rules of the operators that slide, pool or resample over space.

Height, width and the like do not grow with the batch. Attributes stay within what 32 bits hold, and padding
within what a window can reach: exporters write no others, and engines calculate with them in types of their
own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from cgnrt.errors import refuse, show
from cgnrt.plan.limits import MAX_ELEMENTS
from cgnrt.plan.onnx.shapes import Info, Operands, Rule, resolve_axes
from cgnrt.plan.onnx.sizes import Linear, Shape, count_elements, same

_MOST = 1 << 15  # of strides, dilations, pads


def _space(op: Operands, dims: Shape) -> list[int]:
    """The dimensions after batch and channels."""
    space = [dim for dim in dims[2:] if isinstance(dim, int)]
    if len(space) != len(dims) - 2 or min(space, default=1) < 1:
        raise refuse("shape", show(list(dims)), "height, width and the like of one size for every batch")
    return space


def _numbers(op: Operands, name: str, count: int, default: int, low: int) -> list[int]:
    """An attribute with one number for each of `count` places."""
    values = op.integers(name)
    if values is None:
        return [default] * count
    if len(values) != count or not all(low <= value <= _MOST for value in values):
        raise refuse(f"attribute {name}", show(values), f"{count} numbers {low}..{_MOST}")
    return values


def _window(op: Operands, space: list[int], kernel: list[int], ceil: bool = False) -> tuple[int, ...]:
    """Sizes after a sliding window: convolutions and pools."""
    count = len(space)
    strides = _numbers(op, "strides", count, 1, 1)
    dilations = _numbers(op, "dilations", count, 1, 1)
    reaches = [(size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True)]
    pads = _pads(op, reaches)
    auto = _auto_pad(op, ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"))
    if auto != "NOTSET" and (ceil or any(dilation != 1 for dilation in dilations)):
        raise refuse("attribute auto_pad", show(auto), "'NOTSET' beside ceil_mode or dilations")
    result: list[int] = []
    for index, (size, stride, reach) in enumerate(zip(space, strides, reaches, strict=True)):
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


def _pads(op: Operands, reaches: list[int]) -> list[int]:
    pads = _numbers(op, "pads", 2 * len(reaches), 0, 0)
    if any(pad >= reach for pad, reach in zip(pads, reaches * 2, strict=True) if pad):
        raise refuse("attribute pads", show(pads), f"less than the window's {reaches}")
    return pads


def _auto_pad(op: Operands, allowed: tuple[str, ...]) -> str:
    auto = op.text("auto_pad", "NOTSET")
    if auto not in allowed:
        raise refuse("attribute auto_pad", show(auto), " or ".join(map(repr, allowed)))
    if auto != "NOTSET" and any(op.integers("pads") or []):
        raise refuse("attribute pads", show(op.integers("pads")), f"no pads beside auto_pad {auto!r}")
    return auto


def _kernel(op: Operands, weights: Shape) -> list[int]:
    wanted = _space(op, weights)
    given = op.integers("kernel_shape")
    if (given is not None and given != wanted) or min(wanted) < 1:
        raise refuse("attribute kernel_shape", show(given), f"{wanted} (that of the weights)")
    return wanted


def _check_groups(op: Operands, dims: Shape, weights: Shape, transposed: bool) -> int:
    """The number of groups, if channels and weights fit them."""
    group = op.integer("group", 1)
    taken, made = dims[1], weights[0]
    if (
        len(weights) != len(dims)
        or isinstance(taken, Linear)
        or isinstance(made, Linear)
        or isinstance(weights[1], Linear)
        or not 1 <= group <= taken
        or made < 1
        or made % group
        or not (made == taken if transposed else weights[1] * group == taken)
    ):
        raise refuse("shapes", f"{list(dims)} and {list(weights)}", f"channels that fit {group} groups")
    return group


def _conv(op: Operands) -> list[Info]:
    dims, weights = op.dims(0, 3), op.dims(1, 3)
    _check_groups(op, dims, weights, transposed=False)
    op.check_vectors(weights[0], 2)
    return [Info((dims[0], weights[0], *_window(op, _space(op, dims), _kernel(op, weights))))]


def _conv_transpose(op: Operands) -> list[Info]:
    dims, weights = op.dims(0, 3), op.dims(1, 3)
    channels = weights[1] * _check_groups(op, dims, weights, transposed=True)
    op.check_vectors(channels, 2)
    space, kernel = _space(op, dims), _kernel(op, weights)
    count = len(space)
    strides = _numbers(op, "strides", count, 1, 1)
    dilations = _numbers(op, "dilations", count, 1, 1)
    reaches = [(size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True)]
    pads = _pads(op, reaches)
    extra = _numbers(op, "output_padding", count, 0, 0)
    _auto_pad(op, ("NOTSET", "VALID"))  # of SAME, engines make different sizes
    if any(
        more >= max(stride, dilation)
        for more, stride, dilation in zip(extra, strides, dilations, strict=True)
        if more
    ):
        raise refuse("attribute output_padding", show(extra), "less than strides or dilations")
    full = [
        stride * (size - 1) + more + reach
        for size, stride, more, reach in zip(space, strides, extra, reaches, strict=True)
    ]
    given = op.integers("output_shape")
    made = [size - pads[index] - pads[index + count] for index, size in enumerate(full)]
    if given is not None:
        # Engines cut what is too much by padding, and differ where they would have to add.
        if (
            any(pads)
            or any(extra)
            or len(given) != count
            or not all(1 <= a <= b for a, b in zip(given, full, strict=False))
        ):
            raise refuse("attribute output_shape", show(given), f"{count} numbers up to {full}, without pads")
        made = given
    if min(made) < 1:
        raise refuse("shape of the result", show(made), "sizes >= 1")
    # Each tap of each window, for one image: what an engine may keep before it adds them up.
    taps = count_elements([*weights[1:2], *kernel, *space])
    if taps > MAX_ELEMENTS:
        raise refuse("products", f"{taps} for each image", f"<= {MAX_ELEMENTS}")
    return [Info((dims[0], channels, *made))]


def _pool(op: Operands) -> list[Info]:
    dims = op.dims(0, 3)
    space = _space(op, dims)
    if "kernel_shape" not in op.node.attributes:
        raise refuse("attribute kernel_shape", "missing", f"{len(space)} numbers")
    kernel = _numbers(op, "kernel_shape", len(space), 1, 1)
    shape = (*dims[:2], *_window(op, space, kernel, op.flag("ceil_mode", False)))
    return [Info(shape), Info(shape)]


def _one_pool(op: Operands) -> list[Info]:
    return _pool(op)[:1]


def _global_pool(op: Operands) -> list[Info]:
    dims = op.dims(0, 3)
    return [Info((*dims[:2], *(1 for _ in _space(op, dims))))]


def _resize(op: Operands) -> list[Info]:
    dims = op.dims(0)
    axes = op.integers("axes")
    places = list(range(len(dims))) if axes is None else resolve_axes(axes, len(dims))
    if op.text("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise refuse("keep_aspect_ratio_policy", show(op.text("keep_aspect_ratio_policy", "")), "'stretch'")
    if op.text("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        raise refuse("coordinate_transformation_mode", "'tf_crop_and_resize'", "one without a region")
    given = [info is not None and info.dims != (0,) for info in (op.get(2), op.get(3))]
    if given.count(True) != 1:
        raise refuse("scales and sizes", "both given" if all(given) else "both missing", "one of them")
    wanted = op.numbers(2) if given[0] else op.sizes(3)
    if len(wanted) != len(places):
        raise refuse("scales or sizes", show(wanted), f"{len(places)} numbers")
    shape = list(dims)
    for axis, number in zip(places, wanted, strict=True):
        size = dims[axis]
        if isinstance(size, Linear):
            if not (number == 1 if given[0] else same((number,), (size,))):
                raise refuse(f"size of axis {axis}", show(number), f"{size} as before")
        elif given[0]:
            shape[axis] = _scaled(size, number)
        elif isinstance(number, Linear) or number < 1:
            raise refuse(f"size of axis {axis}", show(number), ">= 1, the same for every batch")
        else:
            shape[axis] = number
    return [Info(tuple(shape))]


def _scaled(size: int, scale: float) -> int:
    """A size that every engine rounds alike, however it calculates."""
    if not isinstance(scale, float) or not 0 < scale <= 1 << 20:
        raise refuse("scale", show(scale), "0 < scale <= 1048576")
    scaled = size * scale
    # Some engines calculate in float32, some add 1e-5 to the scale against rounding.
    doubt = size * 1e-4 + scaled * 1e-6
    nearest = round(scaled)
    if scale != 1 and (doubt >= 0.5 or (scaled != nearest and abs(scaled - nearest) < max(doubt, 1e-3))):
        raise refuse("scaled size", f"{size} x {scale}", "no such near-integer (or sizes instead of scales)")
    if scaled < 1:
        raise refuse("scaled size", f"{size} x {scale}", ">= 1")
    return math.floor(scaled)


def _block(op: Operands) -> int:
    size = op.integer("blocksize", 0)
    if not 1 <= size <= 1 << 10:
        raise refuse("attribute blocksize", size, "1..1024")
    return size


def _picture(op: Operands) -> tuple[Shape, int, int, int]:
    """Batch (as a shape), channels, height and width."""
    dims = op.dims(0, 4)
    channels = dims[1]
    if len(dims) != 4 or isinstance(channels, Linear):
        raise refuse("shape", show(list(dims)), "[n, channels, height, width]")
    height, width = _space(op, dims)
    return dims[:1], channels, height, width


def _depth_to_space(op: Operands) -> list[Info]:
    (n, c, h, w), size = _picture(op), _block(op)
    if c % (size * size):
        raise refuse("channels", c, f"a multiple of {size * size}")
    return [Info((*n, c // (size * size), h * size, w * size))]


def _space_to_depth(op: Operands) -> list[Info]:
    (n, c, h, w), size = _picture(op), _block(op)
    if h % size or w % size:
        raise refuse("height and width", f"{h} and {w}", f"multiples of {size}")
    return [Info((*n, c * size * size, h // size, w // size))]


def _grid_sample(op: Operands) -> list[Info]:
    dims, grid = op.dims(0, 4), op.dims(1, 4)
    if len(grid) != len(dims) or not same(grid[:1], dims[:1]) or not same(grid[-1:], (len(dims) - 2,)):
        raise refuse(
            "shape of the grid", show(list(grid)), f"one position of {len(dims) - 2} numbers a pixel"
        )
    _space(op, dims)
    return [Info((*dims[:2], *grid[1:-1]))]


def _lrn(op: Operands) -> list[Info]:
    dims = op.dims(0, 3)
    size = op.integer("size", 0)
    # An engine may pad the channels by this number.
    if isinstance(dims[1], Linear) or not 1 <= size <= max(1, dims[1]):
        raise refuse("attribute size", size, f"1..{dims[1]}, the channels")
    return [Info(dims)]


WINDOW_RULES: Mapping[str, Rule] = {
    "AveragePool": _one_pool,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "DepthToSpace": _depth_to_space,
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
    "GridSample": _grid_sample,
    "LRN": _lrn,
    "LpPool": _one_pool,
    "MaxPool": _pool,
    "Resize": _resize,
    "SpaceToDepth": _space_to_depth,
}
