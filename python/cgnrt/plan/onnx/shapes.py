"""How large every tensor of a graph becomes, worked out before an engine sees the graph.

Engines fold constants and reserve memory while they load, so a few bytes of a hostile graph (a
ConstantOfShape, an Expand, a Concat of a Concat ...) could ask for terabytes. Every operator that plans
may use has a rule in `rules`; the rules are run once with a batch of `BATCH` images, the values of small
tensors carried along where sizes are computed from them, and each result is compared with the format's limit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from cgnrt.errors import PlanError, refuse, show, within
from cgnrt.plan.limits import MAX_ELEMENTS, MAX_RANK
from cgnrt.plan.manifest import TensorSpec
from cgnrt.plan.onnx.model import Model, Node
from cgnrt.plan.onnx.tensor import Tensor

# A prime that is seldom a network's own size, so that a batch baked into a Reshape does not fit by accident.
BATCH = 11
# Sizes are integers, Resize's scales float32, conditions bool. Arithmetic in other types wraps and rounds in its
# own way, so that their values are not followed.
_VALUE_TYPES = ("int64", "int32", "float32", "bool")
# Tensors up to this many elements keep their values: shapes, axes, pads, scales.
MAX_VALUES = 64


class Info(NamedTuple):
    """What is known of a tensor: dimensions, values of a small one, and whether all inputs give the same."""

    dims: tuple[int, ...]
    values: np.ndarray | None = None  # Python numbers (dtype object), shape `dims`
    constant: bool = False


class Operands:
    """A node as its rule sees it: inputs by position and attributes by name, of the type asked for."""

    def __init__(self, node: Node, inputs: Sequence[Info | None], graph: bytes) -> None:
        self.node = node
        self.inputs = inputs
        self._graph = graph

    def __getitem__(self, index: int) -> Info:
        info = self.get(index)
        if info is None:
            raise refuse(f"input {index}", "missing", f"an operand of {self.node.op}")
        return info

    def get(self, index: int) -> Info | None:
        return self.inputs[index] if index < len(self.inputs) else None

    def all(self) -> list[Info]:
        return [self[index] for index in range(max(1, len(self.inputs)))]

    def dims(self, index: int, rank: int = 0) -> tuple[int, ...]:
        """Dimensions of an input of at least `rank`."""
        dims = self[index].dims
        if len(dims) < rank:
            raise refuse(f"rank of input {index}", len(dims), f">= {rank}")
        return dims

    def sizes(self, index: int) -> list[int]:
        """The integers in an input that sets sizes."""
        values = self.numbers(index)
        if any(type(value) is not int for value in values):
            raise refuse(f"input {index}", show(values), "integers")
        return [int(value) for value in values]

    def numbers(self, index: int) -> list[int | float]:
        values = self[index].values
        if values is None:
            rule = f"up to {MAX_VALUES} constants or 32-bit numbers computed from shapes"
            raise refuse(f"input {index} (which sets the size)", "unknown", rule)
        return list(values.reshape(-1))

    def integer(self, name: str, default: int) -> int:
        value = self.node.attributes.get(name, default)
        if type(value) is not int:
            raise refuse(f"attribute {name}", show(value), "an integer")
        return value

    def integers(self, name: str) -> list[int] | None:
        value = self.node.attributes.get(name)
        if value is None:
            return None
        if not isinstance(value, list) or any(type(item) is not int for item in value):
            raise refuse(f"attribute {name}", show(value), "integers")
        return [item for item in value if isinstance(item, int)]

    def text(self, name: str, default: str) -> str:
        value = self.node.attributes.get(name, default)
        if not isinstance(value, str):
            raise refuse(f"attribute {name}", show(value), "a string")
        return value

    def tensor(self, name: str) -> Info | None:
        value = self.node.attributes.get(name)
        if value is None:
            return None
        if not isinstance(value, Tensor):
            raise refuse(f"attribute {name}", show(value), "a tensor")
        return tensor_info(value, self._graph, None)


Rule = Callable[[Operands], list[Info]]


def tensor_info(tensor: Tensor, graph: bytes, weights: bytes | memoryview | None) -> Info:
    """An initializer's or constant's dimensions, and its values where it is small."""
    values: np.ndarray | None = None
    if tensor.elements <= MAX_VALUES and tensor.dtype.name in _VALUE_TYPES:
        if tensor.numbers is not None:
            values = np.array(tensor.numbers, dtype=object)
        else:
            raw = b""
            if tensor.external is not None and weights is not None:
                raw = bytes(weights[tensor.external.offset : tensor.external.offset + tensor.external.length])
            elif tensor.span is not None:
                raw = graph[slice(*tensor.span)]
            values = np.frombuffer(raw, dtype=tensor.dtype.numpy).astype(object)
        values = values.reshape(tensor.dims)
    return Info(tensor.dims, values, True)


def check_shapes(
    model: Model,
    weights: bytes | memoryview | None,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    rules: Mapping[str, Rule],
) -> None:
    """Run the rules over a graph whose links are sound.

    Raises:
      PlanError: an operator is unknown, its operands do not fit it, a tensor is larger than the limit, or an
        output has not the manifest's shape.
    """
    known: dict[str, Info | None] = {"": None}
    for spec in inputs:
        known[spec.name] = Info(_concrete(spec))
    for name, tensor in model.initializers.items():
        known[name] = tensor_info(tensor, model.data, weights)
    folded = 0
    for index, node in enumerate(model.nodes):
        try:
            rule = rules.get(node.op)
            if rule is None:
                raise refuse("operator", show(node.op), "one that docs/plan-format.md lists")
            operands = Operands(node, [known[name] for name in node.inputs], model.data)
            constant = all(info is None or info.constant for info in operands.inputs)
            results = _apply(rule, operands)
            if len(node.outputs) > len(results):
                raise refuse("number of outputs", len(node.outputs), f"<= {len(results)}")
            for name, info in zip(node.outputs, results, strict=False):
                elements = _check_size(info.dims, constant)
                if constant:
                    folded += elements
                known[name] = Info(info.dims, info.values if elements <= MAX_VALUES else None, constant)
            known[""] = None
            if folded > MAX_ELEMENTS:
                raise refuse("constants computed so far", f"{folded} elements", f"<= {MAX_ELEMENTS} in all")
        except PlanError as error:
            raise within(f"node {index} ({show(node.op)})", error) from None
    for spec in outputs:
        result = known[spec.name]
        if result is None or result.dims != _concrete(spec):
            found = show(list(result.dims)) if result else "unknown"
            rule_text = f"{list(_concrete(spec))} for a batch of {BATCH}"
            raise refuse(f"graph output {spec.name!r}: computed shape", found, rule_text)


def _concrete(spec: TensorSpec) -> tuple[int, ...]:
    return tuple(dim if isinstance(dim, int) else BATCH for dim in spec.shape)


def _apply(rule: Rule, operands: Operands) -> list[Info]:
    try:
        return rule(operands)
    except (ArithmeticError, IndexError, TypeError, ValueError) as error:
        # A rule calculates with numbers from the file: those that its arithmetic cannot take are malformed.
        raise refuse("operands", f"malformed ({error})", f"those of {operands.node.op}") from None


def _check_size(dims: tuple[int, ...], constant: bool) -> int:
    if len(dims) > MAX_RANK:
        raise refuse("rank of the result", len(dims), f"<= {MAX_RANK}")
    limit = MAX_ELEMENTS if constant else MAX_ELEMENTS * BATCH
    elements = 1
    for dim in dims:
        if dim < 0:
            raise refuse("shape of the result", show(list(dims)), "sizes >= 0")
        elements *= dim
    if elements > limit or any(dim > limit for dim in dims):
        found = f"{show(list(dims))}, {elements} elements"
        raise refuse("shape of the result", found, f"<= {limit} elements")
    return elements
