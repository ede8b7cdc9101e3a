"""A convolution computes only the output channels that somebody reads.

BigGAN's last convolution makes as many channels as it reads and keeps three of them.
"""

from __future__ import annotations

from torch import Tensor, fx

from cgnrt_export.graph import (
    add_constant,
    arguments,
    channel_slice,
    constant,
    insert_call,
    is_call,
    shape_of,
    writes_in_place,
)

_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")
_TRANSPOSED = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")


def kept_weights(
    weight: Tensor, bias: Tensor | None, start: int, end: int, *, transposed: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of only the output channels start..end - 1.

    Args:
      weight: (out, in, ...), or (in, out, ...) if `transposed`.
      bias: (out,) or None.
    """
    kept = weight[:, start:end] if transposed else weight[start:end]
    return kept.contiguous(), None if bias is None else bias[start:end]


def slice_channels(module: fx.GraphModule) -> int:
    """Shrink each convolution whose every reader takes a run of channels, to the span of these runs."""
    if writes_in_place(module):
        return 0
    sliced = 0
    for convolution in list(module.graph.nodes):
        if not is_call(convolution, *_CONVOLUTIONS, *_TRANSPOSED) or not convolution.users:
            continue
        runs = [(user, run) for user in convolution.users if (run := channel_slice(user)) is not None]
        if len(runs) != len(convolution.users):
            continue
        start, end = min(run[1] for _, run in runs), max(run[2] for _, run in runs)
        if end - start < shape_of(convolution)[1] and _shrink(module, convolution, start, end):
            sliced += 1
    return sliced


def _shrink(module: fx.GraphModule, convolution: fx.Node, start: int, end: int) -> bool:
    given = arguments(convolution)
    weight, bias = constant(module, given["weight"]), constant(module, given["bias"])
    if weight is None or given["groups"] != 1 or (bias is None) != (given["bias"] is None):
        return False
    kept, offset = kept_weights(weight, bias, start, end, transposed=is_call(convolution, *_TRANSPOSED))
    given["weight"] = add_constant(module, "sliced_weight", kept, before=convolution)
    if offset is not None:
        given["bias"] = add_constant(module, "sliced_bias", offset, before=convolution)
    sizes = shape_of(convolution)
    shape = (sizes[0], end - start, *sizes[2:])
    target, values = convolution.target, tuple(given.values())
    small = insert_call(module, target, values, before=convolution, like=convolution, shape=shape)
    for user in list(convolution.users):
        _, first, last = channel_slice(user) or (None, start, end)
        if (first, last) == (start, end):
            user.replace_all_uses_with(small)
            module.graph.erase_node(user)
        else:
            user.args = (small, 1, first - start, last - start)
            user.kwargs = {}
    module.graph.erase_node(convolution)
    return True
