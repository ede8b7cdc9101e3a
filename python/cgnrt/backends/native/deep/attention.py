"""Self-attention in a graph: reshapes, transposes, two products and a softmax that are one step of the engine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from cgnrt.backends.native.deep.program import TRY, Step
from cgnrt.backends.native.deep.state import Compiler
from cgnrt.backends.native.graph import UnsupportedGraphError
from cgnrt.plan.onnx.model import Node


@dataclass(frozen=True)
class Flat:
    """A picture as a matrix (n, channels, pixels), or (n, pixels, channels) if turned."""

    picture: int
    turned: bool = False


@dataclass(frozen=True)
class Scores:
    """query^T key, (n, pixels of the query, of the key), or the other way round if turned."""

    query: int
    key: int
    shares: bool = False  # after the softmax over the key's pixels
    turned: bool = False


@dataclass(frozen=True)
class Attended:
    """The value's channels at the query's pixels, (n, channels, pixels)."""

    picture: int


def read_reshape(state: Compiler, node: Node) -> None:
    value = state.values[node.inputs[0]]
    sizes = [int(size) for size in state.fixed(node.inputs[1])]
    if isinstance(value, Attended):
        made = state.pictures[value.picture]
        if sizes[1:] != [made.channels, made.height, made.width]:
            raise UnsupportedGraphError(f"Reshape to {sizes}")
        state.add_value(node.outputs[0], value.picture)
        if state.readers[node.inputs[0]] > 1:  # nothing may be folded into what another value is, too
            state.readers[node.outputs[0]] += 1
        return
    picture = state.read(node.inputs[0])
    given = state.pictures[picture]
    pixels = given.height * given.width
    wanted = ((TRY, 0, -1), (given.channels, -1), (pixels, -1))
    if len(sizes) != 3 or any(size not in good for size, good in zip(sizes, wanted, strict=True)):
        raise UnsupportedGraphError(f"Reshape of a picture to {sizes}")
    state.values[node.outputs[0]] = Flat(picture)


def read_transpose(state: Compiler, node: Node) -> None:
    value = state.values[node.inputs[0]]
    if not isinstance(value, Flat | Scores) or node.attributes.get("perm") != [0, 2, 1]:
        raise UnsupportedGraphError("Transpose of a picture")
    state.values[node.outputs[0]] = replace(value, turned=not value.turned)


def read_product(state: Compiler, node: Node) -> None:
    left, right = (state.values.get(name) for name in node.inputs)
    made: Any = None
    if isinstance(left, Flat) and isinstance(right, Flat) and left.turned and not right.turned:
        made = Scores(left.picture, right.picture)
    elif isinstance(left, Flat) and isinstance(right, Scores) and not left.turned:
        made = _attend(state, right, left.picture, node.outputs[0])
    if made is None:
        raise UnsupportedGraphError("MatMul outside self-attention")
    state.values[node.outputs[0]] = made


def read_softmax(state: Compiler, node: Node) -> None:
    value = state.values[node.inputs[0]]
    if (
        not isinstance(value, Scores)
        or value.turned
        or value.shares
        or node.attributes.get("axis", -1) not in (-1, 2)
    ):
        raise UnsupportedGraphError("Softmax outside self-attention")
    state.values[node.outputs[0]] = replace(value, shares=True)


def _attend(state: Compiler, scores: Scores, value: int, name: str) -> Attended | None:
    if not (scores.shares and scores.turned):
        return None
    query = state.pictures[scores.query]
    out = state.picture(state.pictures[value].channels, query.height, query.width)
    state.add(Step("attention", [scores.query, scores.key, value], out), name)
    return Attended(out)
