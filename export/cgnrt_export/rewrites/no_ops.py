"""Calls that do nothing at inference."""

from __future__ import annotations

from torch import fx

from cgnrt_export.graph import arguments, is_call

_DROPOUTS = ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")


def remove_no_ops(module: fx.GraphModule) -> int:
    """Remove dropout in eval mode, and detach. `nn.Identity` leaves no call to begin with."""
    removed = 0
    for node in list(module.graph.nodes):
        idle_dropout = is_call(node, *_DROPOUTS) and (
            arguments(node)["train"] is False or arguments(node)["p"] == 0
        )
        if idle_dropout or is_call(node, "detach", "alias"):
            node.replace_all_uses_with(node.args[0])
            module.graph.erase_node(node)
            removed += 1
    return removed
