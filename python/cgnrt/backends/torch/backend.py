"""The torch backend. torch is imported in the methods."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cgnrt import cuda
from cgnrt.backends.base import Device, Engine, Setup
from cgnrt.backends.typed.graph import planned_fp32_layers
from cgnrt.errors import BackendError
from cgnrt.plan import Network

if TYPE_CHECKING:
    from cgnrt.backends.torch.program import Program


@dataclass(frozen=True)
class TorchCandidate:
    """A network, recorded as torch operations; its weights are uploaded when it is loaded."""

    program: Program = field(repr=False)
    setup: Setup

    def load(self, threads: int | None = None, stream: Any = None) -> Engine:
        from cgnrt.backends.torch.engine import TorchEngine

        if stream is None:
            return TorchEngine(self.program, self.setup, threads)
        from cgnrt.backends.torch.device_arrays import DeviceArrayEngine

        return DeviceArrayEngine(self.program, self.setup, stream)


class TorchBackend:
    def version(self) -> str:
        import torch

        return str(torch.__version__)

    def refusal(self, device: Device, precision: str) -> str | None:
        from cgnrt.backends.torch import library

        if device.kind == "cuda" and cuda.is_emulated():
            return cuda.refusal(device.index)
        return library.refusal(device, precision)

    def examine(self, network: Network, setup: Setup) -> TorchCandidate:
        from cgnrt.backends.torch.library import torch_device
        from cgnrt.backends.torch.program import trace

        if setup.options.tf32 and setup.device.kind != "cuda":
            raise BackendError(f"TF32 is of NVIDIA's GPUs, not of {setup.device}")
        plan, precision = setup.plan, setup.precision
        kept = () if plan is None else planned_fp32_layers(plan.manifest, network.name, precision)
        where = Device() if cuda.is_emulated() else setup.device
        return TorchCandidate(trace(network, torch_device(where), precision, kept), setup)
