"""Operators with a window, resizing and padding."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from cgnrt.backends.torch.operands import Operands, UnsupportedError
from cgnrt.backends.torch.tracer import Value

_MAX_POOLS = {3: F.max_pool1d, 4: F.max_pool2d, 5: F.max_pool3d}
_AVERAGE_POOLS = {3: F.avg_pool1d, 4: F.avg_pool2d, 5: F.avg_pool3d}
_LINEAR = {3: "linear", 4: "bilinear", 5: "trilinear"}
_PADS = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


class Window(NamedTuple):
    """A window along the axes of a picture; pads are before and behind each of them."""

    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    before: list[int]
    behind: list[int]

    @property
    def even(self) -> bool:
        return self.before == self.behind


def _window(x: Operands, kernel: Sequence[int]) -> Window:
    rank = len(kernel)
    strides, dilations = x.get("strides", [1] * rank), x.get("dilations", [1] * rank)
    how = x.want("auto_pad", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")
    pads = x.get("pads", [0] * 2 * rank) if how == "NOTSET" else [0] * 2 * rank
    before, behind = pads[:rank], pads[rank:]
    if how.startswith("SAME"):
        given = [int(size) for size in x[0].shape[2:]]
        each = zip(given, kernel, strides, dilations, strict=True)
        whole = [max(0, (-(-size // s) - 1) * s + (k - 1) * d + 1 - size) for size, k, s, d in each]
        less, more = [pad // 2 for pad in whole], [pad - pad // 2 for pad in whole]
        before, behind = (less, more) if how == "SAME_UPPER" else (more, less)
    return Window(list(kernel), strides, dilations, before, behind)


def _padded(x: Operands, window: Window, value: float) -> tuple[Value, list[int]]:
    """The picture and the pads that are left for the window, the same before and behind each axis."""
    if window.even:
        return x[0], window.before
    pads = [pad for pair in zip(window.before[::-1], window.behind[::-1], strict=True) for pad in pair]
    return x.call(F.pad, x[0], pads, value=value), [0] * len(window.kernel)


def _conv(x: Operands) -> Value:
    window = _window(x, x[1].examples[0].shape[2:])
    picture, pads = _padded(x, window, 0.0)
    form = (window.strides, pads, window.dilations, False, [0] * len(pads), x.get("group", 1))
    return x.call(torch.convolution, picture, x[1], x.optional(2), *form)


def _conv_transpose(x: Operands) -> Value:
    x.want("auto_pad", "NOTSET", "VALID")
    window = _window(x, x[1].examples[0].shape[2:])
    if not window.even or "output_shape" in x.node.attributes:
        raise UnsupportedError("ConvTranspose with uneven pads or output_shape")
    more = x.get("output_padding", [0] * len(window.kernel))
    form = (window.strides, window.before, window.dilations, True, more, x.get("group", 1))
    return x.call(torch.convolution, x[0], x[1], x.optional(2), *form)


def _max_pool(x: Operands) -> Value:
    if len(x.node.outputs) > 1:
        raise UnsupportedError("MaxPool with indices")
    window = _window(x, x.get("kernel_shape", []))
    if any(2 * pad > size for pad, size in zip(window.before, window.kernel, strict=True)):
        raise UnsupportedError("MaxPool with pads of more than half of its window")
    picture, pads = _padded(x, window, -torch.inf)
    function = _pool(_MAX_POOLS, x)
    ceil = bool(x.get("ceil_mode", 0))
    return x.call(function, picture, window.kernel, window.strides, pads, window.dilations, ceil)


def _average_pool(x: Operands) -> Value:
    window = _window(x, x.get("kernel_shape", []))
    counted = bool(x.get("count_include_pad", 0))
    if window.dilations != [1] * len(window.kernel):
        raise UnsupportedError("AveragePool with dilations")
    if any(2 * pad > size for pad, size in zip(window.before, window.kernel, strict=True)) or not (
        window.even or counted
    ):
        raise UnsupportedError("AveragePool with uneven pads, or pads of more than half of its window")
    picture, pads = _padded(x, window, 0.0)
    ceil = bool(x.get("ceil_mode", 0))
    if ceil and counted and any(window.before + window.behind):
        raise UnsupportedError("AveragePool that counts pads where sizes are rounded up")
    return x.call(_pool(_AVERAGE_POOLS, x), picture, window.kernel, window.strides, pads, ceil, counted)


def _pool(functions: Mapping[int, Callable[..., Any]], x: Operands) -> Callable[..., Any]:
    if x[0].rank not in functions:
        raise UnsupportedError(f"{x.node.op} of {x[0].rank} axes")
    return functions[x[0].rank]


def _global_average(x: Tensor) -> Tensor:
    return x.mean(list(range(2, x.dim())), keepdim=True)


def _global_max(x: Tensor) -> Tensor:
    return x.amax(list(range(2, x.dim())), keepdim=True)


def _pad(x: Operands) -> Value:
    mode, pads = x.want("mode", *_PADS), x.fixed(1)
    rank = x[0].rank
    axes = x.fixed(3) if x.has(3) else list(range(rank))
    before, behind = [0] * rank, [0] * rank
    for axis, low, high in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True):
        before[axis], behind[axis] = low, high
    value = x.numbers(2) if x.has(2) else 0
    first = next((axis for axis in range(rank) if before[axis] or behind[axis]), rank)
    turned = [pad for axis in range(rank - 1, first - 1, -1) for pad in (before[axis], behind[axis])]
    if not turned:
        return x[0]
    if mode == "constant":
        return x.call(F.pad, x[0], turned, value=value)
    return x.call(F.pad, x[0], turned, mode=_PADS[mode])


def _resize(x: Operands) -> Value:
    x.want("antialias", 0)
    x.want("exclude_outside", 0)
    x.want("keep_aspect_ratio_policy", "stretch")
    rank = x[0].rank
    given = [int(size) for size in x[0].shape[2:]]
    axes = [axis % rank for axis in x.get("axes", list(range(rank)))]
    factors: list[float] | None = None
    if x.has(3):
        wanted = dict(zip(axes, x.sizes(3), strict=True))
        new = [wanted.get(axis, given[axis - 2]) for axis in range(2, rank)]
        kept = all(wanted.get(axis, size) == size for axis, size in enumerate(_sizes(x)[:2]))
    else:
        scales = dict(zip(axes, x.sizes(2), strict=True))
        factors = [float(scales.get(axis, 1.0)) for axis in range(2, rank)]
        new = [int(size * factor) for size, factor in zip(given, factors, strict=True)]
        kept = all(scales.get(axis, 1.0) == 1 for axis in (0, 1))
    if not kept or rank not in _LINEAR or not all(type(size) is int for size in new):
        raise UnsupportedError("Resize of other axes than a picture's height and width")
    if factors is not None and all(f * g == s for f, g, s in zip(factors, given, new, strict=True)):
        factors = None  # sizes say the same
    mode = _resize_mode(x, [size / old for size, old in zip(new, given, strict=True)])
    where: dict[str, Any] = {"size": new} if factors is None else {"scale_factor": factors}
    return x.call(F.interpolate, x[0], **where, **mode)


def _sizes(x: Operands) -> list[Any]:
    found: list[Any] = x.tracer.numbers(x.tracer.shape(x[0], slice(None)))
    return found


def _resize_mode(x: Operands, ratios: Sequence[float]) -> dict[str, Any]:
    """torch's arguments for the mode and the coordinates."""
    mode = x.want("mode", "nearest", "linear", "cubic")
    coordinates = x.get("coordinate_transformation_mode", "half_pixel")
    if mode == "nearest":
        rounding = x.get("nearest_mode", "round_prefer_floor")
        # Whole factors give no coordinate halfway between two pixels, so the rule for those does not matter.
        repeats = all(ratio >= 1 and ratio.is_integer() for ratio in ratios)
        if coordinates == "asymmetric" and rounding == "floor":
            return {"mode": "nearest"}
        if coordinates == "half_pixel" and (
            rounding == "round_prefer_ceil" or (repeats and rounding == "round_prefer_floor")
        ):
            return {"mode": "nearest-exact"}
        raise UnsupportedError(f"nearest Resize with {coordinates} and {rounding}")
    if coordinates not in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        raise UnsupportedError(f"{mode} Resize with {coordinates}")
    corners = coordinates == "align_corners"
    if mode == "linear":
        return {"mode": _LINEAR[x[0].rank], "align_corners": corners}
    if x[0].rank != 4 or x.get("cubic_coeff_a", -0.75) != -0.75:
        raise UnsupportedError("cubic Resize of other than height and width with -0.75")
    return {"mode": "bicubic", "align_corners": corners}


WINDOWS: Mapping[str, Callable[[Operands], Any]] = {
    "AveragePool": _average_pool,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "GlobalAveragePool": lambda x: x.call(_global_average, x[0]),
    "GlobalMaxPool": lambda x: x.call(_global_max, x[0]),
    "MaxPool": _max_pool,
    "Pad": _pad,
    "Resize": _resize,
}
