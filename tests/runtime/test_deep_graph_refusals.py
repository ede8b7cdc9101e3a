"""Which graphs neither of our engines takes, and in which words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cgnrt import BackendError
from cgnrt.backends.native import examine
from cgnrt.backends.native.deep.program import TRY

from .onnx_graphs import Shape, mechanism, node
from .test_deep_graphs import ATTENTION, BILINEAR, CONV, MORE, NEAREST, SAME, UP, floats, pictures

EXTRA = {
    "nan": np.full((16, 16, 3, 3), np.nan, np.float32),
    "nan_b": np.full(16, np.inf, np.float32),
    "w_5x5": floats(16, 16, 5, 5),
    "grouped": floats(16, 8, 3, 3),
    "other_up": floats(16, 16, 4, 4),
    "plane": floats(1, 1, 6, 6),
    "row": floats(6),
    "thin": floats(1, 16, 1, 1),
    "odd": np.array([TRY, 16, 5, 5]),
    "flatter": np.array([TRY, 16, 3, 6]),
    "fewer": np.array([TRY, 8, 6, 6]),
    "broken": np.array([1, 1, 1.4, 1.4], np.float32),
    "nearly_twice": np.array([1, 1, 2.1, 2.1], np.float32),
    "twice2": np.array([2, 2], np.float32),
    "rows": np.array([0, 6, 96]),
    "one_row": np.array([1, 16, -1]),
    "six": floats(6, 6),
    **MORE,
}


# What the message says of deep networks, the graph, and its result.
REFUSED: list[tuple[str, list[Any], Shape]] = [
    ("operator Cos", [CONV, node("Cos", "c", "y")], (16, 6, 6)),
    (
        "operator Sin",
        [node("Sin", "v", "s"), node("Unsqueeze", "s spatial", "u"), CONV, node("Mul", "c u", "y")],
        (16, 6, 6),
    ),
    ("graphs without convolutions", [node("Relu", "x", "y")], (16, 6, 6)),
    ("weights that are not finite", [node("Conv", "x nan", "y", **SAME)], (16, 6, 6)),
    ("weights that are not finite", [node("Conv", "x w nan_b", "y", **SAME)], (16, 6, 6)),
    (r"Conv with weights \(16, 16, 5, 5\)", [node("Conv", "x w_5x5", "y", pads=[2] * 4)], (16, 6, 6)),
    (r"Conv with strides \[2, 2\]", [node("Conv", "x w", "y", **SAME, strides=[2, 2])], (16, 3, 3)),
    (r"Conv with pads \[0, 0, 0, 0\]", [node("Conv", "x w", "y", kernel_shape=[3, 3])], (16, 4, 4)),
    (r"Conv with dilations \[1, 2\]", [node("Conv", "x w", "y", **SAME, dilations=[1, 2])], (16, 6, 4)),
    ("Conv with group 2", [node("Conv", "x grouped", "y", **SAME, group=2)], (16, 6, 6)),
    ("Conv with auto_pad SAME_UPPER", [node("Conv", "x w", "y", **SAME, auto_pad="SAME_UPPER")], (16, 6, 6)),
    (
        "weights that the graph computes",
        [node("Mul", "w scalar", "w2"), node("Conv", "x w2", "y", **SAME)],
        (16, 6, 6),
    ),
    ("transposed convolutions that do not", [node("ConvTranspose", "x other_up", "y", **UP)], (16, 12, 12)),
    (r"ConvTranspose with strides \[1, 1\]", [node("ConvTranspose", "x up", "y", pads=[1] * 4)], (16, 7, 7)),
    (
        r"ConvTranspose of 16 channels with weights \(16, 16, 3, 3\)",
        [node("ConvTranspose", "x w", "y", pads=[1] * 4)],
        (16, 6, 6),
    ),
    ("Mul of two pictures", [CONV, node("Mul", "c x", "y")], (16, 6, 6)),
    (
        r"a float32 array \(1, 1, 6, 6\) applied to a picture of 16 channels",
        [CONV, node("Mul", "c plane", "y")],
        (16, 6, 6),
    ),
    (r"a float32 array \(1, 1, 6, 6\) as a picture", [CONV, node("Add", "c plane", "y")], (16, 6, 6)),
    (
        r"a float32 array \(6,\) applied to a picture of 16 channels",
        [CONV, node("Mul", "c row", "y")],
        (16, 6, 6),
    ),
    (
        "Add of pictures of two sizes",
        [CONV, node("Conv", "x thin", "d"), node("Add", "c d", "y")],
        (16, 6, 6),
    ),
    (
        r"MaxPool with kernel_shape \[3, 3\]",
        [CONV, node("MaxPool", "c", "y", kernel_shape=[3, 3], strides=[2, 2])],
        (16, 2, 2),
    ),
    (
        "MaxPool of an odd size, rounded down",
        [
            CONV,
            node("Resize", "c - - odd", "r", **BILINEAR),
            node("MaxPool", "r", "y", kernel_shape=[2, 2], strides=[2, 2]),
        ],
        (16, 2, 2),
    ),
    (
        "nearest Resize by another factor than 2",
        [CONV, node("Resize", "c - - odd", "y", **NEAREST)],
        (16, 5, 5),
    ),
    (
        "nearest Resize by another factor than 2",
        [CONV, node("Resize", "c - twice", "y", mode="nearest")],
        (16, 12, 12),
    ),
    (
        "an operator that reads [a-z]+, a doubled picture or",
        [CONV, node("Resize", "c - twice", "d", **NEAREST), node("Relu", "d", "y")],
        (16, 12, 12),
    ),
    (
        "an operator that reads [a-z]+, a doubled picture or",
        [CONV, node("Resize", "c - twice", "y", **NEAREST)],
        (16, 12, 12),
    ),
    (
        "Resize with mode cubic and half_pixel",
        [CONV, node("Resize", "c - - odd", "y", mode="cubic")],
        (16, 5, 5),
    ),
    (
        "Resize with mode linear and pytorch_half_pixel",
        [
            CONV,
            node(
                "Resize", "c - - odd", "y", mode="linear", coordinate_transformation_mode="pytorch_half_pixel"
            ),
        ],
        (16, 5, 5),
    ),
    (
        "Resize by factors that do not give whole sizes",
        [CONV, node("Resize", "c - broken", "y", **BILINEAR)],
        (16, 8, 8),
    ),
    (
        "Resize by factors that do not give whole sizes",
        [CONV, node("Resize", "c - nearly_twice", "d", **NEAREST), node("Conv", "x w", "y", **SAME)],
        (16, 6, 6),
    ),
    (
        r"Resize with axes \[2, 3\]",
        [CONV, node("Resize", "c - twice2", "y", **BILINEAR, axes=[2, 3])],
        (16, 12, 12),
    ),
    (
        "Resize with keep_aspect_ratio_policy not_larger",
        [CONV, node("Resize", "c - - flatter", "y", **BILINEAR, keep_aspect_ratio_policy="not_larger")],
        (16, 3, 3),
    ),
    (
        "Resize with antialias 1",
        [CONV, node("Resize", "c - - odd", "y", **BILINEAR, antialias=1)],
        (16, 5, 5),
    ),
    (rf"Resize to \[{TRY}, 8, 6, 6\]", [CONV, node("Resize", "c - - fewer", "y", **BILINEAR)], (8, 6, 6)),
    (
        "Slice of a picture along another axis than its channels",
        [CONV, node("Slice", "c k0 k4 k2", "y")],
        (16, 4, 6),
    ),
    (
        "Slice of a picture along another axis than its channels",
        [CONV, node("Slice", "c k0 k16 k1 k2", "y")],
        (8, 6, 6),
    ),
    ("Slice from channel 4", [CONV, node("Slice", "c k4 k16 k1", "y")], (12, 6, 6)),
    ("empty Slice", [CONV, node("Slice", "c k8 k8 k1", "s"), node("Concat", "s c", "y", axis=1)], (16, 6, 6)),
    (
        "Concat of pictures whose channels are not multiples of 8",
        [node("Conv", "x w5", "f", **SAME), node("Concat", "f x", "y", axis=1)],
        (21, 6, 6),
    ),
    (
        "Concat of pictures along another axis than their channels",
        [CONV, node("Concat", "c x", "y", axis=2)],
        (16, 12, 6),
    ),
    ("Reshape of a picture to", [CONV, node("Reshape", "c rows", "y")], (6, 96)),
    ("Reshape of a picture to", [CONV, node("Reshape", "c one_row", "y")], (16, 36)),
    ("Transpose of a picture", [CONV, node("Transpose", "c", "y", perm=[0, 1, 3, 2])], (16, 6, 6)),
    ("MatMul outside self-attention", [CONV, node("MatMul", "c six", "y")], (16, 6, 6)),
    ("Softmax outside self-attention", [*ATTENTION[:-3], node("Softmax", "scores", "y", axis=1)], (36, 9)),
    (
        "MatMul outside self-attention",
        [*ATTENTION[:-3], node("Transpose", "scores", "t", perm=[0, 2, 1]), node("MatMul", "vf t", "y")],
        (16, 36),
    ),
    (
        "an operator that reads [a-z]+, a doubled picture or",
        [*ATTENTION[:-3], node("Mul", "scores scalar", "y")],
        (36, 9),
    ),
    (
        "a picture y of 16 x 6 x 6 where the plan says 16 x 8 x 8",
        [node("Conv", "x w", "y", **SAME)],
        (16, 8, 8),
    ),
    (
        r"sizes or limits that depend on the inputs \(limit\)",
        [
            node("Slice", "v k0 k1 k0", "v1"),
            node("Slice", "v1 k0 k1 k1", "v2"),
            node("Squeeze", "v2", "limit"),
            CONV,
            node("Clip", "c limit", "y"),
        ],
        (16, 6, 6),
    ),
]


@pytest.mark.parametrize(("message", "nodes", "out"), REFUSED)
def test_other_graphs_are_refused(message: str, nodes: list[Any], out: Shape) -> None:
    made = pictures(*nodes, out=("n", *out), constants=EXTRA)
    words = f"mechanism 'shape': the native engine for small.*for deep networks does not support {message}"
    with pytest.raises(BackendError, match=words):
        examine(made).load(1)


def test_two_images_are_refused() -> None:
    sizes = ("n", 16, 6, 6)
    made = mechanism([node("Add", "x z", "y")], {"x": sizes, "z": sizes}, {"y": sizes}, {})
    with pytest.raises(BackendError, match="two images as inputs"):
        examine(made).load(1)
