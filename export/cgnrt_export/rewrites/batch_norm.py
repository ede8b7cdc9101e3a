"""Batch norm in eval mode is an affine map per channel: it goes into the weights of the layer before it."""

from __future__ import annotations

import torch
from torch import Tensor, fx

from cgnrt_export.graph import add_constant, arguments, constant, is_call, shape_of

_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")
_TRANSPOSED = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")


def batch_norm_affine(
    weight: Tensor | None, bias: Tensor | None, mean: Tensor, variance: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Batch norm as (scale, shift), float64 (channels,) each: bn(x) = scale * x + shift."""
    scale = 1 / torch.sqrt(variance.double() + eps)
    if weight is not None:
        scale = scale * weight.double()
    shift = -mean.double() * scale
    if bias is not None:
        shift = shift + bias.double()
    return scale, shift


def fold_into_weights(
    weight: Tensor,
    bias: Tensor | None,
    scale: Tensor,
    shift: Tensor,
    *,
    transposed: bool = False,
    groups: int = 1,
) -> tuple[Tensor, Tensor]:
    """Weights of a layer that also applies an affine map to its output channels.

    Args:
      weight: (out, in / groups, ...) of a convolution or a linear layer, or (in, out / groups, ...) if
        `transposed`.
      bias: (out,) or None.
      scale, shift: (out,), applied to the layer's output.
      groups: of the convolution.
    Returns:
      (weight, bias) in the dtype of `weight`; computed in float64 and rounded once.
    """
    if transposed:
        # The output channels are spread over the groups, which lie along the first axis.
        per_group = scale.reshape(groups, 1, -1).expand(groups, weight.shape[0] // groups, -1)
        factor = per_group.reshape(weight.shape[0], weight.shape[1], *[1] * (weight.dim() - 2))
    else:
        factor = scale.reshape(-1, *[1] * (weight.dim() - 1))
    offset = shift if bias is None else bias.double() * scale + shift
    return (weight.double() * factor).to(weight.dtype), offset.to(weight.dtype)


def fold_batch_norm(module: fx.GraphModule) -> int:
    """Fold each batch norm into the convolution or linear layer before it, where that feeds nothing else."""
    folded = 0
    for norm in list(module.graph.nodes):
        if not is_call(norm, "batch_norm") or arguments(norm)["training"]:
            continue
        layer = arguments(norm)["input"]
        if not _feeds_only(layer, norm):
            continue
        weights = _folded_weights(module, layer, norm)
        if weights is None:
            continue
        own = arguments(layer)
        own["weight"] = add_constant(module, "folded_weight", weights[0], before=layer)
        own["bias"] = add_constant(module, "folded_bias", weights[1], before=layer)
        # In the layer's place, not the norm's: its input may be written to in between.
        with module.graph.inserting_before(layer):
            merged = module.graph.call_function(layer.target, tuple(own.values()))
        merged.meta = dict(layer.meta)
        norm.replace_all_uses_with(merged)
        module.graph.erase_node(norm)
        module.graph.erase_node(layer)
        folded += 1
    return folded


def _feeds_only(layer: object, norm: fx.Node) -> bool:
    if not isinstance(layer, fx.Node) or set(layer.users) != {norm}:
        return False
    # Batch norm's channels are axis 1; a linear layer's are the last, the same only in two dimensions.
    flat = is_call(layer, "linear") and len(shape_of(layer)) == 2
    return flat or is_call(layer, *_CONVOLUTIONS, *_TRANSPOSED)


def _folded_weights(module: fx.GraphModule, layer: fx.Node, norm: fx.Node) -> tuple[Tensor, Tensor] | None:
    """Weight and bias of the layer with the norm in them; None where they are not all constants."""
    own, given = arguments(layer), arguments(norm)
    norm_names = ("weight", "bias", "running_mean", "running_var")
    wanted = [own["weight"], own["bias"], *(given[name] for name in norm_names)]
    found = [constant(module, node) for node in wanted]
    if any(node is not None and value is None for node, value in zip(wanted, found, strict=True)):
        return None
    weight, bias, norm_weight, norm_bias, mean, variance = found
    if weight is None or mean is None or variance is None:
        return None
    scale, shift = batch_norm_affine(norm_weight, norm_bias, mean, variance, given["eps"])
    transposed = is_call(layer, *_TRANSPOSED)
    return fold_into_weights(weight, bias, scale, shift, transposed=transposed, groups=own.get("groups", 1))
