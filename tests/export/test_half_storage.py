"""Weights in half precision: which are, how they are rounded, and that the plan's pictures say what it costs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from cgnrt.backends import load_engine
from cgnrt.plan import HalfStorage, Plan, SaliencyPlan, Weights
from cgnrt_export import ExportError, MechanismModule, export_plan, export_saliency
from cgnrt_export.cli import main
from cgnrt_export.graph import trace
from cgnrt_export.half_storage import round_to_half, storable, store_in_half
from cgnrt_export.onnx_writer import OnnxGraph
from cgnrt_export.rewrites.upsample import transposed_weight

Make = Callable[..., dict[str, MechanismModule]]


@pytest.fixture(scope="module")
def exported(authors_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small CGN with weights in half precision, by the command."""
    path = tmp_path_factory.mktemp("half") / "cgn.plan"
    assert main([str(authors_checkpoint), "-o", str(path), "--store", "fp16", "--precision", "fp32"]) == 0
    return path


def is_half(array: np.ndarray[Any, Any]) -> bool:
    return np.array_equal(array.astype(np.float16).astype(np.float32), array)


def relative(found: np.ndarray[Any, Any], weight: np.ndarray[Any, Any]) -> float:
    return float(np.linalg.norm(found - weight) / np.linalg.norm(weight))


def test_weights_are_rounded_to_the_nearest() -> None:
    weight = torch.randn(16, 8, 3, 3).numpy()
    assert np.array_equal(round_to_half(weight, False), weight.astype(np.float16))
    zeros = np.zeros((4, 4), np.float32)
    assert np.array_equal(round_to_half(zeros, False), zeros)


@pytest.mark.parametrize("scale", [1e5, 1e-7, np.inf, np.nan])
@pytest.mark.parametrize("transposed", [True, False])
def test_weights_outside_of_the_range_of_half_are_left_alone(scale: float, transposed: bool) -> None:
    with np.errstate(invalid="ignore", over="ignore"):
        weight = torch.randn(4, 4, 4, 4).numpy() * np.float32(scale)
    assert round_to_half(weight, transposed) is None


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e3])
def test_kernels_that_upsample_still_do_so_exactly(kernel: int, scale: float) -> None:
    weight = transposed_weight(torch.randn(8, 4, kernel, kernel) * scale).numpy()
    found = round_to_half(weight, True)
    assert found is not None
    assert is_half(found)
    assert relative(found, weight) < 1.5e-3
    assert relative(weight.astype(np.float16), weight) < 3e-4  # what the structure costs: less than ten times
    for taps in (found.swapaxes(2, 3), found):
        even, odd = taps[..., ::2].sum(-1), taps[..., 1::2].sum(-1)
        assert np.array_equal(even, odd)


def test_the_largest_taps_are_still_halves() -> None:
    """Where every sum of four taps is as large as it can be beside the others."""
    weight = transposed_weight(
        torch.full((1, 1, 3, 3), 2047.9) * torch.linspace(0.999, 1, 9).view(3, 3)
    ).numpy()
    found = round_to_half(weight, True)
    assert found is not None
    assert is_half(found)


def test_other_transposed_convolutions_are_rounded_to_the_nearest() -> None:
    for weight in (torch.randn(4, 8, 4, 4).numpy(), torch.randn(4, 8, 3, 3).numpy()):
        assert np.array_equal(round_to_half(weight, True), weight.astype(np.float16))


def written() -> tuple[OnnxGraph, dict[str, np.ndarray[Any, Any]]]:
    """A graph with layers, a bias, integers, and a layer whose weight is beyond float16."""
    arrays: dict[str, np.ndarray[Any, Any]] = {
        "first": torch.randn(300, 8).numpy(),
        "integers": np.arange(500, dtype=np.int64),
        "bias": torch.randn(301).numpy() * np.float32(1e6),
        "large": np.full((40, 40), 1e6, np.float32),
        "second": torch.randn(7, 300).numpy(),
        "double": np.ones(200),
    }
    blob = bytearray()
    tensors = []
    for name, array in arrays.items():
        blob += bytes(-len(blob) % 64)
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        tensor = TensorProto(name=name, data_type=kind, dims=array.shape, data_location=TensorProto.EXTERNAL)
        for key, value in (("location", "x.weights"), ("offset", len(blob)), ("length", array.nbytes)):
            tensor.external_data.add(key=key, value=str(value))
        blob += array.tobytes()
        tensors.append(tensor)
    model = helper.make_model(helper.make_graph([], "x", [], [], tensors))
    return OnnxGraph(model.SerializeToString(), bytes(blob)), arrays


