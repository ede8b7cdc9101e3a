"""What random nodes are drawn from: shapes, axes and numbers, most of them good."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

Array = NDArray[Any]


class Data(NamedTuple):
    """A float32 input. With `batched` its first dimension is the batch, of any size."""

    shape: tuple[int, ...]
    batched: bool = False


@dataclass
class Case:
    """One node: inputs are data, constants, or left out."""

    op: str
    inputs: list[Data | Array | None]
    outputs: int = 1
    attributes: dict[str, Any] = field(default_factory=dict)
    opset: int = 18

    def names(self, prefix: str) -> tuple[list[str], list[str]]:
        given = ["" if value is None else f"{prefix}x{k}" for k, value in enumerate(self.inputs)]
        return given, [f"{prefix}y{k}" for k in range(self.outputs)]

    def node(self, prefix: str = "") -> NodeProto:
        given, made = self.names(prefix)
        attributes = {name: value for name, value in self.attributes.items() if value is not None}
        node = helper.make_node(self.op, given, made)
        for name, value in attributes.items():
            kind = None
            if isinstance(value, list) and not value:
                kind = 7  # AttributeProto.INTS
            node.attribute.append(helper.make_attribute(name, value, attr_type=kind))
        return node

    def values(self, prefix: str = "") -> tuple[list[Any], list[Any]]:
        """What declares the node's data, and its constants."""
        data, constants = [], []
        for name, value in zip(self.names(prefix)[0], self.inputs, strict=True):
            if isinstance(value, Data):
                shape: list[Any] = ["n", *value.shape[1:]] if value.batched else list(value.shape)
                data.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
            elif value is not None:
                constants.append(numpy_helper.from_array(value, name))
        return data, constants

    def feeds(self, n: int, prefix: str = "") -> dict[str, Array]:
        """Data for a batch of n."""
        return {
            name: np.zeros((n, *value.shape[1:]) if value.batched else value.shape, np.float32)
            for name, value in zip(self.names(prefix)[0], self.inputs, strict=True)
            if isinstance(value, Data)
        }


class Draw:
    """Random shapes, axes and numbers."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.opset = self.random.choice((13, 14, 15, 16, 17, 18, 18, 18, 19, 20, 21, 22, 23, 24))
        self.batched = self.chance(0.5)

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def dims(self, low: int = 1, high: int = 4) -> tuple[int, ...]:
        return tuple(self.random.choice((1, 2, 3, 4, 6)) for _ in range(self.random.randint(low, high)))

    def data(self, *shape: int) -> Data:
        return Data(shape, self.batched and bool(shape))

    def any(self, low: int = 1, high: int = 4) -> Data:
        return self.data(*self.dims(low, high))

    def axis(self, rank: int) -> int:
        if self.chance(0.05):
            return self.random.choice((-rank - 1, rank, rank + 1, 2**31, -(2**31)))
        return self.random.randrange(-rank, rank) if rank else 0

    def axes(self, rank: int) -> list[int]:
        found = self.random.sample(
            range(rank), self.random.randint(0 if self.chance(0.1) else min(1, rank), rank)
        )
        found = [axis - rank if self.chance(0.3) else axis for axis in found]
        if found and self.chance(0.05):
            found[-1] = self.axis(rank)
        if found and self.chance(0.03):
            found.append(found[0])
        return found

    def number(self, low: int, high: int) -> int:
        """One within bounds, or now and then one that is not."""
        if self.chance(0.06):
            return self.random.choice(
                (0, -1, -2, low - 1, high + 1, high * 7, 2**31, 2**33, -(2**40), 2**62, 2**63 - 1)
            )
        return self.random.randint(low, high)

    def numbers(self, count: int, low: int, high: int) -> list[int]:
        if self.chance(0.04):
            count = max(0, count + self.random.choice((-1, 1)))
        return [self.number(low, high) for _ in range(count)]

    def maybe(self, value: Any, probability: float = 0.5) -> Any:
        return value if self.chance(probability) else None

    def flag(self) -> int | None:
        return self.random.choice((None, None, 0, 1, 1, 0, 1, 0, 2, -1) if self.chance(0.2) else (None, 0, 1))

    def like(self, dims: tuple[int, ...]) -> tuple[int, ...]:
        """A shape that broadcasts with this one, as a rule."""
        part = dims[self.random.randint(0, len(dims)) :] if self.chance(0.4) else dims
        found = [1 if self.chance(0.3) else dim for dim in part]
        if found and self.chance(0.08):
            found[self.random.randrange(len(found))] = self.random.randint(1, 7)
        if self.chance(0.05):
            found.insert(0, self.random.randint(1, 3))
        return tuple(found)


def i64(values: Any) -> Array:
    return np.array(values, np.int64)


def f32(values: Any) -> Array:
    return np.array(values, np.float32)


Generator = Callable[[Draw], Case]
GENERATORS: dict[str, Generator] = {}


def generates(*ops: str) -> Callable[[Callable[[Draw, str], Case]], Callable[[Draw, str], Case]]:
    def add(function: Callable[[Draw, str], Case]) -> Callable[[Draw, str], Case]:
        for op in ops:
            GENERATORS[op] = lambda draw, op=op: function(draw, op)  # type: ignore[misc]
        return function

    return add
