"""Which graphs the native engine takes: those it computes as ONNX Runtime does, and no other."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from cgnrt import BackendError
from cgnrt.backends.native import examine
from cgnrt.plan.onnx.model import parse_model

RNG = np.random.default_rng(0)
UP = {"kernel_shape": [4, 4], "strides": [2, 2], "pads": [1, 1, 1, 1]}
SAME = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def up_weight(channels: int, outs: int) -> np.ndarray:
    """4x4 taps that stand for up-sampling and a 3x3 convolution."""
    copies = np.zeros((4, 3), np.float32)
    copies[[0, 1, 1, 2, 2, 3], [2, 1, 2, 0, 1, 0]] = 1
    kernel = floats(channels, outs, 3, 3)
    return np.ascontiguousarray(np.einsum("ka,lb,coab->cokl", copies, copies, kernel))


UP_WEIGHT = up_weight(2, 3)


def mechanism(
    *nodes: tuple[str, dict[str, Any], list[np.ndarray]], side: int, outs: int = 3, first: Any = None
) -> Any:
    """A graph of Concat, Gemm, Reshape to (n, 2, 8, 8), then the nodes: (op, attributes, weights)."""
    constants = {"w": floats(128, 5), "shape": np.array([-1, 2, 8, 8])}
    made = [first] if first else []
    made += [
        helper.make_node("Concat", ["noise", "class_embedding"], ["c"], axis=1),
        helper.make_node("Gemm", ["c", "w"], ["g"], transB=1),
        helper.make_node("Reshape", ["g", "shape"], ["v0"]),
    ]
    for k, (op, attributes, weights) in enumerate(nodes):
        names = [f"k{k}_{i}" for i in range(len(weights))]
        constants |= dict(zip(names, weights, strict=True))
        out = "picture" if k == len(nodes) - 1 else f"v{k + 1}"
        made.append(helper.make_node(op, [f"v{k}", *names], [out], **attributes))
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        made,
        "g",
        [value("noise", 1, ["n", 3]), value("class_embedding", 1, ["n", 2])],
        [value("picture", 1, ["n", outs, side, side])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    inputs = [
        SimpleNamespace(name="noise", shape=("n", 3)),
        SimpleNamespace(name="class_embedding", shape=("n", 2)),
    ]
    outputs = [SimpleNamespace(name="picture", shape=("n", outs, side, side))]
    spec = SimpleNamespace(inputs=inputs, outputs=outputs)
    raw = model.SerializeToString()
    return SimpleNamespace(name="shape", graph=raw, model=parse_model(raw), weights=None, spec=spec)


@pytest.mark.parametrize(
    "made",
    [
        mechanism(("ConvTranspose", UP, [UP_WEIGHT, floats(3)]), side=16),
        mechanism(("ConvTranspose", UP, [UP_WEIGHT]), ("LeakyRelu", {"alpha": 0.3}, []), side=16),
        mechanism(
            ("Conv", SAME, [floats(3, 2, 3, 3), floats(3)]), ("Relu", {}, []), ("Tanh", {}, []), side=8
        ),
        mechanism(
            ("Conv", {**SAME, "strides": [1, 1], "auto_pad": "NOTSET"}, [floats(3, 2, 3, 3)]),
            ("LeakyRelu", {}, []),
            ("LeakyRelu", {"alpha": 0.5}, []),
            ("InstanceNormalization", {"epsilon": 1e-3}, [floats(3), floats(3)]),
            ("Clip", {}, [np.float32(-0.5), np.float32(0.75)]),
            side=8,
        ),
    ],
)
def test_accepted_graphs_are_computed_as_onnx_runtime_does(made: Any) -> None:
    inputs = {"noise": floats(5, 3), "class_embedding": floats(5, 2)}
    session = onnxruntime.InferenceSession(made.graph, providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, inputs)
    np.testing.assert_allclose(examine(made).load().run(inputs)["picture"], expected, atol=2e-5)


CONSTANT = helper.make_node("Constant", [], ["unused"], value=onnx.numpy_helper.from_array(np.float32(1)))


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (mechanism(("ConvTranspose", {"strides": [2, 2]}, [UP_WEIGHT]), side=18), r"pads \[0, 0, 0, 0\]"),
        (mechanism(("ConvTranspose", {"pads": [1] * 4}, [UP_WEIGHT]), side=9), r"strides \[1, 1\]"),
        (
            mechanism(("ConvTranspose", {**UP, "output_shape": [18, 18]}, [UP_WEIGHT]), side=18),
            "output_shape",
        ),
        (
            mechanism(("ConvTranspose", {**UP, "output_padding": [1, 1]}, [UP_WEIGHT]), side=17),
            "output_padding",
        ),
        (
            mechanism(("ConvTranspose", UP, [floats(2, 3, 4, 4)]), side=16),
            "transposed convolutions that do not",
        ),
        (
            mechanism(("ConvTranspose", UP, [UP_WEIGHT * np.float32(np.nan)]), side=16),
            "weights that are not finite",
        ),
        (mechanism(("ConvTranspose", {**UP, "group": 2}, [up_weight(2, 1)]), side=16, outs=2), "group 2"),
        (mechanism(("Conv", {}, [floats(3, 2, 3, 3)]), side=6), r"pads \[0, 0, 0, 0\]"),
        (
            mechanism(("Conv", {"pads": [0, 4, 0, 4]}, [floats(3, 2, 1, 9)]), side=8),
            r"weights \(3, 2, 1, 9\)",
        ),
        (mechanism(("Conv", {**SAME, "auto_pad": "SAME_UPPER"}, [floats(3, 2, 3, 3)]), side=8), "auto_pad"),
        (mechanism(("Conv", {**SAME, "strides": [2, 2]}, [floats(3, 2, 3, 3)]), side=4), r"strides \[2, 2\]"),
        (mechanism(("Sigmoid", {}, []), side=8, outs=2), "operator Sigmoid"),
        (
            mechanism(("Tanh", {}, []), side=8, outs=2, first=CONSTANT),
            "operator Constant among the first three",
        ),
        (
            mechanism(("Tanh", {}, []), side=16, outs=2),
            r"a picture of \(2, 8, 8\) where the plan says \(2, 16, 16\)",
        ),
    ],
)
def test_other_graphs_are_refused(made: Any, message: str) -> None:
    with pytest.raises(BackendError, match=message):
        examine(made).load()


def test_a_network_beyond_the_caches_is_refused() -> None:
    wide = [
        ("ConvTranspose", UP, [np.zeros((2, 4096, 4, 4), np.float32)]),
        ("ConvTranspose", UP, [np.zeros((4096, 1, 4, 4), np.float32)]),
    ]
    with pytest.raises(BackendError, match=r"working memory is .* bytes a thread, expected at most"):
        examine(mechanism(*wide, side=32, outs=1)).load()
