"""cgnrt's own CPU engine, for small generators: a linear layer, then up-sampling convolutions, in fp32.

It needs no engine library. Where the MNIST CGN's kind of network is all that a plan has, it does less work than the
libraries: nine instead of sixteen multiply-adds where a transposed convolution stands for up-sampling and a 3x3
convolution (csrc/engine/network_kernel.cc), with every image on one thread and in its caches. Any other graph is
refused with the reason, and `auto` goes on to the next backend.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cgnrt import _core
from cgnrt.backends.base import Device
from cgnrt.backends.layers import UnsupportedGraphError, compile_layers
from cgnrt.errors import BackendError
from cgnrt.plan import Mechanism


class NativeEngine:
    def __init__(self, mechanism: Mechanism, threads: int | None) -> None:
        try:
            program = compile_layers(mechanism)
            self._engine = _core.Engine(
                program.widths, program.weight, program.bias, program.shape, program.layers
            )
            wanted = mechanism.spec.outputs[0].shape[1:]
            if tuple(self._engine.output_shape) != tuple(wanted):
                raise UnsupportedGraphError(f"a picture of {self._engine.output_shape}, not {wanted}.")
        except (UnsupportedGraphError, ValueError) as error:
            raise BackendError(f"mechanism '{mechanism.name}' has what it lacks: {error}") from error
        self._inputs = program.inputs
        self._output = mechanism.spec.outputs[0].name
        self._threads = threads or 0

    def run(
        self,
        inputs: Mapping[str, np.ndarray],
        outputs: Mapping[str, np.ndarray] | None = None,
        stream: Any = None,
    ) -> dict[str, np.ndarray]:
        out = None if outputs is None else outputs.get(self._output)
        try:
            found = self._engine.run([inputs[name] for name in self._inputs], out=out, threads=self._threads)
        except (KeyError, TypeError, ValueError, MemoryError) as error:
            raise BackendError(f"run: the native engine failed: {error}") from error
        return {self._output: found}


class NativeBackend:
    name = "native"
    extra = "cpu"

    def installed(self) -> bool:
        return True

    def version(self) -> str:
        return str(_core.build_info()["version"])

    def refusal(self, device: Device, precision: str, mechanisms: Sequence[Mechanism] = ()) -> str | None:
        if device.kind != "cpu":
            return f"it runs on the CPU, not on {device}"
        if precision != "fp32":
            return f"it has no {precision}"
        for mechanism in mechanisms:
            try:
                NativeEngine(mechanism, None)
            except BackendError as error:
                return str(error)
        return None

    def load(self, mechanism: Mechanism, device: Device, precision: str, threads: int | None) -> NativeEngine:
        return NativeEngine(mechanism, threads)
