"""The same arithmetic on many slices of a vector, done on the vector before it is sliced.

Behind merged layers stand as many slices as there were layers, each with the same few calls on it. A call
moves above the slices where its operands are neighbours in one and the same value, member for member.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from cgnrt_export.graph import (
    add_constant,
    arguments,
    bind_arguments,
    channel_slice,
    constant,
    insert_call,
    is_call,
    shape_of,
    writes_in_place,
)

_ELEMENTWISE = (
    *(
        "abs",
        "add",
        "clamp",
        "clamp_max",
        "clamp_min",
        "div",
        "exp",
        "maximum",
        "minimum",
        "mul",
        "neg",
        "pow",
    ),
    *("reciprocal", "relu", "rsqrt", "rsub", "sigmoid", "sqrt", "square", "sub", "tanh", "where"),
)


@dataclass(frozen=True)
class _Part:
    """An operand that differs from member to member: a run of a value's channels, or a constant."""

    start: int
    end: int
    row: Tensor | None = None  # (1, width), of a constant


@dataclass(frozen=True)
class _Member:
    node: fx.Node
    width: int
    parts: tuple[_Part, ...]  # its operands that are not shared, in order


def hoist_slices(module: fx.GraphModule) -> int:
    """Merge elementwise calls on neighbouring slices (n, c) until none are left; returns how many merged."""
    if writes_in_place(module):
        return 0
    hoisted = 0
    while found := _hoist_once(module):
        hoisted += found
    return hoisted


def _hoist_once(module: fx.GraphModule) -> int:
    groups: dict[Any, list[_Member]] = defaultdict(list)
    for node in module.graph.nodes:
        key, member = _describe(module, node)
        if member is not None:
            groups[key].append(member)
    hoisted = 0
    for key, members in groups.items():
        for run in _runs(key, members):
            _merge(module, key, run)
            hoisted += len(run)
        if hoisted:
            return hoisted  # the graph has changed: describe it again
    return 0


def _describe(module: fx.GraphModule, node: fx.Node) -> tuple[Any, _Member | None]:
    """What calls have in common that can merge, and what is this one's own."""
    sizes = shape_of(node)
    if not is_call(node, *_ELEMENTWISE) or len(sizes) != 2 or not isinstance(sizes[1], int):
        return None, None
    kinds: list[Any] = []
    parts: list[_Part] = []
    for value in arguments(node).values():
        taken = channel_slice(value)
        if taken is not None and len(shape_of(taken[0])) == 2 and taken[2] - taken[1] == sizes[1]:
            kinds.append(("slice", taken[0]))
            parts.append(_Part(taken[1], taken[2]))
            continue
        fixed = constant(module, value)
        if fixed is not None and fixed.numel() > 1:
            if fixed.numel() != sizes[1] or fixed.shape[-1] != sizes[1]:
                return None, None
            kinds.append(("constant", fixed.dtype))
            parts.append(_Part(0, sizes[1], fixed.reshape(1, -1)))
            continue
        if isinstance(value, fx.Node):
            # The same for every member: a number, or one for each sample.
            known = fixed is not None or value.meta.get("val") is not None
            if not known or shape_of(value)[-1:] not in ((), (1,)):
                return None, None
            kinds.append(("same", value))
        else:
            kinds.append(("value", type(value), repr(value)))
    if not any(kind[0] == "slice" for kind in kinds):
        return None, None
    return (node.target, tuple(kinds)), _Member(node, sizes[1], tuple(parts))


def _runs(key: Any, members: Sequence[_Member]) -> list[list[_Member]]:
    """Members in stretches in which each slice operand begins where that of the member before ends."""
    sliced = [kind[0] == "slice" for kind in key[1] if kind[0] in ("slice", "constant")]

    def starts(member: _Member) -> list[int]:
        return [part.start for part, is_slice in zip(member.parts, sliced, strict=True) if is_slice]

    def ends(member: _Member) -> list[int]:
        return [part.end for part, is_slice in zip(member.parts, sliced, strict=True) if is_slice]

    runs: list[list[_Member]] = []
    for member in sorted(members, key=starts):
        if runs and ends(runs[-1][-1]) == starts(member):
            runs[-1].append(member)
        else:
            runs.append([member])
    return [run for run in runs if len(run) > 1]


def _merge(module: fx.GraphModule, key: Any, run: Sequence[_Member]) -> None:
    """One call in the place of the first: all operands but constants stand before every member."""
    order = {node: position for position, node in enumerate(module.graph.nodes)}
    first = min(run, key=lambda member: order[member.node]).node
    rows, width = shape_of(first)[0], sum(member.width for member in run)
    args: list[Any] = []
    own = 0
    for kind, value in zip(key[1], arguments(first).values(), strict=True):
        if kind[0] == "slice":
            args.append(_span(module, kind[1], run[0].parts[own].start, run[-1].parts[own].end, first))
        elif kind[0] == "constant":
            row = torch.cat([_row(member.parts[own]) for member in run], 1)
            args.append(add_constant(module, "wide_row", row, before=first))
        else:
            args.append(value)
        own += kind[0] in ("slice", "constant")
    positional, keywords = bind_arguments(first, args)
    wide = insert_call(module, first.target, positional, before=first, like=first, shape=(rows, width))
    wide.kwargs = keywords
    start = 0
    for member in run:
        part = _span(module, wide, start, start + member.width, first)
        member.node.replace_all_uses_with(part)
        start += member.width
    for member in run:
        module.graph.erase_node(member.node)


def _row(part: _Part) -> Tensor:
    if part.row is None:
        raise TypeError("the operand is a slice, expected a constant")
    return part.row


def _span(module: fx.GraphModule, source: fx.Node, start: int, end: int, before: fx.Node) -> fx.Node:
    rows, width = shape_of(source)
    if (start, end) == (0, width):
        return source
    bounds = (source, 1, start, end)
    take = torch.ops.aten.slice.Tensor
    return insert_call(module, take, bounds, before=before, like=source, shape=(rows, end - start))