def test_layers_go_behind_what_stays_in_full() -> None:
    graph, arrays = written()
    half = store_in_half(graph, ["first", "second", "large", "double", "elsewhere"])
    assert half is not None
    assert half.rounded.keys() == {"first", "second"}
    assert half.offset % 64 == 0
    assert len(half.member) == half.offset + (half.exact.nbytes - half.offset) // 2
    widened = bytes(Weights(memoryview(half.member), half.offset).view())
    for tensor in onnx.load_model_from_string(half.graph).graph.initializer:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        start, end = int(entries["offset"]), int(entries["offset"]) + int(entries["length"])
        array = arrays[tensor.name]
        assert (start >= half.offset) == (tensor.name in half.rounded)
        assert half.exact.piece(start, end - start) == array.tobytes()
        expected = half.rounded.get(tensor.name, array)
        assert widened[start:end] == expected.tobytes()


def test_nothing_to_store_in_half() -> None:
    graph, _ = written()
    assert store_in_half(graph, ["large"]) is None
    assert (
        store_in_half(
            OnnxGraph(helper.make_model(helper.make_graph([], "x", [], [])).SerializeToString(), None), []
        )
        is None
    )


def test_the_plan_and_its_report(exported: Path, authors_checkpoint: Path) -> None:
    with Plan.open(exported) as plan:
        report = plan.manifest.parity
        storage = report["storage"]
        assert storage["min_psnr_db"] == 40
        assert 55 < storage["psnr_db"] < 110
        fp32 = [m for m in report["composite"] if m["precision"] == "fp32"]
        assert {m["measured"] for m in fp32} == {"native", "openvino", "onnxruntime"}
        assert all(m["psnr_db"] >= storage["psnr_db"] for m in fp32)
        stored = 0
        for name, mechanism in plan.mechanisms.items():
            assert mechanism.spec.storage is not None
            assert mechanism.external is not None
            stored += mechanism.external.stored_bytes
            halves = np.frombuffer(mechanism.weights or b"", np.uint8)[mechanism.spec.storage.offset :]
            assert is_half(halves.view("<f4"))
            for layer in storage["fp32_layers"][name]:
                tensor = mechanism.model.initializers[layer]
                assert tensor.external is None  # small ones lie in the graph
        assert storage["stored_bytes"] == stored
        assert storage["weights_bytes"] > 1.7 * stored


@pytest.mark.parametrize("backend", ["native", "openvino", "onnxruntime", "torch"])
def test_engines_compute_from_the_rounded_weights(exported: Path, backend: str) -> None:
    """The native engine, too, which takes only kernels that up-sample exactly."""
    random = np.random.default_rng(0)
    with Plan.open(exported) as plan:
        for mechanism in plan.mechanisms.values():
            inputs = {
                "noise": random.standard_normal((3, 6)).astype(np.float32),
                "class_embedding": mechanism.embedding[[0, 2, 3]],
            }
            output = mechanism.spec.outputs[0].name
            found = load_engine(mechanism, backend=backend).run(inputs)[output]
            other = load_engine(mechanism, backend="onnxruntime").run(inputs)[output]
            np.testing.assert_allclose(found, other, atol=1e-4)


def test_a_layer_that_half_cannot_hold_stays_in_full(own: Make, tmp_path: Path) -> None:
    mechanisms = own()
    with torch.no_grad():
        mechanisms["texture"].module.layer.weight *= 1e-7  # type: ignore[union-attr]
    path = tmp_path / "own.plan"
    report = export_plan(path, mechanisms, family="own", batch_sizes=(3,), precision="fp32", store="fp16")
    assert report.storage is not None
    assert [len(report.storage.fp32_layers[name]) for name in ("shape", "texture", "background")] == [0, 1, 0]
    assert "1 layers in full" in report.table()
    assert f"{report.storage.stored_bytes:,} bytes for {report.storage.weights_bytes:,}" in report.table()
    with Plan.open(path) as plan:
        assert plan.mechanisms["texture"].spec.storage is None
        assert isinstance(plan.mechanisms["background"].spec.storage, HalfStorage)


