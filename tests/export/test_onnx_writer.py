"""The ONNX that is written: valid, deterministic, with its large tensors outside and aligned."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import onnx.reference
import pytest
import torch
from onnx import external_data_helper, numpy_helper
from torch import Tensor, nn

from cgnrt_export import ExportError
from cgnrt_export.inference import inference_form
from cgnrt_export.onnx_writer import ALIGNMENT, EXTERNAL_FROM, OPSET, OnnxGraph, write_onnx


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Linear(5, 8 * 4 * 4),
            nn.Unflatten(1, (8, 4, 4)),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(8, 7, 3, padding=1),
            nn.BatchNorm2d(7),
            nn.ReLU(),
            nn.Conv2d(7, 3, 3, padding=1),
            nn.Tanh(),
        )

    def forward(self, noise: Tensor, class_embedding: Tensor) -> Tensor:
        return self.layers(torch.cat([noise, class_embedding], 1))


INPUTS = {"noise": torch.randn(3, 3), "class_embedding": torch.randn(3, 2)}


def _write(module: nn.Module) -> OnnxGraph:
    return write_onnx(
        inference_form(module, INPUTS).module, INPUTS, ["foreground"], weights_name="texture.weights"
    )


@pytest.fixture(scope="module")
def written() -> OnnxGraph:
    return _write(_Net())


@pytest.fixture
def model(written: OnnxGraph) -> onnx.ModelProto:
    return onnx.load_from_string(written.graph)


def test_inputs_and_outputs(model: onnx.ModelProto) -> None:
    def signature(values: list[onnx.ValueInfoProto]) -> dict[str, list[int | str]]:
        return {
            value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
            for value in values
        }

    assert signature(model.graph.input) == {"noise": ["n", 3], "class_embedding": ["n", 2]}
    assert signature(model.graph.output) == {"foreground": ["n", 3, 8, 8]}
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]


def test_large_tensors_are_outside_and_aligned(written: OnnxGraph, model: onnx.ModelProto) -> None:
    outside = [t for t in model.graph.initializer if external_data_helper.uses_external_data(t)]
    assert len(outside) == 2
    end = 0
    for tensor in outside:
        entry = {item.key: item.value for item in tensor.external_data}
        assert entry["location"] == "texture.weights"
        assert int(entry["offset"]) == -(-end // ALIGNMENT) * ALIGNMENT
        assert int(entry["length"]) == 4 * int(np.prod(tensor.dims)) >= EXTERNAL_FROM
        end = int(entry["offset"]) + int(entry["length"])
    assert end == len(written.weights)
    inside = [t for t in model.graph.initializer if not external_data_helper.uses_external_data(t)]
    assert all(numpy_helper.to_array(tensor).nbytes < EXTERNAL_FROM for tensor in inside)


def test_a_small_graph_has_no_weights_file() -> None:
    class Small(nn.Module):
        def forward(self, noise: Tensor, class_embedding: Tensor) -> Tensor:
            return (noise.sum(1, keepdim=True) * class_embedding).reshape(-1, 1, 1, 2)

    assert _write(Small()).weights is None


def test_what_it_computes(written: OnnxGraph, model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        if external_data_helper.uses_external_data(tensor):
            entry = {item.key: item.value for item in tensor.external_data}
            start, length = int(entry["offset"]), int(entry["length"])
            array = np.frombuffer(written.weights[start : start + length], np.float32).reshape(tensor.dims)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    session = onnx.reference.ReferenceEvaluator(model)
    module = _Net().eval()
    for n in (1, 5):
        inputs = {"noise": torch.randn(n, 3), "class_embedding": torch.randn(n, 2)}
        (got,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
        # Sums of a hundred products in float32.
        np.testing.assert_allclose(got, module(*inputs.values()).detach().numpy(), atol=1e-5)


def test_the_bytes_are_the_same_each_time(written: OnnxGraph) -> None:
    assert _write(copy.deepcopy(_Net())) == written


def test_nothing_of_this_machine_is_in_it(written: OnnxGraph, model: onnx.ModelProto) -> None:
    for trace in (torch.__file__, __file__, ".py"):
        assert trace.encode() not in written.graph
    assert not model.metadata_props
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)


def test_an_operation_without_an_onnx_form() -> None:
    class Unknown(nn.Module):
        def forward(self, noise: Tensor, class_embedding: Tensor) -> Tensor:
            return torch.special.bessel_j0(noise)

    with pytest.raises(ExportError, match=r"it cannot be written as ONNX opset 18: .*bessel_j0"):
        _write(Unknown())


def test_a_size_that_varies_with_the_batch() -> None:
    class Transposed(nn.Module):
        def forward(self, noise: Tensor, class_embedding: Tensor) -> Tensor:
            return noise.T

    with pytest.raises(
        ExportError, match=r"axis 1 of foreground varies with the batch size, expected a fixed size"
    ):
        _write(Transposed())
