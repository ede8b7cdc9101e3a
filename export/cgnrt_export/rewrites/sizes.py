"""Up-sampling to a size that is a multiple of the source's, as up-sampling by that factor.

A size has the batch in its ONNX form, so that a graph would look it up at run time; a factor is a constant.
"""

from __future__ import annotations

from torch import fx

from cgnrt_export.graph import arguments, bind_arguments, is_call, shape_of

_UPSAMPLINGS = ("upsample_nearest2d", "_upsample_nearest_exact2d", "upsample_bilinear2d")


def name_factors(module: fx.GraphModule) -> int:
    """Give each up-sampling that was asked for by size its factors instead, where they are whole."""
    named = 0
    for node in module.graph.nodes:
        if not is_call(node, *_UPSAMPLINGS) or node.target._schema.overload_name != "vec":
            continue
        given = arguments(node)
        if given["output_size"] is None:
            continue
        before, after = shape_of(given["input"])[2:], shape_of(node)[2:]
        if not all(isinstance(size, int) for size in (*before, *after)):
            continue
        if any(large % small for small, large in zip(before, after, strict=True)):
            continue
        factors = [float(large // small) for small, large in zip(before, after, strict=True)]
        node.args, node.kwargs = bind_arguments(
            node, (given | {"output_size": None, "scale_factors": factors}).values()
        )
        named += 1
    return named