class Sharp(nn.Module):
    """A picture that amplifies what rounding does to the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 3 * 8 * 8)

    def forward(self, noise: Tensor, class_embedding: Tensor) -> Tensor:
        picture = self.layer(torch.cat([noise, class_embedding], 1)).unflatten(1, (3, 8, 8))
        return (picture * 400).sin()


def test_a_picture_below_the_floor_is_refused(own: Make, tmp_path: Path) -> None:
    mechanisms = own(texture=Sharp())
    message = (
        r"export '.*own\.plan': the texture from weights in half precision has [23]\d\.\d dB by \w+, expected at "
        r"least 40 dB\. Nothing was written\. Store the weights in full: --store fp32"
    )
    with pytest.raises(ExportError, match=message):
        export_plan(tmp_path / "own.plan", mechanisms, family="own", batch_sizes=(3,), store="fp16")
    assert not list(tmp_path.iterdir())
    report = export_plan(tmp_path / "own.plan", mechanisms, family="own", batch_sizes=(3,), precision="fp32")
    assert report.storage is None
    assert "storage" not in report.to_json()


def test_a_plan_that_differs_before_rounding_is_refused(own: Make, tmp_path: Path) -> None:
    """Half precision is not an excuse for a graph that computes something else."""
    other = own()["texture"].module
    with torch.no_grad():
        other.layer.bias += 0.001  # type: ignore[operator, union-attr]
    with pytest.raises(ExportError, match=r"the largest fp32 error of the texture by \w+ is 0\.00"):
        export_plan(
            tmp_path / "own.plan",
            own(),
            family="own",
            reference={"texture": other},
            batch_sizes=(3,),
            store="fp16",
        )
    assert not list(tmp_path.iterdir())


def test_a_network_for_photos(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 1, 1), nn.Sigmoid()
    ).eval()
    path = tmp_path / "small.plan"
    report = export_saliency(path, module, family="own", resolution=(16, 16), precision="fp32", store="fp16")
    assert report.storage is not None
    assert report.storage.psnr_db is not None
    assert 60 < report.storage.psnr_db < 110
    assert "weights in half precision: 864 bytes for 1,728" in report.table()
    with SaliencyPlan.open(path) as plan:
        assert plan.manifest.saliency.storage == HalfStorage(0)
        assert plan.manifest.parity["storage"]["fp32_layers"] == {
            "saliency": ["2.weight"]
        }  # small, in the graph


class SharpMask(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(3, 16, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        return (self.layer(image).mean(1, keepdim=True) * 2000).sin() / 2 + 0.5


def test_masks_below_the_floor_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ExportError, match=r"export '.*': the mask from weights in half precision has \d+\.\d dB"
    ):
        export_saliency(tmp_path / "x.plan", SharpMask(), family="x", resolution=(16, 16), store="fp16")
    assert not list(tmp_path.iterdir())


def test_another_store_is_refused(own: Make, tmp_path: Path, exported: Path, capsys: Any) -> None:
    with pytest.raises(ValueError, match="store is 'bf16', expected one of fp32, fp16"):
        export_plan(tmp_path / "own.plan", own(), family="own", store="bf16")
    with pytest.raises(ValueError, match="store is 'int8', expected one of fp32, fp16"):
        export_saliency(tmp_path / "x.plan", SharpMask(), family="x", store="int8")
    assert main([str(exported), "-o", str(tmp_path / "x.plan"), "--tensorrt", "--store", "fp16"]) == 1
    assert "--store is given, expected it for checkpoints alone" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


class Table(nn.Module):
    """A picture that adds a row of a table, as a batch norm's statistics of a truncation."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.layer = nn.Linear(11, table.shape[1])
        self.register_buffer("table", table)

    def forward(self, noise: Tensor, class_embedding: Tensor) -> Tensor:
        rows = self.table.index_select(0, noise[:, 0].abs().clamp(max=2).to(torch.int64))
        return self.layer(torch.cat([noise, class_embedding], 1)) + rows


@pytest.mark.parametrize(("small", "stored"), [(1.0, True), (1e-4, True), (1e-7, False)])
def test_a_table_is_stored_in_half_if_that_holds_each_of_its_columns(small: float, stored: bool) -> None:
    table = torch.randn(3, 400)
    table[0, 5] = 0
    table[:, 7] *= small
    inputs = {"noise": torch.randn(3, 6), "class_embedding": torch.randn(3, 5)}
    form = trace(Table(table), inputs)
    names = storable(form)
    assert any(name.endswith("layer.weight") for name in names)
    assert any(name.endswith("table") for name in names) == stored
