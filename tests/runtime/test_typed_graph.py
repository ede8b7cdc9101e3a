"""Graphs whose precision is in the graph: what they compute, and which parts of them are half."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from cgnrt import MissingDependencyError
from cgnrt.backends.typed import planned_fp32_layers, typed_graph
from cgnrt.plan import Mechanism, Plan
from cgnrt.plan.onnx.model import parse_model

from .onnx_graphs import mechanism, node

ROOT = Path(__file__).parents[2]
SMALL = ROOT / "tests" / "runtime" / "golden" / "small_cgn.plan"
PLANS = [ROOT / "plans" / f"{name}.plan" for name in ("colored", "double-colored", "wildlife")]
HALVES = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


@pytest.fixture(params=[SMALL, *PLANS], ids=lambda path: path.stem)
def plan(request: pytest.FixtureRequest) -> Iterator[Plan]:
    with Plan.open(request.param) as opened:
        yield opened


def inputs_of(found: Mechanism, n: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    drawn = {s.name: rng.standard_normal((n, *s.shape[1:])).astype(np.float32) for s in found.spec.inputs}
    drawn["class_embedding"] = found.embedding[rng.integers(0, len(found.embedding), n)]
    if "truncation" in drawn:
        drawn["truncation"] = np.linspace(0.1, 1, n, dtype=np.float32)[:, None]
    return drawn


def whole(graph: bytes, weights: bytes | memoryview | None) -> onnx.ModelProto:
    """The model with its external data inside."""
    model = onnx.load_model_from_string(graph)
    for tensor in model.graph.initializer:
        if tensor.external_data:
            assert weights is not None
            entries = {entry.key: entry.value for entry in tensor.external_data}
            start = int(entries["offset"])
            assert start % 64 == 0
            tensor.raw_data = bytes(weights[start : start + int(entries["length"])])
            del tensor.external_data[:]
            tensor.data_location = TensorProto.DEFAULT
    return model


def by_onnx_runtime(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = 1
    return list(onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, inputs))


def psnr(got: np.ndarray, expected: np.ndarray, width: float) -> float:
    return float(10 * np.log10(width**2 / np.square(got.astype(np.float64) - expected).mean()))


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    """The element type of every value, worked out from the constants; a contradiction is an error."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, check_type=True).graph
    values = (*inferred.input, *inferred.value_info, *inferred.output)
    return {value.name: value.type.tensor_type.elem_type for value in values}


def computed_in(model: onnx.ModelProto, *operators: str) -> set[int]:
    types = types_of(model)
    return {types[n.output[0]] for n in model.graph.node if n.op_type in operators}


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_the_typed_graph_is_valid_and_keeps_the_border(plan: Plan, precision: str) -> None:
    for found in plan.mechanisms.values():
        model = whole(*typed_graph(found, precision))
        onnx.checker.check_model(model, full_check=True)
        original = onnx.load_model_from_string(bytes(found.graph)).graph
        assert list(model.graph.input) == list(original.input)
        assert list(model.graph.output) == list(original.output)


def test_float16_computes_the_same(plan: Plan) -> None:
    # Measured: 73 dB and more. ONNX Runtime computes in float32 between Casts, so intermediate rounding is not in it.
    for found in plan.mechanisms.values():
        width = found.spec.range[1] - found.spec.range[0]
        inputs = inputs_of(found, 7)
        expected = by_onnx_runtime(whole(bytes(found.graph), found.weights), inputs)
        got = by_onnx_runtime(whole(*typed_graph(found, "fp16")), inputs)
        assert psnr(got[0], expected[0], width) >= 65
        assert all(array.dtype == np.float32 for array in got)


@pytest.mark.parametrize(("precision", "floor"), [("fp16", 58), ("bf16", 42)])
def test_with_every_result_rounded(precision: str, floor: float) -> None:
    # Measured: 62 to 74 dB, and 46 to 57 dB.
    with Plan.open(SMALL) as plan:
        for found in plan.mechanisms.values():
            width = found.spec.range[1] - found.spec.range[0]
            inputs = inputs_of(found, 3)
            expected = by_onnx_runtime(whole(bytes(found.graph), found.weights), inputs)
            got = ReferenceEvaluator(whole(*typed_graph(found, precision))).run(None, inputs)
            assert psnr(got[0], expected[0], width) >= floor
        del found


