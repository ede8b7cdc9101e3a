"""Circular paddings, computed where they cost least: in the linear layer that the picture begins with.

A convolution that pads with the opposite side reads a picture with a border of one pixel, in which the picture goes on
periodically. A copy of the picture with that border is a pass over memory for each convolution, and engines have no
fast one. But a layer can make the border itself: a linear layer by repeating the weights of the pixels that lie there,
an activation as it is, and nearest x2 up-sampling with a circular 3x3 convolution as a 2x2 convolution on the bordered
picture, whose 2h + 2 by 2w + 2 results have their border again. Its four outputs a window are put in place by
depth-to-space. Where a layer cannot, slices of the picture are put beside it: ONNX has no such padding in opset 18.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, fx

from cgnrt_export.graph import add_constant, arguments, constant, insert_call, is_call, shape_of
from cgnrt_export.rewrites.upsample import doubles, transposed_weight

_ACTIVATIONS = ("relu", "leaky_relu", "tanh", "sigmoid", "elu", "silu", "gelu", "softplus", "clamp")
_RESHAPES = ("unflatten", "view", "reshape")
# The two outputs between pixels j and j + 1, as the taps of the transposed convolution that meet them.
_TAPS = ((2, 0), (3, 1))


def window_weight(weight: Tensor) -> Tensor:
    """The 2x2 kernel that does up-sampling and convolution at once, on a picture with its periodic border.

    Args:
      weight: (out, in, 3, 3) of a convolution behind nearest x2 up-sampling.
    Returns:
      (4 out, in, 2, 2): the window at j, j + 1 makes outputs 2j + 1 and 2j + 2 along each axis, in the order of
        `pixel_shuffle`.
    """
    transposed = transposed_weight(weight)  # (in, out, 4, 4)
    taps = torch.tensor(_TAPS)
    windows = transposed[:, :, taps][:, :, :, :, taps]  # (in, out, y, window y, x, window x)
    c_out, c_in = weight.shape[:2]
    return windows.permute(1, 2, 4, 0, 3, 5).reshape(4 * c_out, c_in, 2, 2).contiguous()


def wrap_linear(values: Tensor, channels: int, height: int, width: int) -> Tensor:
    """Rows of a linear layer's weight or bias (c h w, ...) for the picture with its periodic border."""
    rows, columns = ([size - 1, *range(size), 0] for size in (height, width))
    pictures = values.reshape(channels, height, width, *values.shape[1:])
    return pictures[:, rows][:, :, columns].reshape(-1, *values.shape[1:]).contiguous()


def merge_wraps(module: fx.GraphModule) -> int:
    """Let the layers before it make the border of each circular padding by 1, where all of them can.

    Returns how many paddings went, those that became slices included.
    """
    before = _count(module)
    while (padding := _last_circular(module)) is not None:
        source = cast(fx.Node, padding.args[0])
        convolution = next(iter(padding.users), None)
        by_one = _is_wrap(padding)
        if by_one and _grows(module, source):
            padding.replace_all_uses_with(_grow(module, source))
        elif by_one and convolution is not None and _doubles_in_turn(module, convolution):
            _replace_last(module, convolution)
        else:
            _put_slices_beside(module, padding)
        module.graph.eliminate_dead_code()
    return before - _count(module)


def _count(module: fx.GraphModule) -> int:
    return sum(_is_circular(node) for node in module.graph.nodes)


def _last_circular(module: fx.GraphModule) -> fx.Node | None:
    return next((node for node in reversed(module.graph.nodes) if _is_circular(node)), None)


