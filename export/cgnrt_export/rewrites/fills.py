"""Tensors filled with one number, as that number where broadcasting makes the same of it."""

from __future__ import annotations

import torch
from torch import fx

from cgnrt_export.graph import add_constant, arguments, is_call, shape_of

_FILLS = {"ones_like": 1, "zeros_like": 0, "ones": 1, "zeros": 0, "full": None, "full_like": None}
_ELEMENTWISE = ("add", "sub", "mul", "div", "where", "maximum", "minimum")


def shrink_fills(module: fx.GraphModule) -> int:
    """Replace each filled tensor whose every reader has an operand of the result's shape beside it.

    Otherwise an engine would look at shapes at run time to make a tensor that it broadcasts anyway.
    """
    shrunk = 0
    for node in list(module.graph.nodes):
        if not is_call(node, *_FILLS) or not node.users or "val" not in node.meta:
            continue
        number = _FILLS[node.target._schema.name.removeprefix("aten::")]
        if number is None:
            number = arguments(node)["fill_value"]
        if isinstance(number, fx.Node) or not all(_broadcasts(user, node) for user in node.users):
            continue
        value = torch.full((), number, dtype=node.meta["val"].dtype)
        node.replace_all_uses_with(add_constant(module, "fill", value, before=node))
        module.graph.erase_node(node)
        shrunk += 1
    return shrunk


def _broadcasts(reader: fx.Node, filled: fx.Node) -> bool:
    if not is_call(reader, *_ELEMENTWISE):
        return False
    others = [other for other in reader.all_input_nodes if other is not filled]
    wanted = str(shape_of(reader))  # as text: to compare symbolic sizes would add an assumption
    dtype = reader.meta["val"].dtype if "val" in reader.meta else None
    same = [other for other in others if "val" in other.meta and other.meta["val"].dtype is dtype]
    # A number has no say in the dtype of the result; so something else must have it already.
    return bool(same) and any(str(shape_of(other)) == wanted for other in others)
