"""From a plan's graph to the steps of the deep engine, or why it is not such a graph.

Nodes are read in their order. What depends on no picture is left to NumPy (`vectors`); everything else must be one
of the operators here. An element-wise operator goes into the step that made its operand, where nothing else reads
that operand and the step has room for it (`program.SCALE` and the places after it).
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np

from cgnrt.backends.deep.operators import OPERATORS_OF_PICTURES
from cgnrt.backends.deep.program import (
    TRY,
    WHOLE_CHANNELS,
    Picture,
    PictureValue,
    Program,
    Step,
    Vector,
)
from cgnrt.backends.deep.vectors import OPERATORS, run_node, shape_part
from cgnrt.backends.graphs import Graph, UnsupportedGraphError
from cgnrt.plan import Mechanism
from cgnrt.plan.onnx.model import Node


class Compiler:
    """The state of one compilation."""

    def __init__(self, mechanism: Mechanism) -> None:
        self.graph = Graph(mechanism)
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
        for spec in mechanism.spec.inputs:
            shape = [TRY, *spec.shape[1:]]
            if len(shape) == 4:
                picture = self.picture(*(int(size) for size in shape[1:]))
                if self.image is not None:
                    raise UnsupportedGraphError("two images as inputs.")
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
            raise UnsupportedGraphError(f"Slice from channel {first}.")
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
            raise UnsupportedGraphError(f"a value that no operator of its kind may read ({name}).")
        array = self.small(name)
        if array.ndim != 4 or array.shape[0] != TRY or array.dtype != np.float32:
            raise UnsupportedGraphError(f"{array.dtype} {array.shape} as a picture.")
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
            raise UnsupportedGraphError(f"sizes or limits that depend on the inputs ({name}).")
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
            raise UnsupportedGraphError(f"{array.dtype} {array.shape} on a picture of {channels} channels.")
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


def compile_pictures(mechanism: Mechanism) -> Program:
    """Read a graph whose pictures are made of the engine's steps.

    Raises:
      UnsupportedGraphError: the graph has anything else.
    """
    state = Compiler(mechanism)
    small = []
    for node in state.graph.model.nodes:
        if not any(state.is_picture(name) for name in node.inputs) or node.op == "Shape":
            if _is_picture_operator(state, node):
                state.read(node.inputs[0])
            else:
                _run_small(state, node)
                small.append(node)
                continue
        compile_node = OPERATORS_OF_PICTURES.get(node.op)
        if compile_node is None:
            raise UnsupportedGraphError(f"operator {node.op}.")
        compile_node(state, node)
    if not any(step.weight is not None for step in state.steps):
        raise UnsupportedGraphError("graphs without convolutions.")
    outputs = [(value.name, state.read(value.name)) for value in state.graph.model.outputs]
    _check_outputs(state, mechanism, outputs)
    wanted = {vector.name for vector in state.widths}
    nodes = []
    for node in reversed(small):
        if wanted.intersection(node.outputs):
            wanted.update(node.inputs)
            nodes.append(node)
    if any(name in state.values and name not in state.arrays for node in nodes for name in node.inputs):
        raise UnsupportedGraphError("vectors that are computed from pictures.")
    return Program(state.pictures, state.steps, state.widths, nodes[::-1], outputs, state.image)


def _check_outputs(state: Compiler, mechanism: Mechanism, outputs: list[tuple[str, int]]) -> None:
    wanted = {spec.name: spec.shape[1:] for spec in mechanism.spec.outputs}
    for name, picture in outputs:
        made = state.pictures[picture]
        found = (made.channels, made.height, made.width)
        if name in wanted and found != tuple(wanted[name]):
            raise UnsupportedGraphError(
                f"a picture of {' x '.join(map(str, found))} as {name}, not {' x '.join(map(str, wanted[name]))}."
            )


def _is_picture_operator(state: Compiler, node: Node) -> bool:
    """Whether a node's operand is a small array that is large enough to be a picture from here on."""
    return node.op in ("Conv", "ConvTranspose", "MaxPool", "Resize") and node.inputs[0] in state.arrays


def _run_small(state: Compiler, node: Node) -> None:
    if node.op not in OPERATORS:
        raise UnsupportedGraphError(f"operator {node.op}.")
    if node.op == "Shape" and state.is_picture(node.inputs[0]):
        picture = state.pictures[state.read(node.inputs[0])]
        shape = [TRY, picture.channels, picture.height, picture.width]
        state.arrays[node.outputs[0]] = np.asarray(shape_part(node, shape), np.int64)
        return
    try:
        run_node(state.graph, node, state.arrays)
    except (IndexError, TypeError, ValueError) as error:
        raise UnsupportedGraphError(f"{node.op} that fails where there are no images: {error}.") from error
    if node.op != "Shape" and state.varying.intersection(node.inputs):
        state.varying.update(node.outputs)
