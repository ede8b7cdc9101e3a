"""ONNX Runtime between other work on the emulated device, whose streams are lazy: what is not ordered fails."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from cgnrt.backends import choose, load_engine
from cgnrt.backends.base import Device
from cgnrt.backends.onnxruntime.cuda import OnnxRuntimeCudaEngine
from cgnrt.plan import Mechanism, Plan


def batch(mechanism: Mechanism, n: int) -> dict[str, np.ndarray]:
    noise = np.random.default_rng(n).standard_normal((n, mechanism.spec.noise.size)).astype(np.float32)
    embedding = np.ascontiguousarray(mechanism.embedding[np.arange(n) % len(mechanism.classes)])
    return {"noise": noise, "class_embedding": embedding}


def on_device(module: ModuleType, inputs: dict[str, np.ndarray], stream: Any) -> dict[str, Any]:
    """Device arrays that the stream is still to fill."""
    found = {}
    for name, array in inputs.items():
        first = module.DeviceArray.empty(array.shape, "float32", stream)
        first.upload(array)
        found[name] = module.DeviceArray.empty(array.shape, "float32", stream)
        module.copy(first, found[name], stream)
    return found


@pytest.mark.parametrize("batches", [(), (3,)])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_run_is_in_the_streams_order(
    precision: str, batches: tuple[int, ...], emulated: ModuleType, demo_plan: Path
) -> None:
    with Plan.open(demo_plan) as plan:
        mechanism = plan.mechanisms["texture"]
        engine = OnnxRuntimeCudaEngine(mechanism, Device("cuda", 1), precision, 2, batches=batches)
        reference = load_engine(mechanism, backend="onnxruntime")
        stream = emulated.Stream(1)
        for n in (3, 1, 5, 3):
            inputs = batch(mechanism, n)
            target = emulated.DeviceArray.empty((n, 3, 32, 32), "float32", stream)
            after = emulated.DeviceArray.empty((n, 3, 32, 32), "float32", stream)
            engine.run(on_device(emulated, inputs, stream), {"foreground": target}, stream)
            emulated.copy(target, after, stream)
            expected = reference.run(inputs)["foreground"]
            np.testing.assert_allclose(after.numpy(), expected, atol=1e-5 if precision == "fp32" else 2e-2)


@pytest.mark.usefixtures("emulated")
def test_it_is_chosen_for_the_device(demo_plan: Path) -> None:
    with Plan.open(demo_plan) as plan:
        mechanisms = list(plan.mechanisms.values())
        choice = choose("'x'", device="cuda:1", backend="onnxruntime", networks=mechanisms)
        assert (choice.backend.name, str(choice.device), choice.precision) == (
            "onnxruntime",
            "cuda:1",
            "fp32",
        )
        engine = choice.load(mechanisms[0].name, 2)
        assert engine.stream.device == 1  # type: ignore[attr-defined]
