"""Which graphs the engine of deep networks takes: those it computes as ONNX Runtime does, and no other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from cgnrt import BackendError
from cgnrt.backends.native import examine

from .onnx_graphs import Shape, mechanism, node, run_onnx_runtime, torch_engine

# fp32 sums in another order, relative to the largest value; F(4x4, 3x3) is not used at these sizes.
TOLERANCE = 1e-5
RNG = np.random.default_rng(0)
SAME = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
POOL = {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}
UP = {"kernel_shape": [4, 4], "strides": [2, 2], "pads": [1, 1, 1, 1]}
NEAREST = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
BILINEAR = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
CORNERS = {"mode": "linear", "coordinate_transformation_mode": "align_corners"}


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def taps(outs: int, channels: int, kernel: int) -> np.ndarray:
    return floats(outs, channels, kernel, kernel) / np.float32((channels * kernel**2) ** 0.5)


def up_taps(channels: int, outs: int) -> np.ndarray:
    """4x4 taps that stand for up-sampling and a 3x3 convolution."""
    copies = np.zeros((4, 3), np.float32)
    copies[[0, 1, 1, 2, 2, 3], [2, 1, 2, 0, 1, 0]] = 1
    return np.ascontiguousarray(np.einsum("ka,lb,ocab->cokl", copies, copies, taps(outs, channels, 3)))


CONSTANTS: dict[str, Any] = {
    "w": taps(16, 16, 3),
    "w8": taps(8, 16, 3),
    "w5": taps(5, 16, 3),
    "b": floats(16),
    "one": taps(16, 16, 1),
    "one8": taps(8, 16, 1),
    "wide": taps(16, 32, 1),
    "up": up_taps(16, 16),
    "channels": floats(1, 16, 1, 1),
    "channels3": floats(16, 1, 1),
    "single": np.full((1, 1, 1, 1), 0.7, np.float32),
    "scalar": np.float32(-0.6),
    "vector1": np.full(1, 1.3, np.float32),
    "low": np.float32(-0.5),
    "high": np.float32(0.4),
    "k0": np.array([0]),
    "k1": np.array([1]),
    "k8": np.array([8]),
    "k16": np.array([16]),
    "k2": np.array([2]),
    "k4": np.array([4]),
    "end": np.array([np.iinfo(np.int64).max]),
    "spatial": np.array([2, 3]),
    "twice": np.array([1, 1, 2, 2], np.float32),
    "flat": np.array([0, 16, -1]),
    "flat8": np.array([0, 8, -1]),
    "picture16": np.array([-1, 16, 6, 6]),
    "matrix": floats(6, 16),
    "table": floats(3, 16),
}


def pictures(
    *nodes: Any,
    out: Shape = ("n", 16, 6, 6),
    more: dict[str, Shape] | None = None,
    constants: dict[str, Any] | None = None,
) -> Any:
    """A graph from the image x (n, 16, 6, 6) and the vector v (n, 16) to y; all of `CONSTANTS` are there."""
    inputs = {"x": ("n", 16, 6, 6), "v": ("n", 16)}
    return mechanism(nodes, inputs, {"y": out, **(more or {})}, {**CONSTANTS, **(constants or {})})


def check(made: Any, steps: Sequence[str] | None = None) -> None:
    """As ONNX Runtime, at several batch sizes, and so torch; `steps` are the kinds of those that the engine has."""
    engine, other = examine(made).load(1), torch_engine(made)
    for n in (3, 1, 2):
        inputs = {
            value.name: floats(n, *(int(size) for size in value.shape[1:])) for value in made.spec.inputs
        }
        expected = run_onnx_runtime(made, inputs)
        for found in (engine.run(inputs), other.run(inputs)):
            assert list(found) == list(expected)
            for name, array in expected.items():
                limit = TOLERANCE * np.abs(array).max()
                np.testing.assert_allclose(found[name], array, rtol=0, atol=limit, err_msg=name)
    if steps is not None:
        assert engine.steps == list(steps)


CONV = node("Conv", "x w b", "c", **SAME)


@pytest.mark.parametrize(
    ("nodes", "steps"),
    [
        # What follows a convolution goes into its step, as far as there is room.
        ([CONV, node("Mul", "c channels", "m"), node("Add", "m channels3", "a"), node("Relu", "a", "y")], 1),
        ([CONV, node("Mul", "channels c", "m"), node("Mul", "m scalar", "y")], 1),
        (
            [CONV, node("Mul", "c single", "m"), node("Mul", "m vector1", "p"), node("Mul", "p scalar", "y")],
            2,
        ),
        ([CONV, node("Relu", "c", "r"), node("Mul", "r channels", "y")], 1),
        (
            [CONV, node("LeakyRelu", "c", "l", alpha=0.3), node("Tanh", "l", "t"), node("Sigmoid", "t", "y")],
            2,
        ),
        ([CONV, node("LeakyRelu", "c", "y")], 1),
        ([CONV, node("LeakyRelu", "c", "y", alpha=1.7)], 1),
        ([CONV, node("Clip", "c low high", "y")], 1),
        ([CONV, node("Clip", "c - high", "y")], 1),
        ([CONV, node("Clip", "c low", "y")], 1),
        ([CONV, node("Add", "scalar c", "y")], 1),
        ([CONV, node("Add", "c vector1", "y")], 1),
        ([CONV, node("Add", "c x", "y")], 1),
        ([CONV, node("Add", "x c", "a"), node("Relu", "a", "y")], 1),
        ([CONV, node("Add", "c c", "y")], 2),
        ([CONV, node("Relu", "c", "r"), node("Add", "c r", "y")], 2),
        ([CONV, node("Add", "c x", "a"), node("Add", "a x", "y")], 2),
        # A map before a 1x1 convolution, alone or read twice.
        ([node("Mul", "x channels", "m"), node("Relu", "m", "r"), node("Conv", "r one b", "y")], 1),
        (
            [
                CONV,
                node("Mul", "c channels", "m"),
                node("Add", "m channels3", "a"),
                node("Relu", "a", "r"),
                node("Conv", "r one b", "d"),
                node("Add", "d r", "y"),
            ],
            2,
        ),
        (
            [
                CONV,
                node("Relu", "c", "r"),
                node("Mul", "c channels", "m"),
                node("Tanh", "m", "t"),
                node("Conv", "t one", "o"),
                node("Add", "r o", "y"),
            ],
            3,
        ),
        # The operand that is made later takes the other.
        ([node("Conv", "x one", "d"), CONV, node("Add", "d c", "y")], 2),
        ([CONV, node("Conv", "x one", "d"), node("Relu", "d", "r"), node("Add", "c r", "y")], 2),
        ([node("Conv", "x one", "d"), CONV, node("Add", "c d", "a"), node("Add", "a d", "y")], 3),
    ],
)
def test_element_wise_operators(nodes: list[Any], steps: int) -> None:
    made = pictures(*nodes)
    check(made)
    assert len(examine(made).load(1).steps) == 1 + steps  # and the image


@pytest.mark.parametrize(
    "nodes",
    [
        # Vectors: look-ups, choices, limits, and scales of every image.
        [
            node("Gemm", "v matrix", "g", transB=1),
            node("Slice", "g k0 k1 k1", "s"),
            node("Clip", "s low high", "sc"),
            node("Cast", "sc", "i", to=7),
            node("Abs", "i", "ia"),
            node("Squeeze", "ia k1", "iq"),
            node("Gather", "table iq", "t"),
            node("Greater", "v scalar", "large"),
            node("Where", "large t v", "s2"),
            node("Unsqueeze", "s2 spatial", "scale"),
            CONV,
            node("Mul", "c scale", "m"),
            node("Relu", "m", "y"),
        ],
        # A vector that becomes a picture: of its own, or added to one.
        [
            node("Unsqueeze", "v spatial", "p"),
            node("Expand", "p size", "e"),
            node("Conv", "e w b", "d", **SAME),
            node("Conv", "x w b", "c", **SAME),
            node("Add", "d c", "y"),
        ],
        [
            node("Unsqueeze", "v spatial", "p"),
            node("Expand", "p size", "e"),
            CONV,
            node("Add", "e c", "y"),
        ],
    ],
)
def test_vectors(nodes: list[Any]) -> None:
    check(pictures(*nodes, constants={"size": np.array([1, 1, 6, 6])}))


def test_a_residual_block_of_biggan() -> None:
    """Batch norms of every image, half of the channels kept and doubled in size, two 1x1 and two 3x3 convolutions."""
    scales = [
        step
        for k in range(3)
        for step in (
            node("Gemm", f"v s{k}", f"g{k}"),
            node("Unsqueeze", f"g{k} spatial", f"u{k}"),
            node("Gemm", f"v t{k}", f"h{k}"),
            node("Unsqueeze", f"h{k} spatial", f"o{k}"),
        )
    ]
    made = pictures(
        *scales,
        node("Mul", "x u0", "m0"),
        node("Add", "m0 o0", "a0"),
        node("Relu", "a0", "r0"),
        node("Conv", "r0 down", "c0"),
        node("Mul", "c0 u1", "m1"),
        node("Add", "m1 o1", "a1"),
        node("Relu", "a1", "r1"),
        node("ConvTranspose", "r1 up8 b8", "c1", **UP),
        node("Mul", "c1 u2", "m2"),
        node("Add", "m2 o2", "a2"),
        node("Relu", "a2", "r2"),
        node("Conv", "r2 grow b8", "c2"),
        node("Slice", "x k0 k8 k1", "half"),
        node("Resize", "half - twice", "doubled", **NEAREST),
        node("Add", "c2 doubled", "y"),
        out=("n", 8, 12, 12),
        constants={
            **{f"s{k}": floats(16, 16 if k == 0 else 8) for k in range(3)},
            **{f"t{k}": floats(16, 16 if k == 0 else 8) for k in range(3)},
            "down": taps(8, 16, 1),
            "up8": up_taps(8, 8),
            "b8": floats(8),
            "grow": taps(8, 8, 1),
        },
    )
    check(made, ["image", "conv", "up_conv", "conv"])


def test_a_u_net() -> None:
    """Max pools of odd sizes, sizes from Shape, concatenations, dilated convolutions and a sum over the whole."""
    made = mechanism(
        [
            node("Conv", "x first b", "e0", **SAME),
            node("Relu", "e0", "r0"),
            node("MaxPool", "r0", "p0", **POOL),
            node("Conv", "p0 w b", "e1", **SAME),
            node("Relu", "e1", "r1"),
            node("MaxPool", "r1", "p1", **POOL),
            node("Conv", "p1 w b", "e2", kernel_shape=[3, 3], pads=[2] * 4, dilations=[2, 2]),
            node("Relu", "e2", "r2"),
            node("Shape", "r1", "s1"),
            node("Resize", "r2 - - s1", "u1", **CORNERS),
            node("Concat", "u1 r1", "j1", axis=1),
            node("Conv", "j1 joined b", "d1", **SAME),
            node("Relu", "d1", "q1"),
            node("Shape", "r0", "s0", start=2),
            node("Shape", "q1", "sq", end=2),
            node("Concat", "sq s0", "s2", axis=0),
            node("Resize", "q1 - - s2", "u0", **BILINEAR),
            node("Concat", "u0 r0", "j0", axis=-3),
            node("Conv", "j0 joined b", "d0", **SAME),
            node("Relu", "d0", "q0"),
            node("Add", "q0 e0", "sum"),
            node("Conv", "sum last", "l0", **SAME),
            node("Sigmoid", "l0", "y"),
        ],
        {"x": ("n", 3, 9, 11)},
        {"y": ("n", 1, 9, 11)},
        {
            "first": taps(16, 3, 3),
            "w": CONSTANTS["w"],
            "b": CONSTANTS["b"],
            "joined": taps(16, 32, 3),
            "last": taps(1, 16, 3),
        },
    )
    check(made)


ATTENTION = [
    node("Conv", "x one8", "q"),
    node("Conv", "x one8b", "k"),
    node("MaxPool", "k", "kp", **POOL),
    node("Conv", "x one", "v0"),
    node("MaxPool", "v0", "vp", **POOL),
    node("Reshape", "q flat8", "qf"),
    node("Reshape", "kp flat8", "kf"),
    node("Reshape", "vp flat", "vf"),
    node("Transpose", "qf", "qt", perm=[0, 2, 1]),
    node("MatMul", "qt kf", "scores"),
    node("Softmax", "scores", "shares", axis=-1),
    node("Transpose", "shares", "st", perm=[0, 2, 1]),
    node("MatMul", "vf st", "seen"),
]
MORE = {"one8b": taps(8, 16, 1)}


def test_attention() -> None:
    made = pictures(
        *ATTENTION,
        node("Reshape", "seen picture16", "p"),
        node("Mul", "p single", "g"),
        node("Add", "g x", "y"),
        constants=MORE,
    )
    check(made, ["image", "conv", "conv", "max_pool", "conv", "max_pool", "attention"])


def test_attention_whose_result_is_read_twice() -> None:
    made = pictures(
        *ATTENTION,
        node("Reshape", "seen picture16", "p"),
        node("Reshape", "seen picture16", "p2"),
        node("Relu", "p", "r"),
        node("Add", "r p2", "y"),
        constants=MORE,
    )
    check(made)


@pytest.mark.parametrize(
    ("nodes", "channels"),
    [
        ([CONV, node("Concat", "c c", "y", axis=1)], 32),
        ([CONV, node("Concat", "x c", "y", axis=1)], 32),
        ([CONV, node("Concat", "c x", "j", axis=1), node("Concat", "j c", "y", axis=1)], 48),
        ([CONV, node("Concat", "c x", "j", axis=1), node("Concat", "x j", "y", axis=1)], 48),
        ([CONV, node("Concat", "c x", "j", axis=1), node("Concat", "j j", "y", axis=1)], 64),
        # Inside a concatenation of which a part and the whole are read, too.
        (
            [
                CONV,
                node("Concat", "c x", "j", axis=1),
                node("Slice", "j k8 k16 k1", "part"),
                node("Concat", "j part", "jj", axis=1),
                node("Conv", "j wide", "o"),
                node("Concat", "o jj", "y", axis=1),
            ],
            56,
        ),
        (
            [
                CONV,
                node("Concat", "c x", "j", axis=1),
                node("Relu", "j", "r"),
                node("Concat", "r j", "y", axis=1),
            ],
            64,
        ),
        ([node("Conv", "x w5", "f", **SAME), node("Concat", "x f", "y", axis=1)], 21),
        ([CONV, node("Slice", "c k8 end k1", "y")], 8),
        (
            [CONV, node("Slice", "c k8 end k1 k1", "s"), node("Relu", "s", "r"), node("Conv", "r half", "y")],
            16,
        ),
        ([CONV, node("Slice", "c k0 k16 k1", "s"), node("Relu", "s", "r"), node("Add", "r c", "y")], 16),
        (
            [
                CONV,
                node("Slice", "c k8 end k1", "s"),
                node("Slice", "c k0 k8 k1", "t"),
                node("Add", "s t", "y"),
            ],
            8,
        ),
        ([CONV, node("Slice", "c k0 k4 k1", "s"), node("Relu", "s", "y")], 4),
    ],
)
def test_concatenations_and_slices(nodes: list[Any], channels: int) -> None:
    check(pictures(*nodes, out=("n", channels, 6, 6), constants={"half": taps(16, 8, 1)}))


@pytest.mark.parametrize(
    ("nodes", "size"),
    [
        ([CONV, node("Resize", "c - - to", "y", **BILINEAR)], (9, 4)),
        ([CONV, node("Resize", "c - - to", "y", **CORNERS)], (9, 4)),
        ([CONV, node("Resize", "c - - to", "y", mode="linear")], (9, 4)),
        ([CONV, node("Resize", "c - factors", "y", **BILINEAR)], (9, 3)),
        ([CONV, node("Resize", "c - factors", "y", **CORNERS)], (9, 3)),
        ([CONV, node("MaxPool", "c", "y", **{**POOL, "ceil_mode": 0})], (3, 3)),
        ([CONV, node("ConvTranspose", "c up b", "y", **UP)], (12, 12)),
    ],
)
def test_other_sizes(nodes: list[Any], size: tuple[int, int]) -> None:
    given = {"to": np.array([-1, 16, 9, 4]), "factors": np.array([1, 1, 1.5, 0.5], np.float32)}
    front = [node("Shape", "x", "xs", end=2), node("Concat", "xs hw", "to", axis=0)]
    given |= {"hw": np.array([9, 4])}
    del given["to"]
    check(pictures(*front, *nodes, out=("n", 16, *size), constants=given))


def test_outputs_that_are_read_inside() -> None:
    """As a mask and its pre-mask: two outputs, one of which the other is made of."""
    made = pictures(
        CONV,
        node("Tanh", "c", "pre"),
        node("Conv", "pre w8", "d", **SAME),
        node("Clip", "d low high", "y"),
        out=("n", 8, 6, 6),
        more={"pre": ("n", 16, 6, 6)},
    )
    check(made, ["image", "conv", "conv"])


def test_no_images_and_memory_of_the_callers() -> None:
    made = pictures(
        node("Unsqueeze", "v spatial", "s"), CONV, node("Mul", "c s", "y"), more={"c": ("n", 16, 6, 6)}
    )
    engine = examine(made).load(1)
    empty = engine.run({"x": floats(0, 16, 6, 6), "v": floats(0, 16)})
    assert {name: array.shape for name, array in empty.items()} == {"y": (0, 16, 6, 6), "c": (0, 16, 6, 6)}
    inputs = {"x": floats(2, 16, 6, 6), "v": floats(2, 16)}
    out = np.full((2, 16, 6, 6), np.nan, np.float32)
    found = engine.run(inputs, {"y": out})
    assert found["y"] is out
    np.testing.assert_array_equal(out, engine.run(inputs)["y"])
    assert len(engine.seconds) == len(engine.steps)
    with pytest.raises(BackendError, match=r"run: the native engine failed: deep out 0: dtype is float64"):
        engine.run(inputs, {"y": out.astype(float)})
    with pytest.raises(BackendError, match=r"run: the native engine failed: 'v'"):
        engine.run({"x": inputs["x"]})
