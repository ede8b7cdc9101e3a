"""Records torch operations as an fx graph, and knows the shape of every result for every batch size.

Each value has an example for three batch sizes: a meta tensor, without memory, of what is computed on the device; a CPU
tensor of what is known on the host. What depends only on constants and sizes is computed here, once: a size that grows
with the batch is written down as `factor * n + offset`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

BATCHES = (2, 3, 5)
EXAMPLES = "examples"  # where a node keeps them
META = torch.device("meta")
_FEW = 1024  # elements of a value that is computed on the host for each batch size, at most


class Size(NamedTuple):
    """A number that depends on the batch size n: `factor * n + offset`."""

    factor: int
    offset: int


@dataclass(eq=False)
class Value:
    """A value of the graph.

    Attributes:
      examples: a tensor for each batch size; the same object for all if the batch does not matter.
      node: what computes it; None where it is known on the host.
    """

    examples: tuple[Tensor, ...]
    node: fx.Node | None = None

    @property
    def on_host(self) -> bool:
        return self.node is None

    @property
    def constant(self) -> Tensor | None:
        """Its values on the host, if they do not depend on the batch; else None."""
        first = self.examples[0]
        return first if self.on_host and all(other is first for other in self.examples) else None

    @property
    def dtype(self) -> torch.dtype:
        return self.examples[0].dtype

    @property
    def rank(self) -> int:
        return self.examples[0].dim()

    @property
    def shape(self) -> tuple[int | str, ...]:
        """Its sizes; one that depends on the batch is "n"."""
        shapes = zip(*(example.shape for example in self.examples), strict=True)
        return tuple(sizes[0] if len(set(sizes)) == 1 else "n" for sizes in shapes)


class Constant(NamedTuple):
    """What is sent to the device when an engine is loaded; `tensor` may be the plan's own memory."""

    tensor: Tensor
    dtype: torch.dtype


