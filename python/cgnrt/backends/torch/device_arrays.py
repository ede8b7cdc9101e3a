"""The torch engine between cgnrt's own kernels on a CUDA device: its arrays are read and written in place."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from cgnrt import cuda
from cgnrt.backends.base import Setup
from cgnrt.backends.torch.engine import TorchEngine
from cgnrt.backends.torch.program import Program


class DeviceArrayEngine(TorchEngine):
    """One network; float32 `cgnrt.cuda.DeviceArray`s in and out, enqueued on the stream of each run.

    torch's memory for intermediate pictures is of that stream, too, and used again in its order.

    Args:
      stream: a `cgnrt.cuda.Stream`, on which it is prepared.
    """

    def __init__(self, program: Program, setup: Setup, stream: Any) -> None:
        self._where = setup.device
        self._emulated = cuda.is_emulated()
        with self._on(stream):
            super().__init__(program, setup)
        if not self._emulated:
            stream.synchronize()

    def run(
        self, inputs: Mapping[str, Any], outputs: Mapping[str, Any] | None = None, stream: Any = None
    ) -> dict[str, Any]:
        if outputs is None or stream is None:
            missing = "outputs" if outputs is None else "stream"
            raise TypeError(f"run '{self._name}': {missing} is None, expected one on {self._where}.")
        if self._emulated:
            # An emulated stream does its work when somebody waits for it, and torch's CPU reads at once.
            stream.synchronize()
        with self._on(stream):
            given = {name: self._lent(array) for name, array in inputs.items()}
            super().run(given, {name: self._lent(array) for name, array in outputs.items()})
        return dict(outputs)

    def _lent(self, array: Any) -> Tensor:
        """A tensor on an array's memory. The caller orders streams, and keeps the array until the run is over."""
        if self._emulated:
            memory = (ctypes.c_float * (array.nbytes // 4)).from_address(array.data_ptr)
            return torch.frombuffer(memory, dtype=torch.float32).reshape(array.shape)
        return torch.as_tensor(_Lent(array), device=self._device)

    @contextlib.contextmanager
    def _on(self, stream: Any) -> Iterator[None]:
        """Make a stream torch's current one."""
        if self._emulated:
            yield
            return
        there = torch.device("cuda", self._where.index)
        external = torch.cuda.ExternalStream(stream.ptr, device=there)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(external):
            yield


class _Lent:
    """Memory as torch takes it, without a stream: nothing is ordered."""

    def __init__(self, array: Any) -> None:
        self.array = array  # keeps it
        self.__cuda_array_interface__ = {
            "shape": tuple(array.shape),
            "typestr": "<f4",
            "data": (array.data_ptr, False),
            "strides": None,
            "version": 2,
        }
