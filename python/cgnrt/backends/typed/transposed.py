"""Transposed convolutions as plain ones: TensorRT does not have them in bfloat16 (NVIDIA/TensorRT issue 4829).

What stands for nearest x2 up-sampling and a 3x3 convolution, 4x4 taps at stride 2, is four 2x2 convolutions at the low
resolution, one for each of the four pixels that a pixel becomes, with the same multiply-adds. Others stay as they are,
in float32.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np

from cgnrt.backends.typed.constants import Constants

if TYPE_CHECKING:
    import onnx

_DOUBLING = {
    "auto_pad": "NOTSET",
    "dilations": [1, 1],
    "group": 1,
    "kernel_shape": [4, 4],
    "output_padding": [0, 0],
    "pads": [1, 1, 1, 1],
    "strides": [2, 2],
}
# Which taps meet the two neighbours that a pixel at an even place, and one at an odd place, is made from.
_TAPS = ([3, 1], [2, 0])


def split_transposed(model: onnx.ModelProto, constants: Constants, kept: Collection[str]) -> None:
    """Replace the transposed convolutions that double a picture, except those whose weights are to be kept."""
    nodes: list[Any] = []
    for node in model.graph.node:
        if _doubles(node, constants) and node.input[1] not in kept:
            nodes += _split(node, constants)
        else:
            nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _doubles(node: onnx.NodeProto, constants: Constants) -> bool:
    if node.op_type != "ConvTranspose" or node.input[1] not in constants.floats:
        return False
    import onnx

    found = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    found = {key: value.decode() if isinstance(value, bytes) else value for key, value in found.items()}
    defaults = {
        **_DOUBLING,
        "pads": [0] * 4,
        "strides": [1, 1],
        "kernel_shape": constants.shape(node.input[1])[2:],
    }
    return {**defaults, **found} == _DOUBLING


def _split(node: onnx.NodeProto, constants: Constants) -> list[Any]:
    import onnx

    weight, output = node.input[1], node.output[0]
    taps = constants.array(weight).swapaxes(0, 1)
    nodes, parts = [], []
    for y, rows in enumerate(_TAPS):
        for x, columns in enumerate(_TAPS):
            part = np.ascontiguousarray(taps[:, :, rows][:, :, :, columns])
            name = constants.add(f"{weight}.{y}{x}", part, like=weight)
            parts.append(constants.fresh(f"{output}.{y}{x}"))
            nodes.append(
                onnx.helper.make_node(
                    "Conv",
                    [node.input[0], name, *node.input[2:]],
                    [parts[-1]],
                    kernel_shape=[2, 2],
                    pads=[1 - y, 1 - x, y, x],
                )
            )
    together = constants.fresh(f"{output}.parts")
    nodes.append(onnx.helper.make_node("Concat", parts, [together], axis=1))
    nodes.append(onnx.helper.make_node("DepthToSpace", [together], [output], blocksize=2))
    return nodes
