"""A constant factor on a layer's output goes into its weights: the gain of self-attention, for one."""

from __future__ import annotations

import torch
from torch import Tensor, fx

from cgnrt_export.graph import add_constant, arguments, constant, is_call, shape_of, writes_in_place
from cgnrt_export.rewrites.batch_norm import fold_into_weights


def fold_scales(module: fx.GraphModule) -> int:
    """Fold each product of a constant and a convolution that feeds nothing else into the convolution."""
    if writes_in_place(module):
        return 0
    folded = 0
    for product in list(module.graph.nodes):
        if not is_call(product, "mul") or len(product.args) != 2:
            continue
        for layer, factor in (product.args, product.args[::-1]):
            scale = _scale(module, layer, factor)
            if not isinstance(layer, fx.Node) or scale is None or set(layer.users) != {product}:
                continue
            given = arguments(layer)
            weight, bias = constant(module, given["weight"]), constant(module, given["bias"])
            if weight is None or (bias is None) != (given["bias"] is None):
                continue
            scaled, shifted = fold_into_weights(weight, bias, scale, torch.zeros_like(scale))
            given["weight"] = add_constant(module, "scaled_weight", scaled, before=layer)
            if bias is not None:
                given["bias"] = add_constant(module, "scaled_bias", shifted, before=layer)
            layer.args, layer.kwargs = tuple(given.values()), {}
            product.replace_all_uses_with(layer)
            module.graph.erase_node(product)
            folded += 1
            break
    return folded


def _scale(module: fx.GraphModule, layer: object, factor: object) -> Tensor | None:
    """One factor for each output channel, float64, or None where this is not such a product."""
    if not isinstance(layer, fx.Node) or not is_call(layer, "conv1d", "conv2d", "conv3d"):
        return None
    channels = shape_of(layer)[1]
    if isinstance(factor, int | float):
        return torch.full((channels,), float(factor), dtype=torch.float64)
    value = constant(module, factor)
    if value is None or value.dim() > len(shape_of(layer)) or not value.is_floating_point():
        return None
    if value.numel() == 1:
        return value.double().reshape(1).expand(channels)
    axis = value.dim() - (len(shape_of(layer)) - 1)  # where the channels are
    per_channel = axis >= 0 and value.shape[axis] == channels == value.numel()
    return value.double().reshape(channels) if per_channel else None
