"""A node's inputs and attributes, as operators read them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from cgnrt.backends.torch.tracer import Tracer, Value
from cgnrt.plan.onnx.model import Node
from cgnrt.plan.onnx.wire import Tensor as OnnxTensor

TYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "uint8": torch.uint8,
    "int8": torch.int8,
    "int32": torch.int32,
    "int64": torch.int64,
    "bool": torch.bool,
}
_FLOATS = (torch.float32, torch.float16, torch.bfloat16)


class UnsupportedError(Exception):
    """The backend does not support something in a graph. The message names it."""


class Operands:
    """The inputs and attributes of one node.

    Args:
      values: of the inputs, not yet in `dtype`: numbers that are read on the host are not rounded.
      dtype: the type that the node computes floats in.
    Attributes:
      read: gives the values of a tensor of the graph.
    """

    def __init__(
        self,
        tracer: Tracer,
        node: Node,
        values: Sequence[Value | None],
        dtype: torch.dtype,
        opset: int,
        read: Callable[[OnnxTensor], torch.Tensor],
    ) -> None:
        self.tracer = tracer
        self.node = node
        self.opset = opset
        self.read = read
        self._values = values
        self._dtype = dtype

    def __getitem__(self, position: int) -> Value:
        value = self._given(position)
        if value.dtype == self._dtype or value.dtype not in _FLOATS:
            return value
        return self.tracer.on_device(value, self._dtype)

    def optional(self, position: int) -> Value | None:
        """An operand; None where it is left out."""
        return self[position] if self.has(position) else None

    def has(self, position: int) -> bool:
        return position < len(self._values) and self._values[position] is not None

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Value:
        """Record a function that returns one tensor, as `Tracer.call` has it."""
        found: Value = self.tracer.call(function, *args, **kwargs)
        return found

    def all(self) -> list[Value]:
        return [self[k] for k in range(len(self._values))]

    def numbers(self, position: int) -> Any:
        """An operand that must be known on the host, as a number or a list."""
        try:
            return self.tracer.numbers(self._given(position))
        except ValueError as error:
            raise UnsupportedError(f"{self.node.op} with {error}") from error

    def sizes(self, position: int) -> list[Any]:
        found = self.numbers(position)
        return found if isinstance(found, list) else [found]

    def fixed(self, position: int) -> list[int]:
        """Whole numbers that do not depend on the batch."""
        found = self.sizes(position)
        if not all(type(item) is int for item in found):
            raise UnsupportedError(f"{self.node.op} with axes or numbers that depend on the batch")
        return found

    def get(self, name: str, default: Any) -> Any:
        """An attribute, which must have the type of the default; with None as the default, any type."""
        found = self.node.attributes.get(name, default)
        if isinstance(default, float) and isinstance(found, int):
            return float(found)
        if default is not None and type(found) is not type(default):
            raise UnsupportedError(f"{self.node.op} with {name} {found}")
        return found

    def want(self, name: str, *values: Any) -> Any:
        """An attribute, which must be one of the values; the first of them if it is left out."""
        found = self.node.attributes.get(name, values[0])
        if found not in values:
            raise UnsupportedError(f"{self.node.op} with {name} {found}")
        return found

    def axes(self, position: int) -> list[int] | None:
        """Axes, by operand or by attribute as the operator set has it; None where they are left out."""
        if self.has(position):
            return self.fixed(position)
        found: list[int] | None = self.get("axes", None)
        return found

    def _given(self, position: int) -> Value:
        value = self._values[position] if position < len(self._values) else None
        if value is None:
            raise UnsupportedError(f"{self.node.op} without operand {position}")
        return value
