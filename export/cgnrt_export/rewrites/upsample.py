"""Nearest x2 up-sampling followed by a convolution, as one transposed convolution with stride 2.

Of the nine pixels under a 3x3 kernel on the up-sampled image only four differ: two rows and two columns are
copies. Adding up the taps that meet copies of one pixel gives, for each of the four output phases, a 2x2
kernel on the small image; side by side the four are the 4x4 kernel of a transposed convolution with stride 2
and padding 1. It needs 16 instead of 36 multiply-adds for each small pixel and pair of channels. Any odd
kernel k works alike: k + 1, padding (k - 1) / 2.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, fx

from cgnrt_export.graph import add_constant, arguments, constant, is_call, shape_of

_NEAREST = ("upsample_nearest2d", "_upsample_nearest_exact2d")


def copied_taps(kernel: int) -> Tensor:
    """Which taps of an odd kernel meet copies of the same small pixel, float64 (kernel + 1, kernel) of 0 and
    1.

    Row j is the transposed kernel's tap j. With p = (kernel - 1) / 2, output pixel 2 i + d reads small pixel
    i through tap t where floor((d + t - p) / 2) = 0, and the transposed convolution joins the two by its tap
    j = d + p.
    """
    padding = (kernel - 1) // 2
    taps = torch.zeros(kernel + 1, kernel, dtype=torch.float64)
    for row in range(kernel + 1):
        for tap in range(kernel):
            taps[row, tap] = (row - padding + tap - padding) // 2 == 0
    return taps


def transposed_weight(weight: Tensor) -> Tensor:
    """The kernel that does up-sampling and convolution at once.

    Args:
      weight: (out, in, kh, kw), odd kh and kw, of a convolution with stride 1 and "same" zero padding.
    Returns:
      (in, out, kh + 1, kw + 1) in the dtype of `weight`, for stride 2 and padding ((kh - 1) / 2, (kw - 1) /
        2);
      summed in float64 and rounded once.
    """
    rows, columns = copied_taps(weight.shape[2]), copied_taps(weight.shape[3])
    return torch.einsum("ka,lb,oiab->iokl", rows, columns, weight.double()).to(weight.dtype).contiguous()


def merge_upsampling(module: fx.GraphModule) -> int:
    """Replace each nearest x2 up-sampling whose every reader is such a convolution."""
    merged = 0
    for upsampling in list(module.graph.nodes):
        if not doubles(upsampling):
            continue
        convolutions = list(upsampling.users)
        if not convolutions or not all(
            _fits(module, upsampling, convolution) for convolution in convolutions
        ):
            continue
        for convolution in convolutions:
            _replace(module, upsampling, convolution)
            merged += 1
        module.graph.erase_node(upsampling)
    return merged


def doubles(upsampling: fx.Node) -> bool:
    """Whether a node is nearest x2 up-sampling of pictures."""
    source = upsampling.args[0] if is_call(upsampling, *_NEAREST) else None
    if not isinstance(source, fx.Node):
        return False
    before, after = shape_of(source), shape_of(upsampling)
    sizes = (*before[2:], *after[2:])
    whole = len(before) == len(after) == 4 and all(isinstance(size, int) for size in sizes)
    return whole and after[2:] == (2 * before[2], 2 * before[3])


def _fits(module: fx.GraphModule, upsampling: fx.Node, convolution: fx.Node) -> bool:
    if not is_call(convolution, "conv2d"):
        return False
    given = arguments(convolution)
    weight = constant(module, given["weight"])
    bias_is_computed = given["bias"] is not None and constant(module, given["bias"]) is None
    if given["input"] is not upsampling or weight is None or bias_is_computed:
        return False
    kernel = tuple(weight.shape[2:])
    # A 1x1 kernel meets no copies: there is nothing to merge.
    odd = all(size % 2 == 1 for size in kernel) and max(kernel) > 1
    same = given["padding"] == "same" or _pair(given["padding"]) == tuple((size - 1) // 2 for size in kernel)
    plain = _pair(given["stride"]) == (1, 1) and _pair(given["dilation"]) == (1, 1)
    # Engines have no fast transposed convolution with groups.
    return odd and same and plain and given["groups"] == 1


def _replace(module: fx.GraphModule, upsampling: fx.Node, convolution: fx.Node) -> None:
    given = arguments(convolution)
    weight = cast(Tensor, constant(module, given["weight"]))  # checked by _fits
    padding = [(size - 1) // 2 for size in weight.shape[2:]]
    # In the up-sampling's place: its input may be written to between there and the convolution.
    kernel = add_constant(module, "transposed_weight", transposed_weight(weight), before=upsampling)
    bias = constant(module, given["bias"])
    offset = None if bias is None else add_constant(module, "transposed_bias", bias, before=upsampling)
    with module.graph.inserting_before(upsampling):
        transposed = module.graph.call_function(
            torch.ops.aten.conv_transpose2d.input, (upsampling.args[0], kernel, offset, [2, 2], padding)
        )
    transposed.meta = dict(convolution.meta)
    convolution.replace_all_uses_with(transposed)
    module.graph.erase_node(convolution)


def _pair(value: object) -> tuple[object, object]:
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    return (values[0], values[0]) if len(values) == 1 else (values[0], values[-1])
