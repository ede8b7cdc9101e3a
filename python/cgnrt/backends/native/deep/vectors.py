"""The operators of a graph's small part, evaluated by NumPy as ONNX defines them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from cgnrt.backends.native.graph import Graph, UnsupportedGraphError, number
from cgnrt.plan.onnx.model import Node
from cgnrt.plan.onnx.wire import DATA_TYPES, Tensor

Arrays = Sequence[Any]  # operands; None where one is left out


def evaluate(graph: Graph, nodes: Sequence[Node], given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Values of all nodes, which are in an order in which each finds its operands.

    Args:
      given: the graph's inputs by name.
    """
    values: dict[str, np.ndarray] = dict(given)
    for node in nodes:
        run_node(graph, node, values)
    return values


def run_node(graph: Graph, node: Node, values: dict[str, np.ndarray]) -> None:
    """Add the result of one node to `values`."""
    operands = []
    for name in node.inputs:
        if name and name not in values:
            values[name] = graph.constant(name)
        operands.append(values[name] if name else None)
    if node.op == "Constant":
        values[node.outputs[0]] = _constant(graph, node)
        return
    with np.errstate(all="ignore"):  # infinities and NaNs are results like others, as in other engines
        results = OPERATORS[node.op](node, operands)
    for name, result in zip(node.outputs, results if isinstance(results, list) else [results], strict=True):
        values[name] = result


def _constant(graph: Graph, node: Node) -> np.ndarray:
    value = node.attributes.get("value")
    if not isinstance(value, Tensor):
        raise UnsupportedGraphError("Constant nodes without a tensor")
    return graph.array(value)


def _axis(node: Node, default: int) -> int:
    axis = node.attributes.get("axis", default)
    if not isinstance(axis, int):
        raise UnsupportedGraphError(f"{node.op} with axis {axis}")
    return axis


def _gemm(node: Node, x: Arrays) -> Any:
    a, b = (
        array.T if node.attributes.get(flag, 0) else array
        for array, flag in zip(x[:2], ("transA", "transB"), strict=True)
    )
    product = np.float32(number(node, "alpha", 1.0)) * (a @ b)
    if len(x) > 2 and x[2] is not None:
        product += np.float32(number(node, "beta", 1.0)) * x[2]
    return product


def _reshape(node: Node, x: Arrays) -> Any:
    array, wanted = x[0], x[1]
    sizes = [int(size) for size in wanted]
    if not node.attributes.get("allowzero", 0):
        copied = {k for k, size in enumerate(sizes) if size == 0}
        if -1 in sizes:  # NumPy cannot compute it for a batch of 0
            left = math.prod(size for k, size in enumerate(array.shape) if k not in copied)
            sizes[sizes.index(-1)] = left // math.prod(size for size in sizes if size > 0)
        sizes = [array.shape[k] if k in copied else size for k, size in enumerate(sizes)]
    return array.reshape(sizes)


def _slice(node: Node, x: Arrays) -> Any:
    array = x[0]
    starts, ends = (np.asarray(part).tolist() for part in x[1:3])
    axes = np.asarray(x[3]).tolist() if len(x) > 3 and x[3] is not None else list(range(len(starts)))
    steps = np.asarray(x[4]).tolist() if len(x) > 4 and x[4] is not None else [1] * len(starts)
    where = [slice(None)] * array.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if step < 1:
            raise UnsupportedGraphError("Slice with a step below 1")
        where[axis] = slice(start, end, step)
    return array[tuple(where)]


def _clip(node: Node, x: Arrays) -> Any:
    low, high = (x[k] if len(x) > k else None for k in (1, 2))
    return x[0] if low is None and high is None else np.clip(x[0], low, high)


def _cast(node: Node, x: Arrays) -> Any:
    to = node.attributes.get("to")
    kind = DATA_TYPES.get(to) if isinstance(to, int) else None
    if kind is None or kind.numpy is None:
        raise UnsupportedGraphError(f"Cast to type {node.attributes.get('to')}")
    return x[0].astype(kind.numpy)


def _unsqueeze(node: Node, x: Arrays) -> Any:
    return np.expand_dims(x[0], tuple(np.asarray(x[1]).tolist()))


def _squeeze(node: Node, x: Arrays) -> Any:
    axes = tuple(np.asarray(x[1]).tolist()) if len(x) > 1 else None
    return np.squeeze(x[0], axes)


def _shape(node: Node, x: Arrays) -> Any:
    return np.asarray(shape_part(node, x[0].shape), np.int64)


def shape_part(node: Node, shape: Sequence[int]) -> Sequence[int]:
    """What a Shape node says of a shape."""
    attributes: Mapping[str, Any] = node.attributes
    return shape[attributes.get("start", 0) : attributes.get("end")]


def _divide(node: Node, x: Arrays) -> Any:
    if x[0].dtype.kind != "f":
        raise UnsupportedGraphError("Div of integers")
    return x[0] / x[1]


def _gather(node: Node, x: Arrays) -> Any:
    return np.take(x[0], x[1].astype(np.intp), axis=_axis(node, 0))


def _concat(node: Node, x: Arrays) -> Any:
    return np.concatenate([part for part in x if part is not None], axis=_axis(node, 0))


def _transpose(node: Node, x: Arrays) -> Any:
    attributes: Mapping[str, Any] = node.attributes
    return np.transpose(x[0], attributes.get("perm"))


def _flatten(node: Node, x: Arrays) -> Any:
    if _axis(node, 1) != 1:
        raise UnsupportedGraphError("Flatten from another axis than 1")
    return x[0].reshape(x[0].shape[0], math.prod(x[0].shape[1:]))


def _plain(function: Callable[..., Any]) -> Callable[[Node, Arrays], Any]:
    return lambda node, x: function(*x)


OPERATORS: dict[str, Callable[[Node, Arrays], Any]] = {
    "Abs": _plain(np.abs),
    "Add": _plain(np.add),
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "Constant": lambda node, x: None,  # run_node reads its tensor
    "Div": _divide,
    "Equal": _plain(np.equal),
    "Exp": _plain(np.exp),
    "Expand": lambda node, x: x[0] * np.ones(np.asarray(x[1]).tolist(), x[0].dtype),
    "Flatten": _flatten,
    "Floor": _plain(np.floor),
    "Gather": _gather,
    "Gemm": _gemm,
    "Greater": _plain(np.greater),
    "GreaterOrEqual": _plain(np.greater_equal),
    "Identity": lambda node, x: x[0],
    "Less": _plain(np.less),
    "LessOrEqual": _plain(np.less_equal),
    "MatMul": _plain(np.matmul),
    "Mul": _plain(np.multiply),
    "Neg": _plain(np.negative),
    "Reciprocal": lambda node, x: np.float32(1) / x[0],
    "Relu": lambda node, x: np.maximum(x[0], 0),
    "Reshape": _reshape,
    "Round": _plain(np.rint),
    "Shape": _shape,
    "Slice": _slice,
    "Sqrt": _plain(np.sqrt),
    "Squeeze": _squeeze,
    "Sub": _plain(np.subtract),
    "Tanh": _plain(np.tanh),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _plain(np.where),
}
