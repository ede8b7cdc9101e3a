"""A module's computation as a graph of ATen calls, and the few helpers that every rewrite needs.

Rewrites work on this graph rather than on the tree of modules: it shows who really uses a value, however the
module was written (`nn.Sequential`, attributes, `torch.nn.functional`), so that a pattern is only ever
replaced where nothing else depends on its inner values.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

EXAMPLE_BATCH = 3  # not 0 or 1, which torch.export specialises on, and no usual layer size


def trace(module: nn.Module, inputs: Mapping[str, Tensor]) -> fx.GraphModule:
    """Trace a copy of a module, in eval mode and with a dynamic batch size, into ATen calls.

    Args:
      module: called with the tensors of `inputs` as positional arguments; left untouched.
      inputs: example inputs by name, batch first, all of one batch size of two or more.
    Returns:
      A graph that computes what `module` computes; its parameters are its own.
    Raises:
      Exception: whatever torch.export raises on a module that it cannot capture.
    """
    frozen = copy.deepcopy(module).eval().requires_grad_(False)
    batch = torch.export.Dim("n", min=1)
    shapes = tuple({0: batch} for _ in inputs)
    program = torch.export.export(frozen, tuple(inputs.values()), dynamic_shapes=shapes, strict=False)
    # Newer versions of torch add a call that re-checks the input shapes at run time; it has no place in an
    # engine.
    has_guards = "check_guards" in inspect.signature(program.module).parameters
    unlifted = program.module(check_guards=False) if has_guards else program.module()
    if not isinstance(unlifted, fx.GraphModule):
        raise TypeError(f"torch.export gave a {type(unlifted).__name__}, expected a GraphModule")
    return _plain(unlifted)


def _plain(module: fx.GraphModule) -> fx.GraphModule:
    """A traced module as a plain function: tensors in, in order; one tensor out, or several in order."""
    graph = fx.Graph()
    values = graph.graph_copy(module.graph, {})
    graph.output(values[0] if isinstance(values, tuple | list) and len(values) == 1 else values)
    return fx.GraphModule(module, graph)


def arguments(node: fx.Node) -> dict[str, Any]:
    """All arguments of an ATen call by their names in its schema, defaults included."""
    values = {}
    for position, argument in enumerate(node.target._schema.arguments):  # type: ignore[union-attr]
        if position < len(node.args):
            values[argument.name] = node.args[position]
        elif argument.name in node.kwargs:
            values[argument.name] = node.kwargs[argument.name]
        else:
            values[argument.name] = argument.default_value
    return values


def bind_arguments(node: fx.Node, values: Iterable[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """All arguments of an ATen call in the order of `arguments`, as positional and keyword ones."""
    schema = node.target._schema.arguments  # type: ignore[union-attr]
    pairs = list(zip(schema, values, strict=True))
    keywords = {argument.name: value for argument, value in pairs if argument.kwarg_only}
    return tuple(value for argument, value in pairs if not argument.kwarg_only), keywords


def is_call(node: object, *operators: str) -> bool:
    """Whether a node calls one of these ATen operators, named without their overload (`"conv2d"`)."""
    if not isinstance(node, fx.Node) or node.op != "call_function":
        return False
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.name in {f"aten::{operator}" for operator in operators}


def shape_of(node: fx.Node) -> tuple[Any, ...]:
    """The traced shape of a node's tensor; the batch axis is symbolic. Empty where the node has no tensor."""
    value = node.meta.get("val")
    return tuple(value.shape) if isinstance(value, Tensor) else ()


def constant(module: fx.GraphModule, node: object) -> Tensor | None:
    """The tensor behind a node that reads a parameter or buffer, or None.

    A tensor that some call of the graph writes to (running statistics, counters) is not a constant.
    """
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return None
    for user in node.users:
        schema = getattr(user.target, "_schema", None)
        if schema is None and user.op != "output":
            return None
        if schema is not None and schema.is_mutable:
            return None
    value: Any = module
    for part in str(node.target).split("."):
        value = getattr(value, part)
    return value.detach() if isinstance(value, Tensor) else None


def add_constant(module: fx.GraphModule, name: str, value: Tensor, *, before: fx.Node) -> fx.Node:
    """Register a tensor under a free name that begins with `name`, and read it just before a node."""
    taken = {target for target, _ in module.named_buffers()} | {
        target for target, _ in module.named_parameters()
    }
    number = 0
    while (target := f"{name}_{number}") in taken or hasattr(module, target):
        number += 1
    module.register_buffer(target, value.detach().clone())
    with module.graph.inserting_before(before):
        node = module.graph.get_attr(target)
    node.meta["val"] = value
    return node


def insert_call(
    module: fx.GraphModule,
    target: Any,
    args: tuple[Any, ...],
    *,
    before: fx.Node,
    like: fx.Node,
    shape: Sequence[Any],
) -> fx.Node:
    """Add a call just before a node; its result has this traced shape and the dtype of `like`'s."""
    with module.graph.inserting_before(before):
        node = module.graph.call_function(target, args)
    node.meta["val"] = like.meta["val"].new_empty(tuple(shape))
    return node


def writes_in_place(module: fx.GraphModule) -> bool:
    """Whether any call writes into an argument; then a value may not be what it was when it was made."""
    schemas = (getattr(node.target, "_schema", None) for node in module.graph.nodes)
    return any(schema is not None and schema.is_mutable for schema in schemas)


def channel_slice(node: object) -> tuple[fx.Node, int, int] | None:
    """(source, start, end) of a call that takes a run of a value's channels (axis 1), or None."""
    if not isinstance(node, fx.Node) or not is_call(node, "slice"):
        return None
    given = arguments(node)
    source = given["self"]
    if not isinstance(source, fx.Node):
        return None
    sizes = shape_of(source)
    if (
        len(sizes) < 2
        or given["step"] != 1
        or given["dim"] % len(sizes) != 1
        or not isinstance(sizes[1], int)
    ):
        return None
    start, end = (
        sizes[1] if bound is None and default else bound or 0
        for bound, default in ((given["start"], False), (given["end"], True))
    )
    if not isinstance(start, int) or not isinstance(end, int):
        return None
    start, end, _ = slice(start, end).indices(sizes[1])
    return (source, start, end) if start < end else None


def tidy(module: fx.GraphModule) -> fx.GraphModule:
    """The module without calls whose results nobody reads and without tensors that are no longer read."""
    module.graph.eliminate_dead_code()
    module.graph.lint()
    return fx.GraphModule(module, module.graph)  # takes over what the graph reads, and nothing else
