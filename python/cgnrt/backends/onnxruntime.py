"""ONNX Runtime: fp32 on every CPU that it has wheels for, and NVIDIA GPUs through its CUDA or TensorRT provider."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cgnrt.backends import onnxruntime_cuda
from cgnrt.backends.base import Device, Engine, EngineOptions, deliver
from cgnrt.backends.onnxruntime_session import open_session
from cgnrt.backends.typed_graph import planned_fp32_layers
from cgnrt.errors import BackendError
from cgnrt.plan import Mechanism, Plan


class OnnxRuntimeEngine:
    def __init__(self, mechanism: Mechanism, threads: int | None) -> None:
        # The session reads the weights where they are mapped, so the mapping must outlive it.
        self._weights = mechanism.weights
        self._session = open_session(mechanism, [("CPUExecutionProvider", {})], threads=threads)
        self._outputs = [spec.name for spec in mechanism.spec.outputs]

    def run(
        self,
        inputs: Mapping[str, np.ndarray],
        outputs: Mapping[str, np.ndarray] | None = None,
        stream: Any = None,
    ) -> dict[str, np.ndarray]:
        try:
            produced = dict(zip(self._outputs, self._session.run(self._outputs, dict(inputs)), strict=True))
        except Exception as error:
            raise BackendError(f"run: ONNX Runtime failed: {error}") from error
        return deliver(produced, outputs)


class OnnxRuntimeBackend:
    name = "onnxruntime"
    extra = "cpu"

    def installed(self) -> bool:
        return importlib.util.find_spec("onnxruntime") is not None

    def version(self) -> str:
        import onnxruntime

        return str(onnxruntime.__version__)

    def refusal(self, device: Device, precision: str, mechanisms: Sequence[Mechanism] = ()) -> str | None:
        if device.kind != "cpu":
            return onnxruntime_cuda.refusal(device, precision, mechanisms)
        if precision != "fp32":
            return f"it has no {precision} kernels on the CPU"
        return None

    def load(
        self, mechanism: Mechanism, device: Device, precision: str, threads: int | None, **options: Any
    ) -> Engine:
        """Compile one mechanism; `options` are those of `OnnxRuntimeCudaEngine`, for devices alone."""
        if device.kind != "cpu":
            return onnxruntime_cuda.OnnxRuntimeCudaEngine(mechanism, device, precision, threads, **options)
        if options:
            raise TypeError(f"load: options are {', '.join(options)}, expected none on the CPU.")
        return OnnxRuntimeEngine(mechanism, threads)

    def plan_refusal(self, plan: Plan, device: Device, precision: str, options: EngineOptions) -> str | None:
        return None

    def load_on(
        self,
        stream: Any,
        plan: Plan,
        mechanism: Mechanism,
        device: Device,
        precision: str,
        options: EngineOptions,
    ) -> Engine:
        return self.load(
            mechanism,
            device,
            precision,
            None,
            stream=stream,
            batches=options.batches or (),
            fp32_layers=planned_fp32_layers(plan.manifest, mechanism.name, precision),
        )
