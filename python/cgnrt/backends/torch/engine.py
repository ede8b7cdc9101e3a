"""One network as a torch module, for NumPy arrays on the CPU and for torch tensors on any device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from cgnrt import cuda
from cgnrt._support.forking import ForkLock
from cgnrt.backends.base import Device, Setup, deliver
from cgnrt.backends.torch import library, memory
from cgnrt.backends.torch.compiled import Compiled
from cgnrt.backends.torch.graphs import CudaGraph
from cgnrt.backends.torch.program import Program
from cgnrt.errors import BackendError


class TorchEngine:
    """A network with weights of its own.

    On tensors it runs on torch's current stream. On a GPU of NVIDIA or AMD the sizes of `engine_batches` are captured
    as CUDA graphs. With `compile` each of these sizes is compiled at its first run; without `engine_batches`, every
    size.

    Attributes:
      largest_batch: what fits into the memory that was free when it was loaded; None on the CPU.
    """

    def __init__(self, program: Program, setup: Setup, threads: int | None = None) -> None:
        self._lock = ForkLock()
        self._program = program
        self._name = program.network.name
        # An emulated device has the host's memory, and no stream of torch's.
        self._device = library.torch_device(
            Device() if setup.device.kind == "cuda" and cuda.is_emulated() else setup.device
        )
        self._tf32, self._threads = setup.options.tf32, threads
        last = library.channels_last(self._device)
        try:
            self._module: fx.GraphModule = program.load(self._device, channels_last=last)
        except Exception as error:
            raise self._failure(error, 0) from error
        free = library.free_bytes(self._device)
        self.largest_batch = None if free is None else memory.largest_batch(program.graph, free)
        self._batches = frozenset(setup.options.batches or ())
        self._compiled: Compiled | None = None
        if setup.options.compile:
            self._compiled = Compiled(self._module, self._name, self._batches)
        self._graphs: dict[int, CudaGraph] = {}
        if self._device.type == "cuda":
            self._capture()

    def run(
        self, inputs: Mapping[str, Any], outputs: Mapping[str, Any] | None = None, stream: Any = None
    ) -> dict[str, Any]:
        """As `backends.Engine.run`, for NumPy arrays or for tensors on the device; the outputs are of the same kind."""
        here = isinstance(next(iter(inputs.values()), None), np.ndarray)
        found = dict(zip(self._program.outputs, self.forward(self._arguments(inputs)), strict=True))
        if here:
            return deliver({name: found[name].contiguous().numpy() for name in found}, outputs)
        for name, target in (outputs or {}).items():
            if found[name].shape != target.shape:  # which torch would broadcast
                raise BackendError(
                    f"run: output {name!r} has shape {tuple(found[name].shape)}, expected {tuple(target.shape)}, as "
                    "the plan says. Correct the network, and export it again."
                )
            target.copy_(found[name])
        return {**found, **(outputs or {})}

    def forward(self, arguments: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The outputs, float32; those of a CUDA graph are overwritten by its next run."""
        n = len(arguments[0]) if arguments else 0
        try:
            with self._lock, library.settings(self._device, tf32=self._tf32, threads=self._threads):
                if n in self._graphs:
                    return self._graphs[n].run(arguments)
                return self._call(n, arguments)
        except Exception as error:
            raise self._failure(error, n) from error

    def _call(self, n: int, arguments: Sequence[Tensor]) -> tuple[Tensor, ...]:
        if self._compiled is not None and self._compiled.takes(n):
            return self._compiled.run(n, arguments)
        found: tuple[Tensor, ...] = self._module(*arguments)
        return found

    def _arguments(self, inputs: Mapping[str, Any]) -> list[Tensor]:
        try:
            return [_tensor(inputs[name]) for name in self._program.inputs]
        except KeyError as error:
            raise BackendError(
                f"run '{self._name}': inputs are {', '.join(inputs)}, expected {', '.join(self._program.inputs)}."
            ) from error

    def _capture(self) -> None:
        for n in sorted(self._batches):
            shapes = [
                (n, *(int(size) for size in spec.shape[1:])) for spec in self._program.network.spec.inputs
            ]
            arguments = [torch.ones(shape, dtype=torch.float32, device=self._device) for shape in shapes]
            try:
                with library.settings(self._device, tf32=self._tf32, threads=self._threads):
                    self._graphs[n] = CudaGraph(lambda given: self._call(len(given[0]), given), arguments)
            except Exception as error:
                raise self._failure(error, n) from error

    def _failure(self, error: Exception, n: int) -> Exception:
        """The error to raise for the failure of a run of n samples."""
        if isinstance(error, BackendError):
            return error
        if library.is_out_of_memory(error):
            free = library.free_bytes(self._device)
            return MemoryError(memory.what_fits(self._program.graph, self._name, n, self._device, free))
        subject = f"run '{self._name}'"
        missing = library.missing_operation(error, subject, self._device)
        return missing or BackendError(f"{subject}: torch failed: {library.first_line(error)}")


def _tensor(array: Any) -> Tensor:
    if isinstance(array, Tensor):
        return array
    if not array.flags.writeable or not array.flags.c_contiguous:
        array = np.array(array, order="C")  # torch has no read-only tensors, and warns of them
    return torch.from_numpy(array)
