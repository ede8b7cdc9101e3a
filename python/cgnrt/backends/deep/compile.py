"""From a plan's graph to the steps of the deep engine, or why it is not such a graph.

Nodes are read in their order. What depends on no picture is left to NumPy (`vectors`); everything else must be one
of the operators here. An element-wise operator goes into the step that made its operand, where nothing else reads
that operand and the step has room for it (`program.SCALE` and the places after it).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from cgnrt.backends.deep import attention
from cgnrt.backends.deep.program import (
    ACT,
    LAST_ACT,
    LAST_SCALE,
    LAST_SHIFT,
    RESIDUAL,
    SCALE,
    SHIFT,
    Picture,
    Program,
    Step,
    Vector,
)
from cgnrt.backends.deep.vectors import OPERATORS, run_node
from cgnrt.backends.graphs import Graph, UnsupportedGraphError, check_up_taps, check_window, floats, number
from cgnrt.plan import Mechanism
from cgnrt.plan.onnx_model import Node

_LINE = 8  # channels of a picture that shares a buffer begin at a multiple of these
_TRY = 2  # images that the small part is evaluated for while compiling


@dataclass(frozen=True)
class PictureValue:
    """A value of the graph that is a picture; doubled: nearest x2 up-sampled, which only a residual can be."""

    picture: int
    doubled: bool = False


class Compiler:
    """The state of one compilation."""

    def __init__(self, mechanism: Mechanism) -> None:
        self.graph = Graph(mechanism)
        model = self.graph.model
        self.readers = Counter(name for node in model.nodes for name in node.inputs)
        self.readers.update(value.name for value in model.outputs)
        self.values: dict[str, Any] = {}  # PictureValue, or what `attention` keeps
        self.arrays: dict[str, np.ndarray] = {}  # the small part, for _TRY images
        self.pictures: list[Picture] = []
        self.steps: list[Step] = []
        self.maker: dict[int, int] = {}  # picture -> step
        self.vectors: dict[str, int] = {}
        self.widths: list[Vector] = []
        self.image: tuple[str, int] | None = None
        for spec in mechanism.spec.inputs:
            shape = [_TRY, *spec.shape[1:]]
            if len(shape) == 4:
                picture = self.picture(*(int(size) for size in shape[1:]))
                if self.image is not None:
                    raise UnsupportedGraphError("two images as inputs.")
                self.image = (spec.name, picture)
                self.add(Step("image", [], picture), spec.name)
            else:
                self.arrays[spec.name] = np.zeros([int(size) for size in shape], np.float32)

    # Values.

    def picture(self, channels: int, height: int, width: int) -> int:
        self.pictures.append(Picture(channels, height, width, buffer=len(self.pictures)))
        return len(self.pictures) - 1

    def part(self, base: int, first: int, channels: int) -> int:
        if first % _LINE:
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
        if array.ndim != 4 or array.shape[0] != _TRY or array.dtype != np.float32:
            raise UnsupportedGraphError(f"{array.dtype} {array.shape} as a picture.")
        out = self.picture(*array.shape[1:])
        vector = self.vector(name, array.size // _TRY)
        self.add(Step("start", [], out, options={"vector": vector, "channels_last": 0}), name)
        return out

    def small(self, name: str) -> np.ndarray:
        if name not in self.arrays:
            self.arrays[name] = self.graph.constant(name)
        return self.arrays[name]

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
        if array.dtype != np.float32 or len(shape) != 4 or shape[1] not in (1, channels) or shape[2:] != (1, 1):
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
    outputs = [(value.name, state.read(value.name)) for value in state.graph.model.outputs]
    wanted = {vector.name for vector in state.widths}
    nodes = []
    for node in reversed(small):
        if wanted.intersection(node.outputs):
            wanted.update(node.inputs)
            nodes.append(node)
    if any(name in state.values and name not in state.arrays for node in nodes for name in node.inputs):
        raise UnsupportedGraphError("vectors that are computed from pictures.")
    return Program(state.pictures, state.steps, state.widths, nodes[::-1], outputs, state.image)


def _is_picture_operator(state: Compiler, node: Node) -> bool:
    """Whether a node's operand is a small array that is large enough to be a picture from here on."""
    return node.op in ("Conv", "ConvTranspose", "MaxPool", "Resize") and node.inputs[0] in state.arrays


def _run_small(state: Compiler, node: Node) -> None:
    if node.op not in OPERATORS:
        raise UnsupportedGraphError(f"operator {node.op}.")
    if node.op == "Shape" and state.is_picture(node.inputs[0]):
        picture = state.pictures[state.read(node.inputs[0])]
        shape = [_TRY, picture.channels, picture.height, picture.width]
        start, end = node.attributes.get("start", 0), node.attributes.get("end")
        state.arrays[node.outputs[0]] = np.asarray(shape[start:end], np.int64)  # type: ignore[misc]
        return
    run_node(state.graph, node, state.arrays)


# One function for each operator of pictures.


