"""What a graph becomes: pictures, steps, and the vectors that they take."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cgnrt.plan.onnx.model import Node

# The places where a step can take an element-wise operator, in the order in which it applies them.
SCALE, SHIFT, ACT, RESIDUAL, LAST_SCALE, LAST_SHIFT, LAST_ACT = range(7)

WHOLE_CHANNELS = 8  # a picture that shares a buffer begins at a multiple of these
TRY = 0  # the batch size at which the small part of a graph is evaluated while it is compiled, to get its shapes


@dataclass
class Picture:
    """Channels, height, width, and the buffer that it shares with others, from channel `first` on."""

    channels: int
    height: int
    width: int
    buffer: int
    first: int = 0
    base: int | None = None  # the picture of which it is a part: it moves with that


@dataclass
class Step:
    """One step of `_core.PictureNetwork`. Scales and shifts are indices of the program's vectors."""

    kind: str
    inputs: list[int]
    out: int
    weight: np.ndarray | None = None
    bias: np.ndarray | None = None
    options: dict[str, Any] = field(default_factory=dict)
    before: tuple[int | None, int | None, tuple[Any, ...] | None] | None = None
    slots: dict[int, Any] = field(default_factory=dict)
    residual_up: bool = False

    @property
    def filled(self) -> int:
        """The last place that is taken."""
        return max(self.slots, default=-1)

    def arguments(self) -> dict[str, Any]:
        given: dict[str, Any] = {"kind": self.kind, "in": self.inputs, "out": self.out, **self.options}
        if self.weight is not None:
            given |= {"weight": self.weight, "bias": self.bias}
        if self.before is not None:
            given["before"] = self.before
        taken = self.slots.get
        if self.slots:
            given["after"] = (taken(SCALE), taken(SHIFT), taken(ACT))
            given["last"] = (taken(LAST_SCALE), taken(LAST_SHIFT), taken(LAST_ACT))
        if RESIDUAL in self.slots:
            given |= {"residual": self.slots[RESIDUAL], "residual_up": int(self.residual_up)}
        return given


@dataclass
class Vector:
    """A value of the graph as rows of an array (n, width)."""

    name: str
    width: int


@dataclass
class PictureProgram:
    """Constructor arguments of `_core.PictureNetwork`, and how to get its vectors.

    `nodes` are those of the graph that the vectors need, in order. `outputs` are (name, picture).
    """

    pictures: list[Picture]
    steps: list[Step]
    vectors: list[Vector]
    nodes: list[Node]
    outputs: list[tuple[str, int]]
    image: tuple[str, int] | None

    def picture_arguments(self) -> list[list[int]]:
        return [[p.channels, p.height, p.width, *self._where(p)] for p in self.pictures]

    def _where(self, picture: Picture) -> tuple[int, int]:
        if picture.base is None:
            return picture.buffer, picture.first
        buffer, first = self._where(self.pictures[picture.base])
        return buffer, first + picture.first


@dataclass(frozen=True)
class PictureValue:
    """A value of the graph that is a picture; doubled: nearest x2 up-sampled, which only a residual can be."""

    picture: int
    doubled: bool = False
