"""Calls that do nothing at inference."""

from __future__ import annotations

from torch import fx

from cgnrt_export.graph import arguments, is_call, shape_of

_DROPOUTS = ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")
# Of these the result may be the argument itself: where it has its shape and dtype, it is.
_RESHAPES = ("slice", "expand", "view", "reshape", "to")


def remove_no_ops(module: fx.GraphModule) -> int:
    """Remove dropout in eval mode, detach, slices and reshapes of everything to what it was, and checks of
    what tracing already knows. `nn.Identity` leaves no call to begin with.
    """
    removed = 0
    for node in list(module.graph.nodes):
        if is_call(node, "_assert_tensor_metadata"):
            module.graph.erase_node(node)
            continue
        if _does_nothing(node):
            node.replace_all_uses_with(node.args[0])
            module.graph.erase_node(node)
            removed += 1
    return removed


def _does_nothing(node: fx.Node) -> bool:
    if is_call(node, "detach", "alias"):
        return True
    if is_call(node, *_DROPOUTS):
        return arguments(node)["train"] is False or arguments(node)["p"] == 0
    if not is_call(node, *_RESHAPES) or not isinstance(node.args[0], fx.Node):
        return False
    if is_call(node, "slice") and arguments(node)["step"] != 1:
        return False
    if is_call(node, "to") and arguments(node).get("copy"):
        return False
    before, after = node.args[0].meta.get("val"), node.meta.get("val")
    if before is None or after is None or before.dtype != after.dtype or before.device != after.device:
        return False
    # As text: to compare symbolic sizes would add an assumption to the traced program.
    return str(shape_of(node.args[0])) == str(shape_of(node))
