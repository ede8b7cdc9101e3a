"""Engines read a plan's weights from the mapped file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from cgnrt.plan import MECHANISMS, Mechanism, Plan, external_initializers, relocate
from cgnrt.plan.onnx.model import parse_model

IN_MEMORY = "*/_ORT_MEM_ADDR_/*"


def feeds(mechanism: Mechanism) -> dict[str, NDArray[Any]]:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, len(mechanism.classes), 5)
    noise = generator.standard_normal((5, mechanism.spec.noise.size)).astype(np.float32)
    return {"noise": noise, "class_embedding": mechanism.embedding[labels]}


def address(mechanism: Mechanism) -> int:
    assert mechanism.weights is not None
    return int(np.frombuffer(mechanism.weights, np.uint8).ctypes.data)


def expected(mechanism: Mechanism) -> NDArray[Any]:
    """The golden networks by hand."""
    weights = np.frombuffer(mechanism.weights or b"", np.float32)
    picture = mechanism.spec.outputs[0]
    pixels = int(np.prod([dim for dim in picture.shape if isinstance(dim, int)]))
    given = feeds(mechanism)
    joined = np.concatenate([given["noise"], given["class_embedding"]], 1)
    flat = joined @ weights[: 7 * pixels].reshape(pixels, 7).T + weights[7 * pixels : 8 * pixels]
    logits = flat.reshape(5, *picture.shape[1:])
    return np.asarray(1 / (1 + np.exp(-logits)) if picture.name == "mask" else np.tanh(logits))


@pytest.mark.parametrize("name", MECHANISMS)
def test_openvino_reads_mapped_weights(golden_plan: Path, name: str) -> None:
    import openvino

    with Plan.open(golden_plan) as plan:
        mechanism = plan.mechanisms[name]
        moved = relocate(mechanism.model, IN_MEMORY, address(mechanism))
        model = openvino.Core().read_model(model=moved)
        compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        found = compiled(feeds(mechanism))[mechanism.spec.outputs[0].name]
        np.testing.assert_allclose(found, expected(mechanism), atol=2e-6)  # another order of fp32 sums


@pytest.mark.parametrize("name", MECHANISMS)
def test_onnx_runtime_reads_mapped_weights(golden_plan: Path, name: str) -> None:
    with Plan.open(golden_plan) as plan:
        mechanism = plan.mechanisms[name]
        assert mechanism.weights is not None
        options = onnxruntime.SessionOptions()
        options.add_external_initializers_from_files_in_memory(
            [f"{name}.weights"], [mechanism.weights], [mechanism.weights.nbytes]
        )
        session = onnxruntime.InferenceSession(
            bytes(mechanism.graph), options, providers=["CPUExecutionProvider"]
        )
        (found,) = session.run([mechanism.spec.outputs[0].name], feeds(mechanism))
        np.testing.assert_allclose(found, expected(mechanism), atol=2e-6)


def test_only_location_and_offset_change(golden_plan: Path) -> None:
    with Plan.open(golden_plan) as plan:
        graph = plan.mechanisms["texture"].model
        moved = relocate(graph, "elsewhere", 1 << 47)
        assert [(piece.offset, piece.length) for piece in external_initializers(parse_model(moved))] == [
            ((1 << 47) + piece.offset, piece.length) for piece in external_initializers(graph)
        ]
        before, after = onnx.ModelProto.FromString(graph.data), onnx.ModelProto.FromString(moved)
        for model in (before, after):
            for tensor in model.graph.initializer:
                locations = {pair.value for pair in tensor.external_data if pair.key == "location"}
                assert locations <= {"texture.weights" if model is before else "elsewhere"}
                tensor.ClearField("external_data")
        assert before == after
        back = relocate(parse_model(relocate(graph, "texture.weights", 64)), "texture.weights", 0)
        assert external_initializers(parse_model(back))[0].offset == 64


def test_a_graph_without_external_data_stays_as_it_is(parts: Any) -> None:
    raw = parts.inline().SerializeToString()
    assert relocate(parse_model(raw), "x", 0) == raw


def test_a_negative_address_is_an_error(golden_plan: Path) -> None:
    with Plan.open(golden_plan) as plan, pytest.raises(ValueError, match="base_address is -1, expected >= 0"):
        relocate(plan.mechanisms["shape"].model, "x", -1)