def _is_circular(node: fx.Node) -> bool:
    """Whether a node pads with the opposite side, in axes of known sizes."""
    if not is_call(node, "pad") or arguments(node)["mode"] != "circular":
        return False
    pads = arguments(node)["pad"]
    known = all(isinstance(size, int) for size in (*pads, *shape_of(node)[-len(pads) // 2 :]))
    return known and min(pads) >= 0


def _put_slices_beside(module: fx.GraphModule, padding: fx.Node) -> None:
    value = cast(fx.Node, padding.args[0])
    pads = arguments(padding)["pad"]
    shape = list(shape_of(value))
    for k, (before, behind) in enumerate(zip(pads[::2], pads[1::2], strict=True)):
        axis = len(shape) - 1 - k
        size = shape[axis]
        ends = [(size - before, size, before), (0, behind, behind)]
        parts: list[fx.Node] = [value]
        for place, (start, end, length) in zip((0, 2), ends, strict=True):
            if length:
                sliced = [*shape[:axis], length, *shape[axis + 1 :]]
                target = torch.ops.aten.slice.Tensor
                args = (value, axis, start, end)
                parts.insert(
                    place, insert_call(module, target, args, before=padding, like=padding, shape=sliced)
                )
        shape[axis] = size + before + behind
        if len(parts) > 1:
            target = torch.ops.aten.cat.default
            value = insert_call(module, target, (parts, axis), before=padding, like=padding, shape=shape)
    padding.replace_all_uses_with(value)


def _is_wrap(node: object) -> bool:
    if not isinstance(node, fx.Node) or not is_call(node, "pad"):
        return False
    given = arguments(node)
    return list(given["pad"]) == [1, 1, 1, 1] and given["mode"] == "circular" and len(shape_of(node)) == 4


def _source_of_doubling(module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """x of a 3x3 convolution of the circular padding of the up-sampling of x, where nothing else reads in between."""
    if not is_call(node, "conv2d"):
        return None
    given = arguments(node)
    padding = given["input"]
    weight = constant(module, given["weight"])
    known = weight is not None and tuple(weight.shape[2:]) == (3, 3)
    biased = given["bias"] is None or constant(module, given["bias"]) is not None
    plain = all(
        set(_sizes(given[name])) == {size} for name, size in (("stride", 1), ("padding", 0), ("dilation", 1))
    )
    if not (known and biased and plain and given["groups"] == 1 and _is_wrap(padding)):
        return None
    upsampling = padding.args[0]
    if len(padding.users) > 1 or len(upsampling.users) > 1 or not doubles(upsampling):
        return None
    return cast(fx.Node, upsampling.args[0])


def _sizes(value: object) -> list[object]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _linear_of(module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """The linear layer with constant weights that a picture is the result of, where nothing else reads it."""
    linear = node.args[0] if is_call(node, *_RESHAPES) else None
    if not isinstance(linear, fx.Node) or not is_call(linear, "linear") or len(linear.users) > 1:
        return None
    given = arguments(linear)
    weight, bias = constant(module, given["weight"]), given["bias"]
    if weight is None or (bias is not None and constant(module, bias) is None):
        return None
    sizes = shape_of(node)[1:]
    whole = len(sizes) == 3 and all(isinstance(size, int) for size in sizes)
    return linear if whole and sizes[0] * sizes[1] * sizes[2] == weight.shape[0] else None


def _grows(module: fx.GraphModule, node: object) -> bool:
    """Whether a value can be made with its periodic border at once. Only where nothing else needs it without."""
    if not isinstance(node, fx.Node) or len(node.users) > 1 or len(shape_of(node)) != 4:
        return False
    if is_call(node, *_ACTIVATIONS):
        return node.all_input_nodes == [node.args[0]] and _grows(module, node.args[0])
    if _linear_of(module, node) is not None:
        return True
    return _doubles_in_turn(module, node)


def _doubles_in_turn(module: fx.GraphModule, node: fx.Node) -> bool:
    source = _source_of_doubling(module, node)
    return source is not None and _grows(module, source)


def _grow(module: fx.GraphModule, node: fx.Node) -> fx.Node:
    n, c, h, w = shape_of(node)
    if is_call(node, *_ACTIVATIONS):
        source = _grow(module, node.args[0])  # type: ignore[arg-type]
        shuffle = source if is_call(source, "pixel_shuffle") else None
        before = cast(fx.Node, source.args[0]) if shuffle is not None else source
        with module.graph.inserting_before(node):
            active = module.graph.call_function(node.target, (before, *node.args[1:]), dict(node.kwargs))  # type: ignore[arg-type]
        active.meta["val"] = before.meta["val"]
        if shuffle is None:
            return active
        # Behind the activation, which engines then join with the convolution.
        return _shuffle(module, active, before=node, shape=(n, c, h + 2, w + 2))
    if (linear := _linear_of(module, node)) is not None:
        return _grow_linear(module, linear, node)
    source = _grow(module, cast(fx.Node, _source_of_doubling(module, node)))
    given = arguments(node)
    weight = window_weight(cast(Tensor, constant(module, given["weight"])))
    kernel = add_constant(module, "window_weight", weight, before=node)
    bias = constant(module, given["bias"])
    offset = None
    if bias is not None:
        offset = add_constant(module, "window_bias", bias.repeat_interleave(4), before=node)
    shape = (n, 4 * c, h // 2 + 1, w // 2 + 1)
    args = (source, kernel, offset)
    convolution = insert_call(
        module, torch.ops.aten.conv2d.default, args, before=node, like=node, shape=shape
    )
    return _shuffle(module, convolution, before=node, shape=(n, c, h + 2, w + 2))


def _shuffle(module: fx.GraphModule, node: fx.Node, *, before: fx.Node, shape: tuple[object, ...]) -> fx.Node:
    target = torch.ops.aten.pixel_shuffle.default
    return insert_call(module, target, (node, 2), before=before, like=node, shape=shape)


def _grow_linear(module: fx.GraphModule, linear: fx.Node, node: fx.Node) -> fx.Node:
    n, c, h, w = shape_of(node)
    given = arguments(linear)
    wrapped = [
        None if value is None else add_constant(module, name, wrap_linear(value, c, h, w), before=node)
        for name, value in (
            ("wrapped_weight", constant(module, given["weight"])),
            ("wrapped_bias", constant(module, given["bias"])),
        )
    ]
    sizes = (c, h + 2, w + 2)
    flat = (n, c * (h + 2) * (w + 2))
    args = (given["input"], *wrapped)
    longer = insert_call(module, torch.ops.aten.linear.default, args, before=node, like=linear, shape=flat)
    target = torch.ops.aten.unflatten.int
    return insert_call(module, target, (longer, 1, list(sizes)), before=node, like=node, shape=(n, *sizes))


def _replace_last(module: fx.GraphModule, convolution: fx.Node) -> None:
    """A doubling whose result needs no border: a transposed convolution on the bordered picture."""
    source = _grow(module, cast(fx.Node, _source_of_doubling(module, convolution)))
    given = arguments(convolution)
    weight = transposed_weight(cast(Tensor, constant(module, given["weight"])))
    kernel = add_constant(module, "transposed_weight", weight, before=convolution)
    args = (source, kernel, given["bias"], [2, 2], [3, 3])
    target = torch.ops.aten.conv_transpose2d.input
    shape = shape_of(convolution)
    made = insert_call(module, target, args, before=convolution, like=convolution, shape=shape)
    convolution.replace_all_uses_with(made)
