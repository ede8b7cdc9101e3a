"""ONNX Runtime on the CPU: fp32, on every platform that it has wheels for."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cgnrt.backends.base import Device, deliver
from cgnrt.errors import BackendError
from cgnrt.machine import available_cores
from cgnrt.plan import Mechanism

_FATAL_ONLY = 4  # its own log on stderr adds nothing to the exception


class OnnxRuntimeEngine:
    def __init__(self, mechanism: Mechanism, threads: int | None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = _FATAL_ONLY
        options.intra_op_num_threads = threads or available_cores()
        options.inter_op_num_threads = 1
        # The session reads the weights where they are mapped, so the mapping must outlive it.
        self._weights = mechanism.weights
        if self._weights is not None:
            location = str(mechanism.spec.weights).rpartition("/")[2]
            buffer = np.frombuffer(self._weights, np.uint8)
            options.add_external_initializers_from_files_in_memory([location], [buffer], [buffer.nbytes])
        try:
            self._session = onnxruntime.InferenceSession(
                bytes(mechanism.graph), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise BackendError(
                f"load mechanism '{mechanism.name}': ONNX Runtime refused the graph: {error}"
            ) from error
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
            return f"cgnrt runs it on the CPU only so far, not on {device}"
        if precision != "fp32":
            return f"it has no {precision} kernels on the CPU"
        return None

    def load(
        self, mechanism: Mechanism, device: Device, precision: str, threads: int | None
    ) -> OnnxRuntimeEngine:
        return OnnxRuntimeEngine(mechanism, threads)
