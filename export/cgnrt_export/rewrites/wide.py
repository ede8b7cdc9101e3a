"""Many small layers on the same value as one wide layer, and its results as slices.

BigGAN has two linear layers and two look-ups of statistics for each of its batch norms, about a hundred of
each, and every one of them reads the same vector or the same row number.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from cgnrt_export.graph import (
    add_constant,
    arguments,
    constant,
    insert_call,
    is_call,
    shape_of,
    writes_in_place,
)

_DEPTH = 6  # how many calls down two values are told apart by what becomes of them


def merge_linears(module: fx.GraphModule) -> int:
    """Merge the linear layers that read the same (n, e) value; returns how many went into a wider one."""
    if writes_in_place(module):
        return 0
    groups: dict[fx.Node, list[fx.Node]] = defaultdict(list)
    for node in module.graph.nodes:
        if is_call(node, "linear") and len(shape_of(node)) == 2:
            given = arguments(node)
            bias_is_computed = given["bias"] is not None and constant(module, given["bias"]) is None
            if constant(module, given["weight"]) is not None and not bias_is_computed:
                groups[given["input"]].append(node)
    merged = 0
    for source, found in groups.items():
        if len(found) < 2:
            continue
        layers = _by_use(found)
        operands = [arguments(layer) for layer in layers]
        weights = [_read(module, values["weight"]) for values in operands]
        weight = add_constant(module, "wide_weight", torch.cat(weights), before=found[0])
        bias = None
        if any(values["bias"] is not None for values in operands):
            biases = [
                rows.new_zeros(len(rows)) if values["bias"] is None else _read(module, values["bias"])
                for rows, values in zip(weights, operands, strict=True)
            ]
            bias = add_constant(module, "wide_bias", torch.cat(biases), before=found[0])
        target = torch.ops.aten.linear.default
        _replace_by_slices(module, layers, target, (source, weight, bias), before=found[0])
        merged += len(layers)
    return merged


def merge_lookups(module: fx.GraphModule) -> int:
    """Merge the look-ups of the same rows in constant tables; returns how many went into a wider table."""
    if writes_in_place(module):
        return 0
    groups: dict[tuple[fx.Node, int, torch.dtype], list[tuple[fx.Node, Tensor]]] = defaultdict(list)
    for node in module.graph.nodes:
        table, index = _lookup(module, node)
        if table is not None and index is not None:
            groups[index, len(table), table.dtype].append((node, table))
    merged = 0
    for (index, _, _), found in groups.items():
        if len(found) < 2:
            continue
        tables = dict(found)
        lookups = _by_use(list(tables))
        first = found[0][0]
        joined = torch.cat([tables[lookup] for lookup in lookups], 1)
        wide = add_constant(module, "wide_table", joined, before=first)
        # Only indexing counts negative rows from the end; the ONNX form of `embedding` is the simplest.
        counts_back = any(is_call(lookup, "index") for lookup in lookups)
        target = torch.ops.aten.index.Tensor if counts_back else torch.ops.aten.embedding.default
        args = (wide, [index] if counts_back else index)
        _replace_by_slices(module, lookups, target, args, before=first)
        merged += len(lookups)
    return merged


def _read(module: fx.GraphModule, node: object) -> Tensor:
    value = constant(module, node)
    if value is None:
        raise TypeError(f"{node} is not a constant, expected one")
    return value


def _lookup(module: fx.GraphModule, node: fx.Node) -> tuple[Tensor | None, fx.Node | None]:
    """(table, row numbers) of a call that takes rows (n,) of a constant matrix, however it is written."""
    if not is_call(node, "index_select", "embedding", "index"):
        return None, None
    given = arguments(node)
    source, index = given.get("self", given.get("weight")), given.get("index", given.get("indices"))
    if given.get("dim", 0) not in (0, -2):
        return None, None
    if isinstance(index, list | tuple):
        index = index[0] if len(index) == 1 else None
    table = constant(module, source)
    if table is None or table.dim() != 2 or not isinstance(index, fx.Node):
        return None, None
    whole = index.meta["val"].dtype in (torch.int32, torch.int64)
    return (table, index) if whole and len(shape_of(index)) == 1 else (None, None)


def _by_use(nodes: Sequence[fx.Node]) -> list[fx.Node]:
    """Values of which the same becomes side by side, in their order: calls on neighbours can merge too."""
    first_seen: dict[Any, int] = {}
    for position, node in enumerate(nodes):
        first_seen.setdefault(_use(node, _DEPTH), position)
    return sorted(nodes, key=lambda node: first_seen[_use(node, _DEPTH)])


def _use(node: fx.Node, depth: int) -> tuple[Any, ...]:
    """What becomes of a (n, c) value as long as it stays one, as nested names of calls."""
    if depth == 0 or len(shape_of(node)) != 2:
        return ()
    return tuple(
        sorted(
            (str(user.target), position, _use(user, depth - 1))
            for user in node.users
            for position, argument in enumerate(user.args)
            if argument is node
        )
    )


def _replace_by_slices(
    module: fx.GraphModule, parts: Sequence[fx.Node], target: Any, args: tuple[Any, ...], *, before: fx.Node
) -> None:
    widths = [shape_of(part)[1] for part in parts]
    rows = shape_of(parts[0])[0]
    wide = insert_call(module, target, args, before=before, like=parts[0], shape=(rows, sum(widths)))
    start = 0
    for part, width in zip(parts, widths, strict=True):
        bounds = (wide, 1, start, start + width)
        take = torch.ops.aten.slice.Tensor
        run = insert_call(module, take, bounds, before=before, like=part, shape=(rows, width))
        part.replace_all_uses_with(run)
        start += width
    for part in parts:
        module.graph.erase_node(part)
