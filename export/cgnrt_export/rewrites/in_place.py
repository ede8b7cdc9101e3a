"""Calls that write into their argument, as calls that make a new value.

Engines have no calls in place, and no rewrite can tell which of a value's readers comes before the write.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx


def remove_writes(module: fx.GraphModule) -> int:
    """Replace each such call whose argument is a fresh value with no views.

    Whoever reads the argument after the write sees what was written, and reads the new value instead.
    """
    removed = 0
    for node in list(module.graph.nodes):
        twin = _twin(node)
        target = node.args[0] if twin is not None else None
        if not isinstance(target, fx.Node) or not _is_fresh(target):
            continue
        if any(user is not node and _may_alias(user) for user in target.users):
            continue
        order = {other: position for position, other in enumerate(module.graph.nodes)}
        later = [user for user in target.users if order[user] > order[node]]
        with module.graph.inserting_before(node):
            replacement = module.graph.call_function(twin, node.args, node.kwargs)
        replacement.meta = dict(node.meta)
        node.replace_all_uses_with(replacement)
        for user in later:
            user.replace_input_with(target, replacement)
        module.graph.erase_node(node)
        removed += 1
    return removed


def _twin(node: fx.Node) -> Any:
    """The overload that computes the same into new memory (`relu` for `relu_`), or None."""
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return None
    schema = node.target._schema
    name = schema.name.removeprefix("aten::")
    written = [argument.name for argument in schema.arguments if _is_written(argument)]
    if not name.endswith("_") or name.startswith("_") or written != [schema.arguments[0].name]:
        return None
    packet = getattr(torch.ops.aten, name.removesuffix("_"), None)
    return getattr(packet, schema.overload_name or "default", None)


def _is_written(argument: Any) -> bool:
    return argument.alias_info is not None and argument.alias_info.is_write


def _is_fresh(node: fx.Node) -> bool:
    return node.op == "call_function" and not _may_alias(node)


def _may_alias(node: fx.Node) -> bool:
    """Whether a result may share memory with an argument; so do writes, whose result is their argument."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return node.op != "output"
    # Of these the schema promises nothing.
    sometimes = schema.name in {"aten::reshape", "aten::contiguous", "aten::to", "aten::flatten"}
    return sometimes or any(result.alias_info is not None for result in schema.returns)
