"""The ONNX Runtime engine for devices: the binding, on host memory that stands in for a device's; and its options."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cgnrt import BackendError, cuda
from cgnrt.backends import Device, Setup, load_engine
from cgnrt.backends.onnxruntime import OnnxRuntimeBackend
from cgnrt.backends.onnxruntime import cuda as onnxruntime_cuda
from cgnrt.backends.onnxruntime.cuda import OnnxRuntimeCudaEngine
from cgnrt.backends.onnxruntime.session import open_session
from cgnrt.plan import Mechanism, Plan

from . import host_device

GPU = Device("cuda", 0)
# Two inputs in, the run, one output out.
_REPLAY = ["copy", "copy", "synchronize", "copy"]


@pytest.fixture(autouse=True)
def device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "refusal", lambda index=0: None)
    monkeypatch.setattr(cuda, "module", lambda: host_device)
    monkeypatch.setattr(cuda, "info", host_device.info)


@pytest.fixture
def shape(demo_plan: Path) -> Iterator[Mechanism]:
    with Plan.open(demo_plan) as plan:
        yield plan.mechanisms["shape"]


def batch(mechanism: Mechanism, n: int, seed: int = 0) -> dict[str, np.ndarray]:
    noise = np.random.default_rng(seed).standard_normal((n, mechanism.spec.noise.size)).astype(np.float32)
    labels = np.arange(n) % len(mechanism.classes)
    return {"noise": noise, "class_embedding": np.ascontiguousarray(mechanism.embedding[labels])}


def run(engine: OnnxRuntimeCudaEngine, inputs: dict[str, np.ndarray], stream: Any = None) -> np.ndarray:
    n = len(inputs["noise"])
    target = host_device.DeviceArray(np.full((n, 1, 32, 32), np.nan, np.float32))
    on_device = {name: host_device.DeviceArray(array) for name, array in inputs.items()}
    found = engine.run(on_device, {"mask": target}, stream or engine.stream)
    assert found == {"mask": target}
    return target.numpy()


def test_it_is_bound_to_the_arrays_it_is_given(shape: Mechanism) -> None:
    engine = OnnxRuntimeBackend().examine(shape, Setup(GPU, "fp32")).load(2)
    assert isinstance(engine, OnnxRuntimeCudaEngine)
    reference = load_engine(shape, backend="onnxruntime")
    for n in (3, 1, 8, 3):
        inputs = batch(shape, n, seed=n)
        np.testing.assert_allclose(run(engine, inputs), reference.run(inputs)["mask"], atol=1e-6)


def test_another_stream_waits_for_it_and_is_waited_for(shape: Mechanism) -> None:
    own, other = host_device.Stream(), host_device.Stream()
    engine = OnnxRuntimeCudaEngine(shape, GPU, "fp32", 2, stream=own)
    assert engine.stream is own
    run(engine, batch(shape, 2), own)
    assert own.log == ["synchronize"]
    own.log.clear()
    run(engine, batch(shape, 2), other)
    assert own.log == [f"wait for {other.ptr}", "synchronize"]
    assert other.log == [f"wait for {own.ptr}"]


def test_fixed_batches_run_in_memory_that_stays(shape: Mechanism) -> None:
    engine = OnnxRuntimeCudaEngine(shape, GPU, "fp32", 2, batches=[4, 2])
    reference = load_engine(shape, backend="onnxruntime")
    for n, calls in ((4, _REPLAY), (2, _REPLAY), (3, ["synchronize"])):
        engine.stream.log.clear()
        inputs = batch(shape, n, seed=n)
        np.testing.assert_allclose(run(engine, inputs), reference.run(inputs)["mask"], atol=1e-6)
        assert engine.stream.log == calls


def test_graphs_are_replayed_by_the_thread_that_captured_them_alone(shape: Mechanism) -> None:
    engine = OnnxRuntimeCudaEngine(shape, GPU, "fp32", 2, batches=[2])
    engine.stream.log.clear()
    made: list[np.ndarray] = []
    thread = threading.Thread(target=lambda: made.append(run(engine, batch(shape, 2))))
    thread.start()
    thread.join()
    assert engine.stream.log == ["synchronize"]
    np.testing.assert_array_equal(made[0], run(engine, batch(shape, 2)))


def test_a_typed_graph_is_run_in_place_of_the_plans(
    shape: Mechanism, demo_plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def typed_graph(mechanism: Mechanism, precision: str, fp32_layers: Any) -> tuple[bytes, bytes]:
        asked.append((mechanism.name, precision, fp32_layers))
        assert shape.weights is not None
        return bytes(shape.graph), bytes(len(shape.weights))  # all weights zero

    monkeypatch.setattr(onnxruntime_cuda, "typed_graph", typed_graph)
    engine = OnnxRuntimeCudaEngine(shape, GPU, "fp16", 2, fp32_layers=["a"])
    assert asked == [("shape", "fp16", ["a"])]
    assert len(np.unique(run(engine, batch(shape, 2)))) == 1


def test_wrong_arguments(shape: Mechanism) -> None:
    with pytest.raises(ValueError, match="provider is 'rocm', expected one of cuda, tensorrt"):
        OnnxRuntimeCudaEngine(shape, GPU, "fp32", provider="rocm")
    with pytest.raises(ValueError, match=r"batches are \[0\], expected ints of at least 1"):
        OnnxRuntimeCudaEngine(shape, GPU, "fp32", batches=[0])
    engine = OnnxRuntimeCudaEngine(shape, GPU, "fp32", 2)
    arrays = {name: host_device.DeviceArray(array) for name, array in batch(shape, 2).items()}
    with pytest.raises(TypeError, match="run 'shape': outputs is None, expected one on cuda:0"):
        engine.run(arrays, None, engine.stream)
    with pytest.raises(TypeError, match="run 'shape': stream is None"):
        engine.run(arrays, {})
    target = host_device.DeviceArray(np.zeros((2, 1, 32, 32), np.float32))
    with pytest.raises(BackendError, match="inputs are noise, expected class_embedding, noise"):
        engine.run({"noise": arrays["noise"]}, {"mask": target}, engine.stream)
    with pytest.raises(BackendError, match="run 'shape': ONNX Runtime failed"):
        engine.run(arrays, {"painting": target}, engine.stream)
    narrow = {**arrays, "noise": host_device.DeviceArray(np.zeros((2, 3), np.float32))}
    with pytest.raises(BackendError, match="run 'shape': ONNX Runtime failed"):
        engine.run(narrow, {"mask": target}, engine.stream)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("BFCArena: Failed to allocate memory for requested buffer of size 268435456", "268,435,456 bytes"),
        ("Available memory of 10 is smaller than requested bytes of 4096", "4,096 bytes"),
        ("CUDA failure 2: out of memory ; GPU=0", "more than there is"),
    ],
)
def test_too_little_memory(shape: Mechanism, text: str, wanted: str) -> None:
    engine = OnnxRuntimeCudaEngine(shape, GPU, "fp32", 2)

    def fail(*_: Any) -> None:
        raise RuntimeError(text)

    engine._session = SimpleNamespace(run_with_iobinding=fail)
    with pytest.raises(
        MemoryError, match=f"a batch of 2 is {wanted}, expected at most the 1,000,000 bytes free"
    ):
        run(engine, batch(shape, 2))


def test_the_callers_device_stays_current(shape: Mechanism, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime makes its own device the thread's at load and at every run, and leaves it so."""

    def load(mechanism: Mechanism, *_: Any, **__: Any) -> Any:
        host_device.set_device(1)
        return open_session(mechanism, [("CPUExecutionProvider", {})])

    monkeypatch.setattr(onnxruntime_cuda, "open_session", load)
    engine = OnnxRuntimeCudaEngine(shape, Device("cuda", 1), "fp32", 2)
    assert host_device.set_device(0) == 0
    session = engine._session

    def enqueue(*given: Any) -> None:
        host_device.set_device(1)
        session.run_with_iobinding(*given)

    engine._session = SimpleNamespace(run_with_iobinding=enqueue)
    run(engine, batch(shape, 2))
    assert host_device.set_device(0) == 0


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_provider_that_is_left_out_is_an_error(shape: Mechanism) -> None:
    with pytest.raises(
        BackendError, match="providers are CPUExecutionProvider, expected CUDAExecutionProvider"
    ):
        open_session(shape, [("CUDAExecutionProvider", {})])


