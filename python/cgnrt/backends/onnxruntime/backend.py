"""The ONNX Runtime backend, and its engine on the CPU; `cuda` has the one on a device."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cgnrt._support.forking import ForkLock
from cgnrt.backends.base import Device, Engine, Setup, deliver
from cgnrt.backends.onnxruntime import cuda
from cgnrt.backends.onnxruntime.session import open_session
from cgnrt.backends.typed import planned_fp32_layers
from cgnrt.errors import BackendError, one_line
from cgnrt.plan import Network


class OnnxRuntimeEngine:
    def __init__(self, network: Network, threads: int | None) -> None:
        # The session reads the weights where they are mapped, so the mapping must outlive it.
        self._weights = network.weights
        self._session = open_session(network, [("CPUExecutionProvider", {})], threads=threads)
        self._outputs = [spec.name for spec in network.spec.outputs]
        self._pid = os.getpid()
        self._lock = ForkLock()  # what threads of the library have taken must not be left to a forked child

    def run(
        self,
        inputs: Mapping[str, np.ndarray],
        outputs: Mapping[str, np.ndarray] | None = None,
        stream: Any = None,
    ) -> dict[str, np.ndarray]:
        if self._pid != os.getpid():
            raise BackendError(
                f"run: this engine of ONNX Runtime belongs to process {self._pid}, expected this one, {os.getpid()}. "
                "Load an engine in each process."
            )
        try:
            with self._lock:
                produced = dict(
                    zip(self._outputs, self._session.run(self._outputs, dict(inputs)), strict=True)
                )
        except Exception as error:
            raise BackendError(f"run: ONNX Runtime failed: {one_line(error)}") from error
        return deliver(produced, outputs)


@dataclass(frozen=True)
class OnnxRuntimeCandidate:
    """A network for the CPU or for a CUDA device."""

    network: Network
    setup: Setup

    def load(self, threads: int | None = None, stream: Any = None) -> Engine:
        network, setup = self.network, self.setup
        if setup.device.kind == "cpu":
            return OnnxRuntimeEngine(network, threads)
        plan, precision = setup.plan, setup.precision
        return cuda.OnnxRuntimeCudaEngine(
            network,
            setup.device,
            precision,
            threads,
            stream=stream,
            batches=setup.options.batches or (),
            fp32_layers=() if plan is None else planned_fp32_layers(plan.manifest, network.name, precision),
        )


class OnnxRuntimeBackend:
    def version(self) -> str:
        import onnxruntime

        return str(onnxruntime.__version__)

    def refusal(self, device: Device, precision: str) -> str | None:
        if device.kind == "cuda":
            return cuda.refusal(device, precision)
        return None if precision == "fp32" else f"it has no {precision} kernels on the CPU"

    def examine(self, network: Network, setup: Setup) -> OnnxRuntimeCandidate:
        if setup.device.kind == "cuda":
            cuda.check_operators(network, setup.precision)
        return OnnxRuntimeCandidate(network, setup)