def transposed(**attributes: Any) -> Any:
    given = {"strides": [2, 2], "pads": [1, 1, 1, 1], **attributes}
    weight = np.arange(3 * 2 * 16, dtype=np.float32).reshape(3, 2, 4, 4) - 40
    constants = {"w": weight, "b": np.array([1, -2], np.float32)}
    nodes = [node("ConvTranspose", "x w b", "y", **given)]
    return mechanism(nodes, {"x": ("n", 3, 5, 4)}, {"y": ("n", 2, "h", "v")}, constants)


def test_bfloat16_doubles_by_plain_convolutions() -> None:
    made = transposed()
    model = whole(*typed_graph(made, "bf16"))
    assert [n.op_type for n in model.graph.node if n.op_type != "Cast"] == [
        *["Conv"] * 4,
        "Concat",
        "DepthToSpace",
    ]
    # Integers that bfloat16 holds, and sums that float32 holds; one tap at a time, so that a sum is one product.
    inputs = np.zeros((20, 3, 5, 4), np.float32)
    for k in range(20):
        inputs[k, k % 3, k // 4, k % 4] = 1
    expected = by_onnx_runtime(whole(made.graph, None), {"x": inputs})[0]
    assert np.array_equal(ReferenceEvaluator(model).run(None, {"x": inputs})[0], expected)


@pytest.mark.parametrize("attributes", [{"strides": [1, 1]}, {"output_padding": [1, 1]}, {"pads": [0] * 4}])
def test_other_transposed_convolutions_stay_float32(attributes: dict[str, Any]) -> None:
    assert [n.op_type for n in whole(*typed_graph(transposed(**attributes), "bf16")).graph.node] == [
        "ConvTranspose"
    ]
    half = whole(*typed_graph(transposed(**attributes), "fp16"))
    assert computed_in(half, "ConvTranspose") == {TensorProto.FLOAT16}


def test_a_kept_transposed_convolution_stays_whole() -> None:
    assert [n.op_type for n in whole(*typed_graph(transposed(), "bf16", ["w"])).graph.node] == [
        "ConvTranspose"
    ]


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_pictures_are_half_and_what_needs_range_is_not(precision: str) -> None:
    with Plan.open(SMALL) as small, Plan.open(PLANS[0]) as mnist:
        deep = whole(*typed_graph(small.mechanisms["shape"], precision))
        flat = whole(*typed_graph(mnist.mechanisms["shape"], precision))
    half = {HALVES[precision]}
    assert computed_in(deep, "Conv", "ConvTranspose", "MatMul", "Relu", "MaxPool", "Resize") == {
        *half,
        TensorProto.FLOAT,  # the first Relu, ahead of any convolution
    }
    assert computed_in(deep, "Conv", "ConvTranspose", "MatMul", "MaxPool") == half
    assert computed_in(flat, "ConvTranspose", "LeakyRelu") == half
    kept = ("Gemm", "Softmax", "InstanceNormalization", "Sqrt", "Reciprocal", "Sigmoid", "Tanh")
    assert computed_in(deep, *kept) | computed_in(flat, *kept, "Clip") == {TensorProto.FLOAT}


def test_weights_take_half_the_room() -> None:
    with Plan.open(PLANS[0]) as plan:
        found = plan.mechanisms["texture"]
        graph, weights = typed_graph(found, "fp16")
        assert found.weights is not None
        assert weights is not None
        gemm = 43 * 64 * 10 * 10  # 8 x 8 and the border that the next layer reads; stays float32
        assert len(weights) < len(found.weights) / 2 + gemm * 2 + 1024
        locations = {e.value for t in onnx.load_from_string(graph).graph.initializer for e in t.external_data}
        assert str(found.spec.weights).rpartition("/")[2] in locations
        del found


def test_float32_is_the_plan_s_graph() -> None:
    with Plan.open(PLANS[0]) as plan:
        found = plan.mechanisms["texture"]
        assert typed_graph(found, "fp32") == (bytes(found.graph), found.weights)
        del found


def convolution(weight: Any, tail: Sequence[Any] = (), output: str = "y", **constants: Any) -> Any:
    nodes = [node("Conv", "x w", "y"), *tail]
    return mechanism(nodes, {"x": ("n", 2, 4, 4)}, {output: ("n", 2, 4, 4)}, {"w": weight, **constants})


def float32(*shape: int, value: float = 0.5) -> np.ndarray:
    return np.full(shape, value, np.float32)


@pytest.mark.parametrize(("value", "half"), [(65504, True), (7e4, False), (1e-9, False), (0, True)])
def test_a_layer_whose_weights_half_cannot_hold_stays_float32(value: float, half: bool) -> None:
    model = whole(*typed_graph(convolution(float32(2, 2, 1, 1, value=value)), "fp16"))
    assert [n.op_type for n in model.graph.node] == (["Cast", "Conv", "Cast"] if half else ["Conv"])


def test_layers_may_be_kept() -> None:
    made = convolution(float32(2, 2, 1, 1))
    assert [n.op_type for n in whole(*typed_graph(made, "bf16", ["w"])).graph.node] == ["Conv"]


def test_the_precision_plan_says_which() -> None:
    with Plan.open(PLANS[0]) as plan:
        manifest = plan.manifest
    assert planned_fp32_layers(manifest, "shape", "bf16") == ()
    manifest.parity["precision_plan"] = {"fp32_layers": {"shape": ["a", "b"]}}  # type: ignore[index]
    assert planned_fp32_layers(manifest, "shape", "bf16") == ("a", "b")
    assert planned_fp32_layers(manifest, "shape", "fp16") == ()
    assert planned_fp32_layers(manifest, "texture", "bf16") == ()
    manifest.parity["precision_plan"] = {"fp32_layers": ["shape"]}  # type: ignore[index]
    assert planned_fp32_layers(manifest, "shape", "bf16") == ()


def test_a_constant_of_both_types_is_there_twice() -> None:
    made = convolution(
        float32(2, 2, 1, 1), [node("Exp", "v", "e"), node("Mul", "y v", "s"), node("Add", "s e", "z")], "z"
    )
    graph = onnx.load_model_from_string(made.graph)
    graph.graph.initializer.append(numpy_helper.from_array(float32(2, 1, 1), "v"))
    made.model = parse_model(graph.SerializeToString())
    model = whole(*typed_graph(made, "fp16"))
    types = {t.name: t.data_type for t in model.graph.initializer}
    assert types == {"v": 1, "v.fp16": 10, "w.fp16": 10}
    # Exp is not among what may be half; its result becomes half for the picture.
    assert computed_in(model, "Exp") == {TensorProto.FLOAT}
    assert computed_in(model, "Mul", "Add") >= {TensorProto.FLOAT16}
    onnx.checker.check_model(model, full_check=True)


def test_names_that_are_taken() -> None:
    made = convolution(float32(2, 2, 1, 1), [node("Relu", "y", "y.fp16"), node("Relu", "y.fp16", "z")], "z")
    onnx.checker.check_model(whole(*typed_graph(made, "fp16")), full_check=True)


def test_an_output_that_others_read_too() -> None:
    nodes = [node("Conv", "x w", "y"), node("Relu", "y", "z")]
    made = mechanism(
        nodes,
        {"x": ("n", 2, 4, 4)},
        {"y": ("n", 2, 4, 4), "z": ("n", 2, 4, 4)},
        {"w": float32(2, 2, 1, 1)},
    )
    model = whole(*typed_graph(made, "fp16"))
    onnx.checker.check_model(model, full_check=True)
    relu = next(n for n in model.graph.node if n.op_type == "Relu")
    assert relu.input[0] == "y.fp16"  # not by way of float32


def test_group_normalization_keeps_its_operator_set() -> None:
    nodes = [node("Conv", "x w", "y"), node("GroupNormalization", "y s s", "z", num_groups=2)]
    made = mechanism(
        nodes,
        {"x": ("n", 2, 4, 4)},
        {"z": ("n", 2, 4, 4)},
        {"w": float32(2, 2, 1, 1), "s": float32(2)},
    )
    assert [e.version for e in whole(*typed_graph(made, "bf16")).opset_import] == [18]


def test_a_precision_that_there_is_not() -> None:
    with pytest.raises(ValueError, match=r"type the graph: precision is 'int8', expected 'fp32', 'fp16' or"):
        typed_graph(convolution(float32(2, 2, 1, 1)), "int8")


def test_without_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(
        MissingDependencyError, match=r"package 'onnx' is not installed.*Run: pip install onnx"
    ):
        typed_graph(convolution(float32(2, 2, 1, 1)), "fp16")
