"""Layers of an inference form in a lower precision, emulated in float32: operands rounded, sums exact to float32.

Matrix units multiply bfloat16 by bfloat16 (or int8 by int8) and add up in float32 (or int32); so does this, at the
speed of float32. What lies between the layers is computed in float32, as engines do it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, fx

from cgnrt_export.graph import arguments, is_call, shape_of

Precision = Literal["bf16", "int8"]

_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")
_TRANSPOSED = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer of an inference form.

    Attributes:
      weight: the name of its weight, in the form and in the ONNX graph alike; layers that share it are one.
      macs: multiply-adds for one picture.
      size: height of its output, 1 of a linear layer.
    """

    weight: str
    macs: int
    size: int


def layers_of(module: fx.GraphModule) -> dict[str, Layer]:
    """The layers with weights of their own, by weight, in the order of the graph."""
    layers: dict[str, Layer] = {}
    for node in module.graph.nodes:
        weight = _weight(node)
        if weight is None:
            continue
        name = str(weight.target)
        shape = tuple(_tensor(module, name).shape)
        own = math.prod(shape)
        source, result = shape_of(arguments(node)["input"]), shape_of(node)
        # Every weight meets every pixel of the result; of a transposed convolution, every pixel of the source.
        pixels = source[2:] if is_call(node, *_TRANSPOSED) else result[2:]
        if is_call(node, "linear"):
            pixels = result[1:-1]
        size = int(result[2]) if len(result) > 2 else 1
        before = layers[name].macs if name in layers else 0
        layers[name] = Layer(name, before + own * math.prod(int(pixel) for pixel in pixels), size)
    return layers


def emulate(module: fx.GraphModule, precisions: Mapping[str, Precision]) -> fx.GraphModule:
    """A copy of an inference form with these layers, by weight, in another precision; other weights are shared."""
    unknown = set(precisions) - set(layers_of(module))
    if unknown:
        raise ValueError(f"emulate: layers are {sorted(unknown)}, expected weights of layers of the module.")
    emulated = fx.GraphModule(module, copy.deepcopy(module.graph))
    for node in list(emulated.graph.nodes):
        weight = _weight(node)
        precision = precisions.get(str(weight.target)) if weight is not None else None
        if weight is None or precision is None:
            continue
        name = f"{precision}_{str(weight.target).replace('.', '_')}"
        if not hasattr(emulated, name):
            whole = _tensor(module, str(weight.target))
            channels = 1 if is_call(node, *_TRANSPOSED) else 0
            rounded = round_bf16(whole) if precision == "bf16" else round_int8(whole, channels)
            emulated.register_buffer(name, rounded)
        source = node.args[0]
        with emulated.graph.inserting_before(node):
            operand = emulated.graph.call_function(
                round_bf16 if precision == "bf16" else round_int8, (source,)
            )
            kernel = emulated.graph.get_attr(name)
        node.args = (operand, kernel, *node.args[2:])
    emulated.graph.eliminate_dead_code()
    emulated.recompile()
    return emulated


def round_bf16(value: Tensor) -> Tensor:
    """Each number as the nearest bfloat16, in its own dtype."""
    return value.to(torch.bfloat16).to(value.dtype)


def round_int8(value: Tensor, axis: int | None = None) -> Tensor:
    """Symmetric int8 with one scale for all values, or one for each index of an axis; in its own dtype."""
    if axis is None:
        largest = value.abs().amax()
    else:
        largest = value.abs().amax([k for k in range(value.dim()) if k != axis], keepdim=True)
    step = (largest / 127).clamp(min=torch.finfo(value.dtype).tiny)
    return (value / step).round().clamp(-127, 127) * step


def _weight(node: fx.Node) -> fx.Node | None:
    """The node that reads a layer's weight, or None where this is not a layer, or its weight is computed."""
    if not is_call(node, "linear", *_CONVOLUTIONS, *_TRANSPOSED):
        return None
    weight = node.args[1]
    return weight if isinstance(weight, fx.Node) and weight.op == "get_attr" else None


def _tensor(module: fx.GraphModule, target: str) -> Tensor:
    value: object = module
    for part in target.split("."):
        value = getattr(value, part)
    if not isinstance(value, Tensor):
        raise TypeError(f"{target} is a {type(value).__name__}, expected a tensor")
    return value