class Tracer:
    """Builds one graph for a device.

    Attributes:
      constants: by the name of the module's buffer.
    """

    def __init__(self, device: torch.device) -> None:
        self.graph = fx.Graph()
        self._device = device
        self.constants: dict[str, Constant] = {}
        self._batch: fx.Node | None = None
        self._sizes: dict[Size, Any] = {}
        self._casts: dict[tuple[Value, torch.dtype], Value] = {}
        self._uploaded: dict[tuple[int, torch.dtype], Value] = {}

    def placeholder(self, shape: Sequence[int]) -> Value:
        """An input, float32, whose first axis is the batch; `shape` are the others."""
        node = self.graph.placeholder(f"x{len(self.graph.nodes)}")
        examples = [torch.empty((n, *shape), dtype=torch.float32, device=META) for n in BATCHES]
        found: Value = self._value(examples, node)
        return found

    def take_batch(self, value: Value) -> None:
        """Read the batch size from an input, once all placeholders are there."""
        self._batch = self.graph.call_function(torch.Tensor.size, (value.node, 0))

    def host(self, tensor: Tensor) -> Value:
        """A constant."""
        return Value((tensor,) * len(BATCHES))

    def shape(self, value: Value, axes: slice) -> Value:
        """Some of a value's sizes, int64, on the host."""
        shapes = [torch.tensor(e.shape[axes], dtype=torch.int64) for e in value.examples]
        found: Value = self._value(shapes, None)
        return found

    def call(self, target: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Record `target(*args, **kwargs)`, whose arguments may hold Values, Sizes and META, for the device.

        Returns:
          A Value, or a list of them where the function returns several tensors.
        """
        leaves = _leaves((args, kwargs))
        values = [leaf for leaf in leaves if isinstance(leaf, Value)]
        if values and all(v.on_host for v in values) and not any(isinstance(leaf, Size) for leaf in leaves):
            found = self._on_host(target, args, kwargs, values)
            if found is not None:
                return found
        args, kwargs = _map((args, kwargs), self._sent)
        results = [
            target(*a, **k) for a, k in (_map((args, kwargs), _example(n)) for n in range(len(BATCHES)))
        ]
        args, kwargs = _map((args, kwargs), self._argument)
        return self._value(results, self.graph.call_function(target, args, kwargs))

    def numbers(self, value: Value) -> Any:
        """A value that is known on the host, as a Python number or a list: numbers, and Sizes.

        Raises:
          ValueError: it is not known, or does not grow evenly with the batch.
        """
        if not value.on_host:
            raise ValueError("sizes that the network computes")
        if value.constant is not None:
            return value.constant.tolist()
        found = sizes([example.reshape(-1).tolist() for example in value.examples])
        return found if value.rank else found[0]

    def on_device(self, value: Value, dtype: torch.dtype | None = None) -> Value:
        """A value as the device has it, in another type if one is given."""
        wanted = dtype or value.dtype
        if not value.on_host:
            if value.dtype == wanted:
                return value
            if (value, wanted) not in self._casts:
                self._casts[value, wanted] = self.call(torch.Tensor.to, value, wanted)
            return self._casts[value, wanted]
        tensor = value.constant
        if tensor is None:
            flat = self.numbers(value)
            flat = flat if isinstance(flat, list) else [flat]
            made = self.call(torch.tensor, flat, dtype=wanted, device=META)
            found: Value = self.call(torch.reshape, made, list(value.examples[0].shape))
            return found
        key = (id(tensor), wanted)
        if key not in self._uploaded:
            name = f"c{len(self.constants)}"
            self.constants[name] = Constant(tensor, wanted)
            example = torch.empty(tensor.shape, dtype=wanted, device=META)
            self._uploaded[key] = self._value([example] * len(BATCHES), self.graph.get_attr(name))
        return self._uploaded[key]

    def finish(self, outputs: Sequence[Value]) -> None:
        """Let the graph return these values, float32."""
        self.graph.output(tuple(self.on_device(value, torch.float32).node for value in outputs))
        self.graph.eliminate_dead_code()

    def _on_host(
        self, target: Any, args: Any, kwargs: Any, values: Sequence[Value]
    ) -> Value | list[Value] | None:
        """What a function makes of values that are known on the host; None where that is left to the device."""
        fixed = all(value.constant is not None for value in values)
        calls = (_map((args, kwargs), _example(n)) for n in range(1 if fixed else len(BATCHES)))
        results = [target(*a, **k) for a, k in calls]
        for parts in zip(*(r if isinstance(r, tuple | list) else [r] for r in results), strict=True):
            if not fixed and (len({part.shape for part in parts}) > 1 or parts[0].numel() > _FEW):
                return None
        found: Value | list[Value] = self._value(results * len(BATCHES) if fixed else results, None)
        return found

    def _value(self, results: Sequence[Any], node: fx.Node | None) -> Any:
        first = results[0]
        if isinstance(first, tuple | list):
            return [
                self._value(
                    [result[k] for result in results],
                    None if node is None else self.graph.call_function(operator.getitem, (node, k)),
                )
                for k in range(len(first))
            ]
        if node is not None:
            node.meta[EXAMPLES] = tuple(results)
        elif all(other.shape == first.shape and torch.equal(other, first) for other in results[1:]):
            results = [first] * len(BATCHES)  # the batch does not matter
        return Value(tuple(results), node)

    def _sent(self, leaf: Any) -> Any:
        return self.on_device(leaf) if isinstance(leaf, Value) else leaf

    def _argument(self, leaf: Any) -> Any:
        """A leaf of the arguments as the graph takes it."""
        if isinstance(leaf, Value):
            return leaf.node
        if leaf is META:
            return self._device
        return self._size_node(leaf) if isinstance(leaf, Size) else leaf

    def _size_node(self, size: Size) -> Any:
        if size not in self._sizes:
            node: Any = self._batch
            if size.factor != 1:
                node = self.graph.call_function(operator.mul, (node, size.factor))
            if size.offset:
                node = self.graph.call_function(operator.add, (node, size.offset))
            self._sizes[size] = node
        return self._sizes[size]


def sizes(rows: Sequence[Sequence[Any]]) -> list[Any]:
    """Numbers, or Sizes, that have these values for the example batch sizes: a row for each of them.

    Raises:
      ValueError: they do not grow evenly with the batch.
    """
    return [_size(column) for column in zip(*rows, strict=True)]


def _size(column: Sequence[Any]) -> Any:
    if len(set(column)) == 1:
        return column[0]
    factor, rest = divmod(column[1] - column[0], BATCHES[1] - BATCHES[0])
    size = Size(factor, column[0] - factor * BATCHES[0])
    pairs = zip(BATCHES, column, strict=True)
    if rest or any(size.factor * n + size.offset != value for n, value in pairs):
        raise ValueError("sizes that do not grow evenly with the batch")
    return size


def _example(k: int) -> Callable[[Any], Any]:
    """A function that gives what a leaf is for the k-th example batch size."""

    def example(leaf: Any) -> Any:
        if isinstance(leaf, Size):
            return leaf.factor * BATCHES[k] + leaf.offset
        return leaf.examples[k] if isinstance(leaf, Value) else leaf

    return example


def _map(value: Any, function: Callable[[Any], Any]) -> Any:
    """Apply a function to the leaves of tuples, lists and dicts."""
    if isinstance(value, dict):
        return {key: _map(item, function) for key, item in value.items()}
    if isinstance(value, tuple | list) and not isinstance(value, Size | torch.Size):
        return type(value)(_map(item, function) for item in value)
    return function(value)


def _leaves(value: Any) -> list[Any]:
    found: list[Any] = []
    _map(value, found.append)
    return found
