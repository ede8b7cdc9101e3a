"""Weights that are computed from other weights, computed once."""

from __future__ import annotations

import torch
from torch import Tensor, fx

from cgnrt_export.graph import add_constant, constant


def fold_constants(module: fx.GraphModule) -> int:
    """Compute every call that reads nothing but constants.

    Weights under spectral norm, weight norm or another parametrisation are calls on parameters in eval mode;
    the other rewrites need them as plain tensors.
    """
    folded = 0
    for node in list(module.graph.nodes):
        if not _may_fold(node):
            continue
        values = {source: constant(module, source) for source in node.all_input_nodes}
        if not values or any(value is None for value in values.values()):
            continue
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
        result = node.target(*args, **kwargs)
        if not isinstance(result, Tensor):
            continue
        # Contiguous and apart from its sources: a view of a parameter would be written out strided, or twice.
        stored = add_constant(module, "constant", result.contiguous(), before=node)
        node.replace_all_uses_with(stored)
        module.graph.erase_node(node)
        folded += 1
    return folded


def _may_fold(node: fx.Node) -> bool:
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return False
    # What is drawn at random, or written into an argument, has to happen at run time.
    random = torch.Tag.nondeterministic_seeded in node.target.tags
    return not random and not node.target._schema.is_mutable
