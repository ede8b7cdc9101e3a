"""Exact rewrites of a recorded graph for fewer passes over memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx
from torch.nn import functional as F

from cgnrt.backends.torch.tracer import EXAMPLES

# What gives memory of its own, which nothing else reads.
_FRESH = {
    torch.convolution,
    torch.addcmul,
    torch.add,
    torch.sub,
    torch.mul,
    torch.div,
    torch.cat,
    torch.matmul,
    torch.group_norm,
    F.linear,
    F.interpolate,
    F.max_pool2d,
    F.avg_pool2d,
}
# Activations that can overwrite what they read.
_IN_PLACE: dict[Any, Callable[..., Any]] = {
    torch.relu: torch.relu_,
    torch.tanh: torch.tanh_,
    torch.sigmoid: torch.sigmoid_,
    torch.clamp: torch.clamp_,
    F.leaky_relu: F.leaky_relu_,
    F.elu: F.elu_,
}


def rewrite(graph: fx.Graph) -> None:
    """Change the graph in place; what it computes stays the same, up to one rounding less."""
    join_scale_and_shift(graph)
    overwrite(graph)
    graph.lint()


def join_scale_and_shift(graph: fx.Graph) -> None:
    """x * scale + shift in one pass, rounded once."""
    for node in list(graph.nodes):
        if node.target is not torch.add or node.kwargs or len(node.args) != 2:
            continue
        for product, shift in (node.args, node.args[::-1]):
            if _is(product, torch.mul) and len(product.users) == 1 and isinstance(shift, fx.Node):
                break
        else:
            continue
        factors = [product, *product.args]
        if not all(isinstance(factor, fx.Node) for factor in product.args):
            continue
        # Only where the product is the picture, and the shift is less: else an addition in place is as good.
        if shift is product or _shapes(product) != _shapes(node) or _shapes(shift) == _shapes(node):
            continue
        if len({_dtype(part) for part in (*factors, shift)}) > 1:
            continue
        with graph.inserting_before(node):
            joined = graph.call_function(torch.addcmul, (shift, *product.args))
        joined.meta = dict(node.meta)
        node.replace_all_uses_with(joined)
        graph.erase_node(node)
        graph.erase_node(product)


def overwrite(graph: fx.Graph) -> None:
    """Write activations and sums over an operand that nothing else reads."""
    for node in graph.nodes:
        if node.op != "call_function":
            continue
        if node.target in _IN_PLACE and _is_free(node.args[0], node):
            node.target = _IN_PLACE[node.target]
        elif node.target is torch.add and not node.kwargs and len(node.args) == 2:
            for mine, other in (node.args, node.args[::-1]):
                if isinstance(other, fx.Node) and mine is not other and _is_free(mine, node):
                    node.target, node.args = torch.Tensor.add_, (mine, other)
                    break


def _is_free(value: Any, reader: fx.Node) -> bool:
    """Whether a value's memory is its own, of the form that its only reader's result has."""
    if not isinstance(value, fx.Node) or value.op != "call_function" or list(value.users) != [reader]:
        return False
    fresh = value.target in _FRESH or value.target in _IN_PLACE or value.target in _OVERWRITING
    if value.target is torch.Tensor.to:  # which copies where the type is another
        fresh = _dtype(value) != _dtype(value.all_input_nodes[0])
    return fresh and _shapes(value) == _shapes(reader) and _dtype(value) == _dtype(reader)


_OVERWRITING = {*_IN_PLACE.values(), torch.Tensor.add_}


def _is(value: Any, target: Any) -> bool:
    return isinstance(value, fx.Node) and value.op == "call_function" and value.target is target


def _shapes(node: fx.Node) -> list[torch.Size]:
    return [example.shape for example in node.meta.get(EXAMPLES, ())]


def _dtype(node: fx.Node) -> torch.dtype | None:
    examples = node.meta.get(EXAMPLES, ())
    return examples[0].dtype if examples else None
