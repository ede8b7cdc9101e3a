"""1x1 convolutions to where they cost least.

A 1x1 convolution is a map over channels, the same at every pixel, so it can change places with everything that treats
all channels alike: nearest and bilinear up-sampling (whose weights sum to one, so that a bias passes too) and
concatenation. And two convolutions in a row are one, if the second is 1x1. U2-Net's fused mask is a 1x1
convolution over six up-sampled side outputs: it becomes a sum of up-sampled pictures of one channel.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from cgnrt_export.graph import (
    add_constant,
    arguments,
    constant,
    insert_call,
    is_call,
    shape_of,
    writes_in_place,
)

_UPSAMPLINGS = ("upsample_nearest2d", "_upsample_nearest_exact2d", "upsample_bilinear2d")


def merged_weights(
    weight: Tensor, bias: Tensor | None, pointwise: Tensor, offset: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """One convolution for a convolution and a 1x1 convolution on its output.

    Args:
      weight: (middle, in, kh, kw).  bias: (middle,) or None.
      pointwise: (out, middle, 1, 1).  offset: (out,) or None.
    Returns:
      ((out, in, kh, kw), (out,) or None) in the dtype of `weight`; summed in float64 and rounded once.
    """
    matrix = pointwise.double().flatten(1)
    product = torch.einsum("om,mihw->oihw", matrix, weight.double()).to(weight.dtype).contiguous()
    if bias is None and offset is None:
        return product, None
    total = torch.zeros(len(matrix), dtype=torch.float64) if offset is None else offset.double()
    if bias is not None:
        total = total + matrix @ bias.double()
    return product, total.to(weight.dtype)


def split_pointwise(module: fx.GraphModule) -> int:
    """Split a 1x1 convolution over a concatenation with up-sampled parts into one for each of these parts."""
    if writes_in_place(module):
        return 0
    split = 0
    for convolution in list(module.graph.nodes):
        given = _pointwise(module, convolution)
        if given is None:
            continue
        joined: fx.Node = given["input"]
        if not is_call(joined, "cat") or set(joined.users) != {convolution}:
            continue
        parts, axis = arguments(joined)["tensors"], arguments(joined)["dim"]
        if axis % 4 != 1 or len(set(parts)) < len(parts):
            continue
        shrinking = [part for part in parts if _grows(part) and set(part.users) == {joined}]
        if shrinking:
            _split(module, convolution, given, joined, shrinking)
            split += 1
    return split


def move_pointwise_down(module: fx.GraphModule) -> int:
    """Move each 1x1 convolution that is the only reader of an up-sampling to before it."""
    if writes_in_place(module):
        return 0
    moved = 0
    for convolution in list(module.graph.nodes):
        given = _pointwise(module, convolution)
        if given is None:
            continue
        upsampling: fx.Node = given["input"]
        if not _grows(upsampling) or set(upsampling.users) != {convolution}:
            continue
        values = arguments(upsampling)
        name = next(iter(values))  # `self` or `input`, by overload
        source, channels = values[name], shape_of(convolution)[1]
        rows, _, height, width = shape_of(source)
        small = insert_call(
            module,
            convolution.target,
            (source, given["weight"], given["bias"]),
            before=convolution,
            like=convolution,
            shape=(rows, channels, height, width),
        )
        values[name] = small
        shape = shape_of(convolution)
        wide = insert_call(
            module,
            upsampling.target,
            tuple(values.values()),
            before=convolution,
            like=convolution,
            shape=shape,
        )
        convolution.replace_all_uses_with(wide)
        module.graph.erase_node(convolution)
        module.graph.erase_node(upsampling)
        moved += 1
    return moved


def fold_pointwise(module: fx.GraphModule) -> int:
    """Fold each 1x1 convolution into the convolution before it, where that does not add work."""
    if writes_in_place(module):
        return 0
    folded = 0
    for convolution in list(module.graph.nodes):
        given = _pointwise(module, convolution)
        if given is None:
            continue
        before: fx.Node = given["input"]
        if not is_call(before, "conv2d") or set(before.users) != {convolution}:
            continue
        own = arguments(before)
        weight, bias = constant(module, own["weight"]), constant(module, own["bias"])
        if weight is None or own["groups"] != 1 or (bias is None) != (own["bias"] is None):
            continue
        pointwise, offset = constant(module, given["weight"]), constant(module, given["bias"])
        if pointwise is None:
            continue
        out, middle = pointwise.shape[:2]
        if out * weight[0].numel() > middle * weight[0].numel() + out * middle:
            continue
        product, total = merged_weights(weight, bias, pointwise, offset)
        own["weight"] = add_constant(module, "folded_weight", product, before=before)
        own["bias"] = None if total is None else add_constant(module, "folded_bias", total, before=before)
        shape = shape_of(convolution)
        merged = insert_call(
            module, before.target, tuple(own.values()), before=before, like=before, shape=shape
        )
        convolution.replace_all_uses_with(merged)
        module.graph.erase_node(convolution)
        module.graph.erase_node(before)
        folded += 1
    return folded


def _pointwise(module: fx.GraphModule, node: fx.Node) -> dict[str, Any] | None:
    """The arguments of a plain 1x1 convolution with constant weights, or None."""
    if not is_call(node, "conv2d"):
        return None
    given = arguments(node)
    weight, bias = constant(module, given["weight"]), constant(module, given["bias"])
    if weight is None or tuple(weight.shape[2:]) != (1, 1) or (bias is None) != (given["bias"] is None):
        return None
    strides = given["stride"] if isinstance(given["stride"], list | tuple) else [given["stride"]]
    padding = given["padding"] if isinstance(given["padding"], list | tuple) else [given["padding"]]
    plain = all(step == 1 for step in strides) and all(size in (0, "same", "valid") for size in padding)
    return given if plain and given["groups"] == 1 and isinstance(given["input"], fx.Node) else None


def _grows(node: object) -> bool:
    """Whether a node up-samples a picture to more pixels."""
    if not isinstance(node, fx.Node) or not is_call(node, *_UPSAMPLINGS):
        return False
    source = node.args[0]
    before, after = shape_of(source)[2:] if isinstance(source, fx.Node) else (), shape_of(node)[2:]
    fixed = len(before) == len(after) == 2 and all(isinstance(size, int) for size in (*before, *after))
    return bool(fixed and after[0] * after[1] > before[0] * before[1])


def _split(
    module: fx.GraphModule,
    convolution: fx.Node,
    given: dict[str, Any],
    joined: fx.Node,
    shrinking: list[fx.Node],
) -> None:
    weight = constant(module, given["weight"])
    if weight is None:
        raise TypeError(f"the weight of {convolution} is not a constant, expected one")
    shape = shape_of(convolution)
    parts: list[fx.Node] = list(arguments(joined)["tensors"])
    columns: dict[fx.Node, Tensor] = {}
    start = 0
    for part in parts:
        columns[part] = weight[:, start : start + shape_of(part)[1]]
        start += shape_of(part)[1]
    rest = [part for part in parts if part not in shrinking]
    groups = ([rest] if rest else []) + [[part] for part in shrinking]
    total: fx.Node | None = None
    for group in groups:
        source = group[0]
        if len(group) > 1:
            channels = sum(shape_of(part)[1] for part in group)
            source = insert_call(
                module,
                torch.ops.aten.cat.default,
                (group, 1),
                before=convolution,
                like=joined,
                shape=(shape[0], channels, *shape[2:]),
            )
        own = torch.cat([columns[part] for part in group], 1)
        kernel = add_constant(module, "split_weight", own, before=convolution)
        bias = given["bias"] if total is None else None
        args = (source, kernel, bias)
        term = insert_call(
            module, convolution.target, args, before=convolution, like=convolution, shape=shape
        )
        if total is None:
            total = term
        else:
            add = torch.ops.aten.add.Tensor
            total = insert_call(module, add, (total, term), before=convolution, like=convolution, shape=shape)
    if total is not None:
        convolution.replace_all_uses_with(total)
    module.graph.erase_node(convolution)
    module.graph.erase_node(joined)
