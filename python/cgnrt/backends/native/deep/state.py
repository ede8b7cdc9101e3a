"""What the compiler of a deep network knows so far: its values, pictures and steps, and which may still be folded."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np

from cgnrt.backends.native.deep.program import TRY, WHOLE_CHANNELS, Picture, PictureValue, Step, Vector
from cgnrt.backends.native.graph import Graph, UnsupportedGraphError
from cgnrt.plan import Network


class Compiler:
    """The state of one compilation."""

    def __init__(self, network: Network) -> None:
        self.graph = Graph(network)
        model = self.graph.model
        self.readers = Counter(name for node in model.nodes for name in node.inputs)
        self.readers.update(value.name for value in model.outputs)
        self.values: dict[str, Any] = {}  # PictureValue, or what `attention` keeps
        self.arrays: dict[str, np.ndarray] = {}  # the small part, for TRY images
        self.varying: set[str] = set()  # what of it differs from image to image
        self.pictures: list[Picture] = []
        self.steps: list[Step] = []
        self.maker: dict[int, int] = {}  # picture -> step
        self.vectors: dict[str, int] = {}
        self.widths: list[Vector] = []
        self.image: tuple[str, int] | None = None
        for spec in network.spec.inputs:
            shape = [TRY, *spec.shape[1:]]
            if len(shape) == 4:
                picture = self.picture(*(int(size) for size in shape[1:]))
                if self.image is not None:
                    raise UnsupportedGraphError("two images as inputs")
                self.image = (spec.name, picture)
                self.add(Step("image", [], picture), spec.name)
            else:
                self.arrays[spec.name] = np.zeros([int(size) for size in shape], np.float32)
                self.varying.add(spec.name)

    # Values.

    def picture(self, channels: int, height: int, width: int) -> int:
        self.pictures.append(Picture(channels, height, width, buffer=len(self.pictures)))
        return len(self.pictures) - 1

    def part(self, base: int, first: int, channels: int) -> int:
        if first % WHOLE_CHANNELS:
            raise UnsupportedGraphError(f"Slice from channel {first}")
        whole = self.pictures[base]
        self.pictures.append(Picture(channels, whole.height, whole.width, -1, first, base))
        return len(self.pictures) - 1

    def add(self, step: Step, name: str) -> None:
        self.steps.append(step)
        self.maker[step.out] = len(self.steps) - 1
        self.add_value(name, step.out)

    def add_value(self, name: str, picture: int) -> None:
        self.values[name] = PictureValue(picture)

    def read(self, name: str) -> int:
        """The picture of a value; a small 4-D array becomes one."""
        value = self.values.get(name)
        if isinstance(value, PictureValue) and not value.doubled:
            return value.picture
        if value is not None:
            raise UnsupportedGraphError(
                f"an operator that reads {name}, a doubled picture or a part of self-attention"
            )
        array = self.small(name)
        if array.ndim != 4 or array.shape[0] != TRY or array.dtype != np.float32:
            raise UnsupportedGraphError(f"a {array.dtype} array {array.shape} as a picture")
        out = self.picture(*array.shape[1:])
        vector = self.vector(name, math.prod(array.shape[1:]))
        self.add(Step("start", [], out, options={"vector": vector, "channels_last": 0}), name)
        return out

    def small(self, name: str) -> np.ndarray:
        if name not in self.arrays:
            self.arrays[name] = self.graph.constant(name)
        return self.arrays[name]

    def fixed(self, name: str) -> np.ndarray:
        """A small value that is the same for all inputs: a size or a limit."""
        if name in self.varying:
            raise UnsupportedGraphError(f"sizes or limits that depend on the inputs ({name})")
        return self.small(name)

    def vector(self, name: str, width: int) -> int:
        """The index of a small value as rows of `width` floats."""
        key = f"{name}:{width}"
        if key not in self.vectors:
            self.vectors[key] = len(self.widths)
            self.widths.append(Vector(name, width))
        return self.vectors[key]

    def map_vector(self, name: str, picture: int) -> int:
        """The index of a scale or shift for each channel, (n or 1, channels, 1, 1)."""
        channels = self.pictures[picture].channels
        array = self.small(name)
        shape = (1,) * (4 - array.ndim) + array.shape
        if (
            array.dtype != np.float32
            or len(shape) != 4
            or shape[1] not in (1, channels)
            or shape[2:] != (1, 1)
        ):
            raise UnsupportedGraphError(
                f"a {array.dtype} array {array.shape} applied to a picture of {channels} channels"
            )
        return self.vector(name, channels)

    def is_picture(self, name: str) -> bool:
        return name in self.values

    # Folding.

    def room(self, name: str, *places: int) -> tuple[Step, int] | None:
        """The step that made a value and the first of the places that it has left; None where it has none."""
        value = self.values[name]
        if not isinstance(value, PictureValue) or value.doubled or self.readers[name] > 1:
            return None
        position = self.maker.get(value.picture)
        if position is None:
            return None
        step = self.steps[position]
        return next(((step, place) for place in places if place > step.filled), None)

    def fold(self, name: str, out: str, places: tuple[int, int], content: Any) -> None:
        """Put an element-wise operator into the step behind `name`, or into a new one."""
        found = self.room(name, *places)
        if found is None:
            self.copy(name, out)
            found = self.steps[-1], places[0]
        step, place = found
        step.slots[place] = content
        self.values[out] = PictureValue(step.out)

    def copy(self, name: str, out: str) -> int:
        """A step that does nothing yet."""
        source = self.read(name)
        shape = self.pictures[source]
        target = self.picture(shape.channels, shape.height, shape.width)
        self.add(Step("pointwise", [source], target), out)
        return target