def _convolution(state: Compiler, node: Node) -> None:
    source = state.read(node.inputs[0])
    given = state.pictures[source]
    weight = floats(state.graph.constant(node.inputs[1]))
    bias = floats(state.graph.constant(node.inputs[2])) if len(node.inputs) > 2 and node.inputs[2] else None
    if weight.ndim != 4 or weight.shape[2] != weight.shape[3] or weight.shape[2] not in (1, 3):
        raise UnsupportedGraphError(f"Conv with weights {weight.shape}.")
    kernel = weight.shape[2]
    dilation = node.attributes.get("dilations", [1, 1])[0]  # type: ignore[index]
    pad = dilation * (kernel // 2)  # type: ignore[operator]
    check_window(node, [kernel, kernel], pads=[pad] * 4, dilations=[dilation] * 2)
    if weight.shape[1] != given.channels:
        raise UnsupportedGraphError(f"Conv of {given.channels} channels with weights {weight.shape}.")
    out = state.picture(weight.shape[0], given.height, given.width)
    step = Step("conv", [source], out, weight, bias, {"kernel": kernel, "dilation": dilation})
    if kernel == 1:
        _take_map(state, node.inputs[0], step)
    state.add(step, node.outputs[0])


def _take_map(state: Compiler, name: str, step: Step) -> None:
    """Let a 1x1 convolution map its input itself, where a pointwise step did nothing else for it alone."""
    maker = state.maker.get(step.inputs[0])
    if maker is None or maker != len(state.steps) - 1 or state.readers[name] > 1:
        return
    made = state.steps[maker]
    if made.kind != "pointwise" or made.filled > ACT or made.before is not None:
        return
    step.before = (made.slots.get(SCALE), made.slots.get(SHIFT), made.slots.get(ACT))
    step.inputs = made.inputs
    state.steps.pop()
    del state.maker[made.out]


def _up_convolution(state: Compiler, node: Node) -> None:
    source = state.read(node.inputs[0])
    given = state.pictures[source]
    weight = floats(state.graph.constant(node.inputs[1]))
    bias = floats(state.graph.constant(node.inputs[2])) if len(node.inputs) > 2 and node.inputs[2] else None
    if weight.ndim != 4 or weight.shape[2:] != (4, 4) or weight.shape[0] != given.channels:
        raise UnsupportedGraphError(f"ConvTranspose of {given.channels} channels with weights {weight.shape}.")
    check_window(node, [4, 4], strides=[2, 2], pads=[1, 1, 1, 1])
    check_up_taps(weight)
    out = state.picture(weight.shape[1], 2 * given.height, 2 * given.width)
    state.add(Step("up_conv", [source], out, weight, bias), node.outputs[0])


def _scale(state: Compiler, node: Node) -> None:
    first, second = node.inputs
    name, factor = (first, second) if state.is_picture(first) else (second, first)
    if state.is_picture(factor):
        raise UnsupportedGraphError("Mul of two pictures.")
    vector = state.map_vector(factor, state.read(name))
    state.fold(name, node.outputs[0], (SCALE, LAST_SCALE), vector)


def _add(state: Compiler, node: Node) -> None:
    first, second = node.inputs
    if state.is_picture(first) and state.is_picture(second):
        _add_pictures(state, node)
        return
    name, offset = (first, second) if state.is_picture(first) else (second, first)
    if state.small(offset).shape[-2:] != (1, 1):
        state.read(offset)  # from here on a picture
        _add_pictures(state, node)
        return
    vector = state.map_vector(offset, state.read(name))
    state.fold(name, node.outputs[0], (SHIFT, LAST_SHIFT), vector)


def _add_pictures(state: Compiler, node: Node) -> None:
    # The one whose step comes later takes the other, which is then there.
    order = sorted(node.inputs, key=lambda name: _position(state, name))
    for name, other in ((order[1], order[0]), (order[0], order[1])):
        found = state.room(name, RESIDUAL)
        if found is not None and _position(state, other) < _position(state, name):
            step = found[0]
            break
    else:
        name, other = node.inputs
        if state.values[name].doubled:
            name, other = other, name
        state.copy(name, node.outputs[0])
        step = state.steps[-1]
    value = state.values[other]
    residual, result = state.pictures[value.picture], state.pictures[step.out]
    scale = 2 if value.doubled else 1
    if (residual.channels, residual.height * scale, residual.width * scale) != (
        result.channels,
        result.height,
        result.width,
    ):
        raise UnsupportedGraphError("Add of pictures of two sizes.")
    step.slots[RESIDUAL] = value.picture
    step.residual_up = value.doubled
    state.values[node.outputs[0]] = PictureValue(step.out)


def _position(state: Compiler, name: str) -> int:
    """Which step makes a value."""
    value = state.values[name]
    if not isinstance(value, PictureValue):
        raise UnsupportedGraphError("Add of what is no picture.")
    picture = value.picture
    while (base := state.pictures[picture].base) is not None:
        picture = base
    return state.maker.get(picture, -1)


def _activation(*arguments: Any) -> Callable[[Compiler, Node], None]:
    return lambda state, node: state.fold(node.inputs[0], node.outputs[0], (ACT, LAST_ACT), arguments)


def _leaky_relu(state: Compiler, node: Node) -> None:
    _activation("leaky_relu", number(node, "alpha", 0.01))(state, node)


def _clip(state: Compiler, node: Node) -> None:
    limits = [float("-inf"), float("inf")]
    for k, name in enumerate(node.inputs[1:3]):
        if name:
            limits[k] = float(state.small(name).reshape(()))
    _activation("clip", *limits)(state, node)


def _max_pool(state: Compiler, node: Node) -> None:
    source = state.read(node.inputs[0])
    given = state.pictures[source]
    ceil = node.attributes.get("ceil_mode", 0)
    check_window(node, [2, 2], strides=[2, 2], ceil_mode=ceil, storage_order=0)
    if not ceil and (given.height % 2 or given.width % 2):
        raise UnsupportedGraphError("MaxPool of an odd size, rounded down.")
    out = state.picture(given.channels, (given.height + 1) // 2, (given.width + 1) // 2)
    state.add(Step("max_pool", [source], out), node.outputs[0])


def _resize(state: Compiler, node: Node) -> None:
    source = state.read(node.inputs[0])
    given = state.pictures[source]
    operands = [*node.inputs[1:], "", "", ""]
    if operands[2]:
        sizes = [int(size) for size in state.small(operands[2])]
    else:
        factors = state.small(operands[1])
        shape = (_TRY, given.channels, given.height, given.width)
        sizes = [int(np.floor(size * factor)) for size, factor in zip(shape, factors, strict=True)]
    mode, where = node.attributes.get("mode", "nearest"), node.attributes.get("coordinate_transformation_mode")
    if len(sizes) != 4 or sizes[:2] != [_TRY, given.channels] or node.attributes.get("antialias", 0):
        raise UnsupportedGraphError(f"Resize to {sizes}.")
    if mode == "nearest":
        floor = node.attributes.get("nearest_mode", "round_prefer_floor") == "floor"
        if where != "asymmetric" or not floor or sizes[2:] != [2 * given.height, 2 * given.width]:
            raise UnsupportedGraphError("nearest Resize but by two.")
        state.values[node.outputs[0]] = PictureValue(source, doubled=True)
        return
    if mode != "linear" or where not in ("half_pixel", "align_corners"):
        raise UnsupportedGraphError(f"Resize with mode {mode} and {where}.")
    out = state.picture(given.channels, sizes[2], sizes[3])
    options = {"align_corners": int(where == "align_corners")}
    state.add(Step("resize", [source], out, options=options), node.outputs[0])


def _slice(state: Compiler, node: Node) -> None:
    source = state.read(node.inputs[0])
    operands = [state.small(name).tolist() for name in node.inputs[1:]]
    channels = state.pictures[source].channels
    if len(operands) < 3 or operands[2] not in ([1], [-3]) or (len(operands) > 3 and operands[3] != [1]):
        raise UnsupportedGraphError("Slice of a picture but along its channels.")
    first, end, _ = slice(operands[0][0], operands[1][0]).indices(channels)
    if end <= first:
        raise UnsupportedGraphError("empty Slice.")
    state.values[node.outputs[0]] = PictureValue(state.part(source, first, end - first))


def _concat(state: Compiler, node: Node) -> None:
    if node.attributes.get("axis") not in (1, -3):
        raise UnsupportedGraphError("Concat of pictures but along their channels.")
    parts = []
    for name in node.inputs:
        picture = state.read(name)
        found = state.pictures[picture]
        moved = found.base is not None or found.buffer != picture
        if moved or picture in parts:  # it lies elsewhere already
            picture = state.copy(name, f"{node.outputs[0]}:{len(parts)}")
        parts.append(picture)
    shape = state.pictures[parts[0]]
    whole = state.picture(sum(state.pictures[k].channels for k in parts), shape.height, shape.width)
    first = 0
    for picture in parts:
        part = state.pictures[picture]
        if first % _LINE or (part.height, part.width) != (shape.height, shape.width):
            raise UnsupportedGraphError("Concat of other channels than whole eights.")
        part.buffer, part.first = whole, first
        first += part.channels
    state.maker[whole] = max(state.maker[k] for k in parts)
    state.values[node.outputs[0]] = PictureValue(whole)
    state.readers[node.outputs[0]] += 1  # no step of its own to fold anything into


OPERATORS_OF_PICTURES: dict[str, Callable[[Compiler, Node], None]] = {
    "Add": _add,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _convolution,
    "ConvTranspose": _up_convolution,
    "LeakyRelu": _leaky_relu,
    "MatMul": attention.read_product,
    "MaxPool": _max_pool,
    "Mul": _scale,
    "Relu": _activation("leaky_relu", 0.0),
    "Reshape": attention.read_reshape,
    "Resize": _resize,
    "Sigmoid": _activation("sigmoid"),
    "Slice": _slice,
    "Softmax": attention.read_softmax,
    "Tanh": _activation("tanh"),
    "Transpose": attention.read_transpose,
}