def providers_of(monkeypatch: pytest.MonkeyPatch, shape: Mechanism, precision: str, **options: Any) -> Any:
    """What a session on a real device would be opened with."""
    seen = []

    def spy(mechanism: Mechanism, providers: Any, **_: Any) -> Any:
        seen.append(providers)
        return open_session(mechanism, [("CPUExecutionProvider", {})])

    monkeypatch.setattr(onnxruntime_cuda, "open_session", spy)
    monkeypatch.setattr(cuda, "is_emulated", lambda: False)
    monkeypatch.setattr(OnnxRuntimeCudaEngine, "_capture", lambda self, number, n: (number, n))
    monkeypatch.setattr(
        onnxruntime_cuda, "typed_graph", lambda network, precision, layers: (bytes(network.graph), b"")
    )
    stream = host_device.Stream(1)
    OnnxRuntimeCudaEngine(shape, Device("cuda", 1), precision, stream=stream, **options)
    return stream, seen[0]


def test_options_of_the_cuda_provider(shape: Mechanism, monkeypatch: pytest.MonkeyPatch) -> None:
    stream, providers = providers_of(monkeypatch, shape, "fp32", memory_limit=1 << 30)
    assert providers == [
        (
            "CUDAExecutionProvider",
            {
                "device_id": "1",
                "user_compute_stream": str(stream.ptr),
                "prefer_nhwc": "0",
                "use_tf32": "0",
                "cudnn_conv_algo_search": "HEURISTIC",
                "arena_extend_strategy": "kSameAsRequested",
                "enable_cuda_graph": "0",
                "gpu_mem_limit": "1073741824",
            },
        )
    ]
    _, [(_, options)] = providers_of(monkeypatch, shape, "fp16", batches=[64])
    assert (options["prefer_nhwc"], options["enable_cuda_graph"]) == ("1", "1")
    assert options["cudnn_conv_algo_search"] == "EXHAUSTIVE"
    for timed, search in ((True, "EXHAUSTIVE"), (False, "HEURISTIC")):
        _, [(_, options)] = providers_of(monkeypatch, shape, "fp16", times_algorithms=timed)
        assert options["cudnn_conv_algo_search"] == search


def test_options_of_the_tensorrt_provider(
    shape: Mechanism, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stream, providers = providers_of(
        monkeypatch, shape, "bf16", provider="tensorrt", batches=[128, 32], cache=tmp_path
    )
    assert [name for name, _ in providers] == ["TensorrtExecutionProvider", "CUDAExecutionProvider"]
    assert providers[1][1]["enable_cuda_graph"] == "0"
    assert providers[0][1] == {
        "device_id": "1",
        "user_compute_stream": str(stream.ptr),
        "trt_bf16_enable": "True",
        "trt_profile_min_shapes": "noise:1x32,class_embedding:1x10",
        "trt_profile_opt_shapes": "noise:32x32,class_embedding:32x10",
        "trt_profile_max_shapes": "noise:128x32,class_embedding:128x10",
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(tmp_path),
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": str(tmp_path),
    }
