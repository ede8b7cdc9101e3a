"""cgnrt's own CPU engines, in fp32: no engine library is needed.

Small generators, like those of the MNIST CGN, go through `_core.Engine`: a linear layer, then up-sampling
convolutions, every image on one thread and in its caches (csrc/engine). Deep picture networks, like BigGAN-deep and
U-Net shapes, go through `_core.DeepEngine`, whose convolutions multiply fewer numbers than they have taps
(csrc/deep). Any other graph is refused with the reasons, and `auto` goes on to the next backend.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cgnrt import _core
from cgnrt.backends.base import Device, Engine
from cgnrt.backends.deep import Program as DeepProgram
from cgnrt.backends.deep import compile_pictures, evaluate
from cgnrt.backends.graphs import Graph, UnsupportedGraphError
from cgnrt.backends.layers import Program, compile_layers
from cgnrt.errors import BackendError
from cgnrt.plan import Mechanism


class NativeEngine:
    """A small generator."""

    def __init__(self, mechanism: Mechanism, threads: int | None, program: Program | None = None) -> None:
        try:
            program = program or compile_layers(mechanism)
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


class NativeDeepEngine:
    """A deep picture network.

    `steps` are the kinds of its steps, `methods` how each is computed and its multiply-adds for an image, `seconds`
    what each took in the last run.
    """

    def __init__(self, mechanism: Mechanism, threads: int | None, program: DeepProgram | None = None) -> None:
        try:
            program = program or compile_pictures(mechanism)
            self._engine = _core.DeepEngine(
                [vector.width for vector in program.vectors],
                program.picture_arguments(),
                [step.arguments() for step in program.steps],
                [picture for _, picture in program.outputs],
                image=None if program.image is None else program.image[1],
            )
        except (UnsupportedGraphError, ValueError) as error:
            raise BackendError(f"mechanism '{mechanism.name}' has what it lacks: {error}") from error
        self.steps = [step.kind for step in program.steps]
        self.methods = self._engine.methods
        self._graph = Graph(mechanism)
        self._inputs = [spec.name for spec in mechanism.spec.inputs]
        self._image = None if program.image is None else program.image[0]
        self._nodes, self._vectors = program.nodes, program.vectors
        self._outputs = [name for name, _ in program.outputs]
        self._threads = threads or 0

    @property
    def seconds(self) -> list[float]:
        return list(self._engine.seconds)

    def run(
        self,
        inputs: Mapping[str, np.ndarray],
        outputs: Mapping[str, np.ndarray] | None = None,
        stream: Any = None,
    ) -> dict[str, np.ndarray]:
        given = outputs or {}
        n = len(next(iter(inputs.values())))
        try:
            rows = self._rows(inputs, n)
            image = None if self._image is None else inputs[self._image]
            found = self._engine.run(
                rows, image, n, [given.get(name) for name in self._outputs], threads=self._threads
            )
        except (IndexError, KeyError, TypeError, ValueError, MemoryError) as error:
            raise BackendError(f"run: the native engine failed: {error}") from error
        return dict(zip(self._outputs, found, strict=True))

    def _rows(self, inputs: Mapping[str, np.ndarray], n: int) -> list[np.ndarray]:
        if n == 0:  # of which a Reshape could not tell what its -1 stands for
            return [np.empty((0, vector.width), np.float32) for vector in self._vectors]
        given = {name: inputs[name] for name in self._inputs}
        values = evaluate(self._graph, self._nodes, given)
        return [_rows(self._value(values, vector.name), n, vector.width) for vector in self._vectors]

    def _value(self, values: Mapping[str, np.ndarray], name: str) -> np.ndarray:
        return values[name] if name in values else self._graph.constant(name)


def _rows(array: np.ndarray, n: int, width: int) -> np.ndarray:
    """(n, width) of a value that has n images, or one for all; a channel's number may stand for all."""
    flat = array.reshape(n, -1) if array.ndim == 4 and array.shape[0] == n else array.reshape(1, -1)
    return np.ascontiguousarray(np.broadcast_to(flat, (n, width)), np.float32)


def load_native(mechanism: Mechanism, threads: int | None) -> Engine:
    """The engine that runs a mechanism.

    Raises:
      BackendError: neither does; the message has both reasons.
    """
    program = _compile(mechanism)
    if isinstance(program, DeepProgram):
        return NativeDeepEngine(mechanism, threads, program)
    return NativeEngine(mechanism, threads, program)


def _compile(mechanism: Mechanism) -> Program | DeepProgram:
    try:
        return compile_layers(mechanism)
    except UnsupportedGraphError as error:
        small = error
    try:
        return compile_pictures(mechanism)
    except UnsupportedGraphError as error:
        raise BackendError(
            f"mechanism '{mechanism.name}' has what it lacks: for small generators, {small} For deep networks, "
            f"{str(error).rstrip('.')}"
        ) from error


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
                _compile(mechanism)
            except BackendError as error:
                return str(error)
        return None

    def load(self, mechanism: Mechanism, device: Device, precision: str, threads: int | None) -> Engine:
        return load_native(mechanism, threads)
