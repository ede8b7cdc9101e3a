"""Engines on a card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cgnrt import cuda
from cgnrt.backends import EngineOptions, Setup, load_engine
from cgnrt.backends.base import Device
from cgnrt.backends.tensorrt import TensorRtBackend
from cgnrt.plan import Plan

ROOT = Path(__file__).parents[2]
CARD = Device("cuda", 0)
FLOORS = {"fp32": 90.0, "fp16": 55.0, "bf16": 40.0}

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CGNRT_CACHE", str(tmp_path))


def upload(array: np.ndarray, stream: Any) -> Any:
    made = cuda.module().DeviceArray.empty(array.shape, "float32", stream)
    made.upload(array)
    return made


@pytest.mark.parametrize("precision", sorted(FLOORS))
@pytest.mark.parametrize("name", ["plans/colored.plan", "tests/runtime/golden/small_cgn.plan"])
def test_the_engines_agree_with_the_cpu(name: str, precision: str) -> None:
    backend = TensorRtBackend()
    if not backend.installed():
        pytest.skip("TensorRT is not installed")
    assert backend.refusal(CARD, precision) is None
    stream = cuda.module().Stream(0)
    rng = np.random.default_rng(0)
    with Plan.open(ROOT / name) as plan:
        for found in plan.mechanisms.values():
            setup = Setup(CARD, precision, plan, EngineOptions(batches=(1, 4, 8)))
            engine = backend.examine(found, setup).load()
            reference = load_engine(found, device="cpu")
            # Each size often enough to be captured, and between others.
            for n in (4, 1, 4, 8, 4, 8, 8, 1):
                inputs = {
                    s.name: rng.standard_normal((n, *s.shape[1:])).astype(np.float32)
                    for s in found.spec.inputs
                }
                inputs["class_embedding"] = found.embedding[rng.integers(0, len(found.embedding), n)]
                if "truncation" in inputs:
                    inputs["truncation"] = rng.uniform(0.1, 1, (n, 1)).astype(np.float32)
                given = {key: upload(value, stream) for key, value in inputs.items()}
                outputs = {
                    s.name: cuda.module().DeviceArray.empty((n, *s.shape[1:]), "float32", stream)
                    for s in found.spec.outputs
                }
                engine.run(given, outputs, stream)
                expected = reference.run(inputs)
                for key, array in outputs.items():
                    low, high = found.spec.range if key != "pre_mask" else (-1, 1)
                    error = np.square(array.numpy().astype(np.float64) - expected[key]).mean()
                    assert 10 * np.log10((high - low) ** 2 / max(error, 1e-30)) >= FLOORS[precision]
        del found
