"""The same call on the same values, made once."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import torch
from torch import fx

from cgnrt_export.graph import writes_in_place


def merge_duplicates(module: fx.GraphModule) -> int:
    """Let the first of equal calls stand for all; not in a graph that writes into its values."""
    if writes_in_place(module):
        return 0
    merged = 0
    seen: dict[Hashable, fx.Node] = {}
    for node in list(module.graph.nodes):
        if not _is_pure(node):
            continue
        key = (node.target, _key(node.args), _key(node.kwargs))
        first = seen.setdefault(key, node)
        if first is not node:
            node.replace_all_uses_with(first)
            module.graph.erase_node(node)
            merged += 1
    return merged


def _is_pure(node: fx.Node) -> bool:
    if node.op == "get_attr":
        return True
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return False
    return torch.Tag.nondeterministic_seeded not in node.target.tags and bool(node.target._schema.returns)


def _key(value: Any) -> Hashable:
    """Equal for equal arguments; 1, 1.0 and True are not."""
    if isinstance(value, list | tuple):
        return tuple(_key(part) for part in value)
    if isinstance(value, dict):
        return tuple((name, _key(part)) for name, part in value.items())
    return value if isinstance(value, fx.Node) else (type(value), repr(value))
