"""ONNX operators as torch operations, beside those of the native engines: as ONNX Runtime, or refused by name."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from onnx import helper, numpy_helper

from cgnrt import BackendError
from cgnrt.backends.torch.operators import OPERATORS
from cgnrt.backends.torch.program import trace

from . import test_deep_graphs, test_deep_vectors
from .onnx_graphs import mechanism, node, run_onnx_runtime, torch_engine

RNG = np.random.default_rng(0)
CPU = torch.device("cpu")


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


THREE = {"kernel_shape": [3, 3]}
TWO = {"kernel_shape": [2, 2], "strides": [2, 2]}
UNEVEN = {"pads": [1, 0, 2, 1]}
# Of a picture x (n, 4, 6, 5), a vector v (n, 4) and a line s (n, 4, 6) to y.
CASES: dict[str, list[Any]] = {
    "AveragePool": [node("AveragePool", "x", "y", **TWO)],
    "AveragePool with pads": [node("AveragePool", "x", "y", **THREE, pads=[1, 1, 1, 1])],
    "AveragePool that counts pads": [
        node("AveragePool", "x", "y", **THREE, **UNEVEN, count_include_pad=1),
    ],
    "AveragePool rounded up": [node("AveragePool", "x", "y", **TWO, ceil_mode=1)],
    "AveragePool of a line": [node("AveragePool", "s", "y", kernel_shape=[2])],
    "BatchNormalization": [node("BatchNormalization", "x g b m var", "y")],
    "Ceil": [node("Ceil", "v", "y")],
    "ConstantOfShape": [node("Shape", "v", "k"), node("ConstantOfShape", "k", "o"), node("Add", "o v", "y")],
    "ConstantOfShape of a number": [
        node("ConstantOfShape", "k14", "o", value=numpy_helper.from_array(np.full(1, 2.5, np.float32))),
        node("Add", "o v", "y"),
    ],
    "Constant as a number": [node("Constant", "", "k", value_float=1.5), node("Add", "k v", "y")],
    "Constant as numbers": [
        node("Constant", "", "k", value_ints=[-1, 2, 2]),
        node("Reshape", "v k", "y"),
    ],
    "Conv uneven": [node("Conv", "x w", "y", **UNEVEN)],
    "Conv SAME_UPPER": [node("Conv", "x w b", "y", auto_pad="SAME_UPPER", strides=[2, 2])],
    "Conv SAME_LOWER": [node("Conv", "x w b", "y", auto_pad="SAME_LOWER", strides=[2, 1])],
    "Conv VALID": [node("Conv", "x w b", "y", auto_pad="VALID", dilations=[2, 1])],
    "Conv in groups": [node("Conv", "x grouped", "y", group=2)],
    "Conv of a line": [node("Conv", "s w1 b", "y", pads=[1, 1])],
    "ConvTranspose": [node("ConvTranspose", "x wt b", "y", strides=[2, 1], output_padding=[1, 0])],
    "ConvTranspose in groups": [node("ConvTranspose", "x grouped_t", "y", group=2, pads=[1, 1, 1, 1])],
    "Cos": [node("Cos", "v", "y")],
    "DepthToSpace": [node("DepthToSpace", "x", "y", blocksize=2)],
    "DepthToSpace CRD": [node("DepthToSpace", "x", "y", blocksize=2, mode="CRD")],
    "Div of integers": [
        *(node("Mul", "v ten", "t"), node("Cast", "t", "i", to=7)),
        *(node("Div", "i k3", "d"), node("Cast", "d", "y", to=1)),
    ],
    "Dropout": [node("Dropout", "v", "y")],
    "Elu": [node("Elu", "v", "y", alpha=0.7)],
    "Equal": [node("Equal", "v v", "e"), node("Not", "e", "o"), node("Cast", "o", "y", to=1)],
    "Erf": [node("Erf", "v", "y")],
    "Expand by the batch": [
        *(node("Shape", "v", "k", end=1), node("Concat", "k k14", "to", axis=0)),
        *(node("Unsqueeze", "v k2", "u"), node("Expand", "u ones", "f"), node("Expand", "row to", "r")),
        *(node("Squeeze", "r k1", "q"), node("Squeeze", "f k2", "h"), node("Add", "q h", "y")),
    ],
    "Flatten": [node("Flatten", "x", "y", axis=2)],
    "Flatten from the end": [node("Flatten", "x", "y", axis=-1)],
    "Gather of the batch's size": [
        *(node("Shape", "v", "k"), node("Gather", "k zero", "h"), node("Cast", "h", "f", to=1)),
        node("Mul", "v f", "y"),
    ],
    "Gelu": [node("Gelu", "v", "y")],
    "Gelu by tanh": [node("Gelu", "v", "y", approximate="tanh")],
    "GlobalAveragePool": [node("GlobalAveragePool", "x", "y")],
    "GlobalMaxPool": [node("GlobalMaxPool", "x", "y")],
    "GroupNormalization": [node("GroupNormalization", "x pair pair", "y", num_groups=2, epsilon=1e-3)],
    "HardSigmoid": [node("HardSigmoid", "v", "y", alpha=0.3)],
    "HardSwish": [node("HardSwish", "v", "y")],
    "InstanceNormalization": [node("InstanceNormalization", "x g b", "y")],
    "IsNaN": [node("Log", "v", "l"), node("IsNaN", "l", "i"), node("Cast", "i", "y", to=1)],
    "LayerNormalization": [node("LayerNormalization", "x gl bl", "y")],
    "LayerNormalization of axes": [node("LayerNormalization", "x gm", "y", axis=-2)],
    "LeakyRelu": [node("LeakyRelu", "v", "y")],
    "Log": [node("Abs", "v", "p"), node("Log", "p", "y")],
    "LogSoftmax": [node("LogSoftmax", "x", "y", axis=1)],
    "Max": [node("Max", "v row4 zerof", "y")],
    "MaxPool uneven": [node("MaxPool", "x", "y", **THREE, **UNEVEN)],
    "MaxPool with all": [node("MaxPool", "x", "y", **THREE, dilations=[2, 1], pads=[1, 1, 1, 1], ceil_mode=1)],
    "MaxPool of a line": [node("MaxPool", "s", "y", kernel_shape=[2])],
    "Min": [node("Min", "v row4", "y")],
    "Mish": [node("Mish", "v", "y")],
    "Mod": [
        *(node("Mul", "v ten", "t"), node("Cast", "t", "i", to=7)),
        *(node("Mod", "i k3", "d"), node("Cast", "d", "y", to=1)),
    ],
    "Mod of floats": [node("Mod", "v row4", "y", fmod=1)],
    "Logic": [
        *(node("Greater", "v zerof", "p"), node("Less", "v row4", "q")),
        *(node("And", "p q", "a"), node("Or", "p q", "o"), node("Xor", "a o", "e")),
        node("Cast", "e", "y", to=1),
    ],
    "PRelu": [node("PRelu", "x slope", "y")],
    "Pad": [node("Pad", "x pads half", "y")],
    "Pad with less": [node("Pad", "x cut", "y")],
    "Pad of an axis": [node("Pad", "v k12 - k1", "y")],
    "Pad edge": [node("Pad", "x edges", "y", mode="edge")],
    "Pad reflect": [node("Pad", "x edges", "y", mode="reflect")],
    "Pad nothing": [node("Pad", "x none", "y")],
    "Pow": [node("Abs", "v", "p"), node("Pow", "p half", "y")],
    "Range": [node("Range", "zero four one", "r"), node("Cast", "r", "f", to=1), node("Add", "v f", "y")],
    "Range of the batch": [
        *(node("Shape", "v", "k", end=1), node("Squeeze", "k", "q"), node("Range", "zero q one", "r")),
        *(node("Cast", "r", "f", to=1), node("Unsqueeze", "f k1", "u"), node("Add", "v u", "y")),
    ],
    "ReduceL1": [node("ReduceL1", "x k12", "y")],
    "ReduceL2": [node("ReduceL2", "x k12", "y", keepdims=0)],
    "ReduceLogSumExp": [node("ReduceLogSumExp", "x k1", "y")],
    "ReduceMax": [node("ReduceMax", "x minus1", "y")],
    "ReduceMean": [node("ReduceMean", "x k12", "y")],
    "ReduceMin": [node("ReduceMin", "x k1", "y", keepdims=0)],
    "ReduceProd": [node("ReduceProd", "x k12", "y", keepdims=0)],
    "ReduceSum": [node("ReduceSum", "x minus1", "y")],
    "ReduceSum of nothing": [node("ReduceSum", "x nothing", "y", noop_with_empty_axes=1)],
    "ReduceSumSquare": [node("ReduceSumSquare", "x k1", "y")],
    "Reshape by the batch": [
        *(node("Shape", "v", "k", end=1), node("Concat", "k k4", "to", axis=0)),
        *(node("Concat", "to rest", "all", axis=0), node("Reshape", "x all", "y")),
    ],
    "Resize repeats": [node("Resize", "x - twice", "y", mode="nearest")],
    "Resize nearest": [
        node("Resize", "x - - to", "y", mode="nearest", coordinate_transformation_mode="asymmetric",
             nearest_mode="floor"),
    ],
    "Resize nearest upwards": [
        node("Resize", "x - - to", "y", mode="nearest", nearest_mode="round_prefer_ceil"),
    ],
    "Resize of axes": [node("Resize", "x - - small", "y", mode="linear", axes=[2, 3])],
    "Resize by factors": [node("Resize", "x - factors", "y", mode="linear")],
    "Resize cubic": [node("Resize", "x - - to", "y", mode="cubic")],
    "Resize cubic by corners": [
        node("Resize", "x - - to", "y", mode="cubic", coordinate_transformation_mode="align_corners"),
    ],
    "Selu": [node("Selu", "v", "y")],
    "Sigmoid": [node("Sigmoid", "v", "y")],
    "Sign": [node("Sign", "v", "y")],
    "Sin": [node("Sin", "v", "y")],
    "Size": [node("Size", "v", "k"), node("Cast", "k", "f", to=1), node("Add", "f v", "y")],
    "Slice backwards": [node("Slice", "x end first k2 minus1", "y")],
    "Slice of the batch": [node("Slice", "v k0 k1 k0", "y")],
    "Slice of the batch in steps": [node("Slice", "v k0 huge k0 k2", "y")],
    "Softmax": [node("Softmax", "x", "y")],
    "Softplus": [node("Softplus", "v", "y")],
    "Softsign": [node("Softsign", "v", "y")],
    "SpaceToDepth": [node("Slice", "x k0 k4 k3", "c"), node("SpaceToDepth", "c", "y", blocksize=2)],
    "Split": [node("Split", "x k13", "a y", axis=1)],
    "Split evenly": [node("Split", "x", "a y b1", axis=2, num_outputs=3)],
    "Sum": [node("Sum", "v row4 v", "y")],
    "Tile": [node("Tile", "v k12", "y")],
    "Where": [node("Greater", "v zerof", "p"), node("Where", "p v row4", "y")],
}  # fmt: skip
CONSTANTS: dict[str, Any] = {
    **{name: floats(4) for name in ("b", "g", "m", "row4")},
    "var": np.array([0.3, 1, 2, 0.1], np.float32),
    "w": floats(4, 4, 3, 3),
    "w1": floats(4, 4, 3),
    "grouped": floats(6, 2, 2, 3),
    "wt": floats(4, 4, 3, 3),
    "grouped_t": floats(4, 3, 3, 3),
    "pair": floats(2),
    "gl": floats(5),
    "bl": floats(5),
    "gm": floats(6, 5),
    "slope": floats(4, 1, 1),
    "row": floats(1, 1, 4),
    "zerof": np.float32(0),
    "half": np.float32(0.5),
    "ten": np.float32(10),
    "zero": np.int64(0),
    "one": np.int64(1),
    "four": np.int64(4),
    **{f"k{k}": np.array([k]) for k in range(5)},
    "k12": np.array([1, 2]),
    "k13": np.array([1, 3]),
    "k14": np.array([1, 4]),
    "ones": np.array([1, 1, 1]),
    "minus1": np.array([-1]),
    "nothing": np.array([], np.int64),
    "rest": np.array([5, 6]),
    "huge": np.array([2**62]),
    "end": np.array([-1]),
    "first": np.array([-(2**63)]),
    "pads": np.array([0, 1, 0, 2, 0, 0, 1, 0]),
    "cut": np.array([0, 0, -1, 1, 0, 0, 0, -2]),
    "edges": np.array([0, 0, 1, 2, 0, 0, 0, 1]),
    "none": np.zeros(8, np.int64),
    "twice": np.array([1, 1, 2, 3], np.float32),
    "factors": np.array([1, 1, 1.3, 0.7], np.float32),
    "to": np.array([-1, 4, 9, 3]),
    "small": np.array([3, 8]),
}
INPUTS = {"x": ("n", 4, 6, 5), "v": ("n", 4), "s": ("n", 4, 6)}


def made_of(nodes: list[Any], opset: int = 20) -> Any:
    used = {name for step in nodes for name in step.input}
    constants = {name: array for name, array in CONSTANTS.items() if name in used}
    inputs = {name: shape for name, shape in INPUTS.items() if name in used}
    if "to" in constants and any("to" in step.output for step in nodes):
        del constants["to"]
    elif "to" in constants:  # the batch's size in front
        nodes = [node("Shape", "x", "whole", end=2), node("Concat", "whole size", "to", axis=0), *nodes]
        constants["size"] = constants.pop("to")[2:]
    return mechanism(nodes, inputs, {"y": ()}, constants, opset)


def inputs_of(made: Any, n: int) -> dict[str, np.ndarray]:
    return {spec.name: floats(n, *spec.shape[1:]) for spec in made.spec.inputs}


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
@pytest.mark.parametrize("name", CASES)
def test_as_onnx_runtime(name: str) -> None:
    made = made_of(CASES[name])
    engine = torch_engine(made)
    for n in (3, 1, 4):
        inputs = inputs_of(made, n)
        expected = run_onnx_runtime(made, inputs)["y"]
        found = engine.run(inputs)["y"]
        assert found.dtype == expected.dtype
        # Two libraries' transcendental functions, and sums in another order.
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=3e-6)


def test_group_normalization_with_a_number_for_each_channel() -> None:
    nodes = [node("GroupNormalization", "x g b", "y", num_groups=2)]
    engine = torch_engine(made_of(nodes, opset=21))
    inputs = {"x": floats(2, 4, 6, 5)}
    gain, bias = (torch.from_numpy(CONSTANTS[name]) for name in "gb")
    expected = torch.nn.functional.group_norm(torch.from_numpy(inputs["x"]), 2, gain, bias)
    np.testing.assert_allclose(engine.run(inputs)["y"], expected.numpy(), atol=1e-6)


def test_every_operator_has_a_case() -> None:
    tables = [*CASES.values(), *test_deep_vectors.CASES.values(), test_deep_graphs.ATTENTION]
    found = {step.op_type for step in itertools.chain.from_iterable(tables)}
    found |= {"GroupNormalization"}
    assert set(OPERATORS) - found == set()


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([node("Einsum", "v v", "y", equation="ij,ij->i")], "operator Einsum$"),
        ([node("MaxPool", "x", "y i", **TWO)], "MaxPool with indices"),
        ([node("MaxPool", "x", "y", **TWO, pads=[2, 0, 0, 0])], "MaxPool with pads of more than half"),
        ([node("AveragePool", "x", "y", **THREE, **UNEVEN)], "AveragePool with uneven pads"),
        ([node("AveragePool", "x", "y", **THREE, dilations=[2, 2])], "AveragePool with dilations"),
        (
            [node("AveragePool", "x", "y", **THREE, pads=[1] * 4, ceil_mode=1, count_include_pad=1)],
            "AveragePool that counts pads where sizes are rounded up",
        ),
        ([node("ConvTranspose", "x wt", "y", **UNEVEN)], "ConvTranspose with uneven pads or output_shape"),
        ([node("Conv", "x w", "y", auto_pad="OTHER")], "Conv with auto_pad OTHER"),
        (
            [node("BatchNormalization", "x g b m var", "y", training_mode=1)],
            "BatchNormalization with training_mode 1",
        ),
        ([node("Dropout", "v", "y mask")], "Dropout with a mask"),
        ([node("LayerNormalization", "x gl", "y m1", axis=-1)], "LayerNormalization with its statistics"),
        ([node("Cast", "v", "y", to=8)], "Cast to type 8"),
        (
            [helper.make_node("Constant", [], ["t"], value_string="a"), node("Add", "v t", "y")],
            "Constant with text",
        ),
        ([node("Split", "v", "y a", axis=0)], "Split of the batch"),
        ([node("Slice", "v end first k0 minus1", "y")], "Slice of the batch with a step below 1"),
        ([node("Gather", "v k4", "y", axis=1)], r"Gather with an index outside 0\.\.3"),
        ([node("Cast", "v", "i", to=7), node("Reshape", "v i", "y")], "Reshape with sizes that the network"),
        (
            [node("Shape", "v", "k"), node("Mul", "k k", "q"), node("Reshape", "v q", "y")],
            "Reshape with sizes that do not grow evenly with the batch",
        ),
        (
            [node("Shape", "v", "k", end=1), node("ReduceSum", "x k", "y")],
            "ReduceSum with axes or numbers that depend on the batch",
        ),
        ([node("Resize", "x - twice", "y", mode="linear", antialias=1)], "Resize with antialias 1"),
        (
            [node("Resize", "x - twice", "y", mode="linear", coordinate_transformation_mode="asymmetric")],
            "linear Resize with asymmetric",
        ),
        (
            [node("Resize", "x - factors", "y", mode="nearest")],
            "nearest Resize with half_pixel and round_prefer_floor",
        ),
        ([node("Resize", "x - twice", "y", mode="cubic", cubic_coeff_a=-0.5)], "cubic Resize of other than"),
        (
            [node("Transpose", "x", "t", perm=[0, 2, 1, 3]), node("Resize", "t - odd", "y", mode="linear")],
            "Resize of other axes than a picture's height and width",
        ),
        ([node("Clip", "v row4", "y")], "this Clip: "),
        ([node("LeakyRelu", "v", "y", alpha="a")], "LeakyRelu with alpha a"),
        ([node("Clip", "v zerof -", "c"), node("Add", "c -", "y")], "Add without operand 1"),
    ],
)
def test_what_is_refused(nodes: list[Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CONSTANTS, "odd", np.array([1, 2, 1, 1], np.float32))
    with pytest.raises(
        BackendError, match=f"mechanism 'shape': the torch backend does not support {message}"
    ):
        trace(made_of(nodes), CPU, "fp32")
