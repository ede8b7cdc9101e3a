"""Graphs that make pictures with a periodic border, on the native engine: what it takes, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cgnrt.backends.native import examine
from cgnrt.backends.native.periodic import unpack_windows
from cgnrt.errors import BackendError

from .onnx_graphs import mechanism, node, run_onnx_runtime

RNG = np.random.default_rng(0)
ROWS = [7, *range(8), 0]


def _floats(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32) * 0.3


def _windows(mode: str) -> tuple[np.ndarray, np.ndarray]:
    """The 2x2 convolution of up-sampling and a circular 3x3 convolution of 8 channels to 8, and its biases."""
    kernel, bias = _floats(8, 8, 3, 3), _floats(8)
    windows = np.zeros((8, 2, 2, 8, 2, 2), np.float32)  # out, y, x, in, window y, window x
    # Output 2j + 1 + d reads up-sampled pixels 2j + d .. 2j + 2 + d, which are copies of pixels j and j + 1.
    for y in range(2):
        for x in range(2):
            for a in range(3):
                for b in range(3):
                    windows[:, y, x, :, (y + a) // 2, (x + b) // 2] += kernel[:, :, a, b]
    weight, biases = windows.reshape(8, 4, 8, 2, 2), np.repeat(bias[:, None], 4, 1)
    if mode == "DCR":
        weight, biases = weight.swapaxes(0, 1), biases.T
    return weight.reshape(32, 8, 2, 2), biases.reshape(32)


def _graph(mode: str = "DCR", **changes: Any) -> Any:
    """A linear layer, up-sampling, a plain convolution and tanh, all on a torus."""
    weight, bias = _floats(8, 8, 8, 5), _floats(8, 8, 8)
    windows, biases = _windows(mode)
    constants = {
        "w": np.ascontiguousarray(weight[:, ROWS][:, :, ROWS].reshape(800, 5)),
        "b": np.ascontiguousarray(bias[:, ROWS][:, :, ROWS].reshape(800)),
        "shape": np.array([-1, 8, 10, 10]),
        "windows": windows,
        "biases": biases,
        "kernel": _floats(3, 8, 3, 3),
    }
    nodes = {
        "concat": node("Concat", "u e", "x", axis=1),
        "linear": node("Gemm", "x w b", "y", transB=1),
        "reshape": node("Reshape", "y shape", "p"),
        "up": node("Conv", "p windows biases", "q"),
        "relu": node("LeakyRelu", "q", "r", alpha=0.2),
        "shuffle": node("DepthToSpace", "r", "s", blocksize=2, mode=mode),
        "conv": node("Conv", "s kernel", "t"),
        "tanh": node("Tanh", "t", "out"),
    }
    size = changes.pop("size", 16)
    for name, value in changes.items():
        (constants if name in constants else nodes)[name] = value
    kept = [entry for entry in nodes.values() if entry is not None]
    return mechanism(kept, {"u": ["n", 3], "e": ["n", 2]}, {"out": ["n", 3, size, size]}, constants)


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
@pytest.mark.parametrize("relu", [True, False])
def test_a_torus_is_what_onnx_runtime_makes_of_it(mode: str, relu: bool) -> None:
    changes: dict[str, Any] = {}
    if not relu:
        changes = {"relu": None, "shuffle": node("DepthToSpace", "q", "s", blocksize=2, mode=mode)}
    made = _graph(mode, **changes)
    inputs = {"u": _floats(5, 3), "e": _floats(5, 2)}
    found = examine(made).load(1).run(inputs)["out"]
    np.testing.assert_allclose(found, run_onnx_runtime(made, inputs)["out"], atol=2e-5)


def _changed(array: np.ndarray, place: tuple[int, ...]) -> np.ndarray:
    array = array.copy()
    array[place] += 1
    return array


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"w": _floats(800, 5)}, "convolutions without padding on a picture without a periodic border"),
        ({"b": _floats(800)}, "convolutions without padding on a picture without a periodic border"),
        (
            {"conv": node("Conv", "s kernel", "t", pads=[1, 1, 1, 1]), "size": 18},
            "conv3 of another padding on a picture with a periodic border",
        ),
        ({"conv": node("Relu", "s", "t"), "size": 18}, "graphs whose output has a periodic border"),
        (
            {"windows": _changed(_windows("DCR")[0], (0, 0, 0, 0))},
            "transposed convolutions that do not stand for",
        ),
        ({"biases": _changed(_windows("DCR")[1], (0,))}, "depth-to-space of outputs with different biases"),
        (
            {"shuffle": node("Relu", "r", "s"), "kernel": _floats(3, 32, 3, 3), "size": 7},
            "2x2 convolutions without depth-to-space by 2",
        ),
    ],
)
def test_other_graphs_are_refused_by_reason(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BackendError, match=message):
        examine(_graph(**changes))


def test_windows_come_four_a_channel() -> None:
    with pytest.raises(Exception, match="depth-to-space of 6 channels"):
        unpack_windows(_floats(6, 1, 2, 2), _floats(6), "DCR")
