"""An inference form with half-precision pictures: for devices whose matrix units multiply float16 or bfloat16.

The same choice as `cgnrt.backends.typed_graph` makes for the ONNX graphs of a plan, here for a torch module. Pictures
are half from the first convolution on. What needs range or digits stays float32: vectors (noise, embeddings, and the
scales and shifts that are computed from them, a thousandth of the work), and the activations that make an output: in
float16, a mask's bound of 0.9999 would be 1.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, fx

from cgnrt_export.graph import add_constant, constant, is_call, shape_of, tidy

_LAYERS = (
    *("bmm", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
    *("linear", "matmul"),
)
# The activations that make an output.
_ACTIVATIONS = ("clamp", "hardsigmoid", "hardtanh", "sigmoid", "tanh")


def with_half_pictures(form: fx.GraphModule, dtype: torch.dtype = torch.float16) -> fx.GraphModule:
    """A copy of an inference form that computes its pictures in half precision.

    Args:
      form: `InferenceForm.module`, float32; left as it is.
      dtype: torch.float16 or torch.bfloat16.
    Returns:
      A module with float32 inputs and outputs. Call `.to(device, memory_format=torch.channels_last)` on it, but do not
      change its dtype.
    """
    if dtype not in (torch.float16, torch.bfloat16):
        raise ValueError(f"half pictures: dtype is {dtype}, expected torch.float16 or torch.bfloat16.")
    module = fx.GraphModule(form, copy.deepcopy(form.graph))  # with weights of its own where they are half
    _Typing(module, dtype).run()
    return tidy(module)


class _Typing:
    """One pass over the calls, which gives each its type and brings its operands to it."""

    def __init__(self, module: fx.GraphModule, dtype: torch.dtype) -> None:
        self._module = module
        self._dtype = dtype
        self._half: set[fx.Node] = set()  # values that are made in half
        self._copies: dict[tuple[fx.Node, bool], fx.Node] = {}  # of values, in the other type
        self._late = _late_activations(module)

    def run(self) -> None:
        for node in list(self._module.graph.nodes):
            if node.op == "output":
                self._bring(node, half=False)
            elif node.op == "call_function" and self._is_float(node):
                half = self._is_half(node)
                self._bring(node, half)
                if half:
                    self._half.add(node)

    def _is_float(self, node: fx.Node) -> bool:
        stored = constant(self._module, node)
        value = node.meta.get("val") if stored is None else stored
        return isinstance(value, Tensor) and value.dtype == torch.float32

    def _is_half(self, node: fx.Node) -> bool:
        if node in self._late:
            return False
        if is_call(node, *_LAYERS):
            return len(shape_of(node)) > 2
        pictures = [value for value in node.all_input_nodes if _is_picture(value)]
        # Where half meets float32: pictures become half as soon as one of them is, vectors stay as they are.
        return any(value in self._half for value in pictures)

    def _bring(self, node: fx.Node, half: bool) -> None:
        def typed(value: fx.Node) -> fx.Node:
            return self._as(value, half, node) if self._is_float(value) else value

        node.args = fx.node.map_arg(node.args, typed)
        node.kwargs = fx.node.map_arg(node.kwargs, typed)

    def _as(self, value: fx.Node, half: bool, before: fx.Node) -> fx.Node:
        """A value in the type wanted; made from it where need be."""
        if (value in self._half) == half:
            return value
        if (value, half) not in self._copies:
            self._copies[value, half] = self._converted(value, half, before)
        return self._copies[value, half]

    def _converted(self, value: fx.Node, half: bool, before: fx.Node) -> fx.Node:
        dtype = self._dtype if half else torch.float32
        stored = constant(self._module, value)
        if stored is not None:
            return add_constant(self._module, "half", stored.to(dtype), before=before)
        with self._module.graph.inserting_before(before):
            cast = self._module.graph.call_function(torch.ops.aten.to.dtype, (value, dtype))
        cast.meta["val"] = value.meta["val"].to(dtype)
        return cast


def _late_activations(module: fx.GraphModule) -> set[fx.Node]:
    """Activations that make an output, also in a chain."""
    late: set[fx.Node] = set()
    for node in reversed(module.graph.nodes):
        if is_call(node, *_ACTIVATIONS) and any(user.op == "output" or user in late for user in node.users):
            late.add(node)
    return late


def _is_picture(node: fx.Node) -> bool:
    shape = shape_of(node)
    return len(shape) > 2 and math.prod(size if isinstance(size, int) else 2 for size in shape[2:]) > 1
