"""One function for each operator of pictures: it adds a step to the compiler's state, or folds into one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from cgnrt.backends.native.deep import attention
from cgnrt.backends.native.deep.program import (
    ACT,
    LAST_ACT,
    LAST_SCALE,
    LAST_SHIFT,
    RESIDUAL,
    SCALE,
    SHIFT,
    TRY,
    WHOLE_CHANNELS,
    PictureValue,
    Step,
)
from cgnrt.backends.native.deep.state import Compiler
from cgnrt.backends.native.graph import UnsupportedGraphError, check_up_taps, check_window, floats, number
from cgnrt.plan.onnx.model import Node


def _convolution(state: Compiler, node: Node) -> None:
    source = state.read(node.inputs[0])
    given = state.pictures[source]
    weight = floats(state.graph.constant(node.inputs[1]))
    bias = floats(state.graph.constant(node.inputs[2])) if len(node.inputs) > 2 and node.inputs[2] else None
    if weight.ndim != 4 or weight.shape[2] != weight.shape[3] or weight.shape[2] not in (1, 3):
        raise UnsupportedGraphError(f"Conv with weights {weight.shape}")
    kernel = weight.shape[2]
    attributes: Mapping[str, Any] = node.attributes
    dilation = attributes.get("dilations", [1, 1])[0]
    pad = dilation * (kernel // 2)
    check_window(node, [kernel, kernel], pads=[pad] * 4, dilations=[dilation] * 2)
    if weight.shape[1] != given.channels:
        raise UnsupportedGraphError(f"Conv of {given.channels} channels with weights {weight.shape}")
    out = state.picture(weight.shape[0], given.height, given.width)
    step = Step("conv", [source], out, weight, bias, {"kernel": kernel, "dilation": dilation})
    if kernel == 1:
        _take_map(state, node.inputs[0], step)
    state.add(step, node.outputs[0])


def _take_map(state: Compiler, name: str, step: Step) -> None:
    """Let a 1x1 convolution map its own input, in place of a pointwise step before it that nothing else reads."""
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
        raise UnsupportedGraphError(f"ConvTranspose of {given.channels} channels with weights {weight.shape}")
    check_window(node, [4, 4], strides=[2, 2], pads=[1, 1, 1, 1])
    check_up_taps(weight)
    out = state.picture(weight.shape[1], 2 * given.height, 2 * given.width)
    state.add(Step("up_conv", [source], out, weight, bias), node.outputs[0])


def _scale(state: Compiler, node: Node) -> None:
    first, second = node.inputs
    name, factor = (first, second) if state.is_picture(first) else (second, first)
    if state.is_picture(factor):
        raise UnsupportedGraphError("Mul of two pictures")
    vector = state.map_vector(factor, state.read(name))
    state.fold(name, node.outputs[0], (SCALE, LAST_SCALE), vector)


def _add(state: Compiler, node: Node) -> None:
    first, second = node.inputs
    if state.is_picture(first) and state.is_picture(second):
        _add_pictures(state, node)
        return
    name, offset = (first, second) if state.is_picture(first) else (second, first)
    if any(size != 1 for size in state.small(offset).shape[-2:]):
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
        raise UnsupportedGraphError("Add of pictures of two sizes")
    step.slots[RESIDUAL] = value.picture
    step.residual_up = value.doubled
    state.values[node.outputs[0]] = PictureValue(step.out)


def _position(state: Compiler, name: str) -> int:
    """Which step makes a value."""
    value = state.values[name]
    if not isinstance(value, PictureValue):
        raise UnsupportedGraphError("Add of a value that is not a picture")
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
            limits[k] = float(state.fixed(name).reshape(()))
    _activation("clip", *limits)(state, node)


def _max_pool(state: Compiler, node: Node) -> None:
    source = state.read(node.inputs[0])
    given = state.pictures[source]
    ceil = node.attributes.get("ceil_mode", 0)
    check_window(node, [2, 2], strides=[2, 2], ceil_mode=ceil, storage_order=0)
    if not ceil and (given.height % 2 or given.width % 2):
        raise UnsupportedGraphError("MaxPool of an odd size, rounded down")
    out = state.picture(given.channels, (given.height + 1) // 2, (given.width + 1) // 2)
    state.add(Step("max_pool", [source], out), node.outputs[0])


def _resize(state: Compiler, node: Node) -> None:
    source = state.read(node.inputs[0])
    given = state.pictures[source]
    for name, wanted in (("antialias", 0), ("axes", None), ("keep_aspect_ratio_policy", "stretch")):
        if node.attributes.get(name, wanted) != wanted:
            raise UnsupportedGraphError(f"Resize with {name} {node.attributes[name]}")
    sizes = _sizes(state, node, [TRY, given.channels, given.height, given.width])
    mode = node.attributes.get("mode", "nearest")
    where = node.attributes.get("coordinate_transformation_mode", "half_pixel")
    if len(sizes) != 4 or sizes[:2] != [TRY, given.channels]:
        raise UnsupportedGraphError(f"Resize to {sizes}")
    if mode == "nearest":
        floor = node.attributes.get("nearest_mode", "round_prefer_floor") == "floor"
        if where != "asymmetric" or not floor or sizes[2:] != [2 * given.height, 2 * given.width]:
            raise UnsupportedGraphError("nearest Resize by another factor than 2")
        state.values[node.outputs[0]] = PictureValue(source, doubled=True)
        return
    if mode != "linear" or where not in ("half_pixel", "align_corners"):
        raise UnsupportedGraphError(f"Resize with mode {mode} and {where}")
    out = state.picture(given.channels, sizes[2], sizes[3])
    options = {"align_corners": int(where == "align_corners")}
    state.add(Step("resize", [source], out, options=options), node.outputs[0])


def _sizes(state: Compiler, node: Node, shape: list[int]) -> list[int]:
    """The size that a Resize asks for."""
    operands = [*node.inputs[1:], "", "", ""]
    if operands[2]:
        return [int(size) for size in state.fixed(operands[2])]
    exact = [size * float(factor) for size, factor in zip(shape, state.fixed(operands[1]), strict=True)]
    sizes = [round(size) for size in exact]
    # Where pixels lie follows from the factor, and only with whole sizes from the sizes as well.
    if not np.allclose(exact, sizes, rtol=1e-6, atol=0):
        raise UnsupportedGraphError("Resize by factors that do not give whole sizes")
    return sizes


def _slice(state: Compiler, node: Node) -> None:
    source = state.read(node.inputs[0])
    operands = [state.fixed(name).tolist() for name in node.inputs[1:]]
    channels = state.pictures[source].channels
    if len(operands) < 3 or operands[2] not in ([1], [-3]) or (len(operands) > 3 and operands[3] != [1]):
        raise UnsupportedGraphError("Slice of a picture along another axis than its channels")
    first, end, _ = slice(operands[0][0], operands[1][0]).indices(channels)
    if end <= first:
        raise UnsupportedGraphError("empty Slice")
    state.values[node.outputs[0]] = PictureValue(state.part(source, first, end - first))


def _concat(state: Compiler, node: Node) -> None:
    if node.attributes.get("axis") not in (1, -3):
        raise UnsupportedGraphError("Concat of pictures along another axis than their channels")
    parts: list[int] = []
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
        if first % WHOLE_CHANNELS or (part.height, part.width) != (shape.height, shape.width):
            raise UnsupportedGraphError("Concat of pictures whose channels are not multiples of 8")
        for other in state.pictures:  # itself, and what it is a concatenation of
            if other.base is None and other.buffer == picture:
                other.buffer, other.first = whole, first + other.first
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
