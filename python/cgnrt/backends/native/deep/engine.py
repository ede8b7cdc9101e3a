"""The native engine for deep networks: vectors by NumPy, pictures by `_core.PictureNetwork`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cgnrt import _core
from cgnrt._support.forking import ForkLock
from cgnrt.backends.native.deep.program import PictureProgram
from cgnrt.backends.native.deep.vectors import evaluate
from cgnrt.backends.native.graph import Graph
from cgnrt.errors import BackendError
from cgnrt.plan import Network


class NativeDeepEngine:
    """A deep picture network.

    `steps` are the kinds of its steps, `methods` how each is computed and its multiply-adds for an image, `seconds`
    what each took in the last run.
    """

    def __init__(self, network: Network, program: PictureProgram, threads: int | None) -> None:
        self._lock = ForkLock()  # the engine has a lock, too: a child must not inherit it taken
        self._engine = _core.PictureNetwork(
            [vector.width for vector in program.vectors],
            program.picture_arguments(),
            [step.arguments() for step in program.steps],
            [picture for _, picture in program.outputs],
            image=None if program.image is None else program.image[1],
        )
        self.steps = [step.kind for step in program.steps]
        self.methods = self._engine.methods
        self._graph = Graph(network)
        self._inputs = [spec.name for spec in network.spec.inputs]
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
            with self._lock:
                found = self._engine.run(
                    rows, image, n, [given.get(name) for name in self._outputs], threads=self._threads
                )
        except (IndexError, KeyError, TypeError, ValueError, MemoryError) as error:
            raise BackendError(f"run: the native engine failed: {error}") from error
        return dict(zip(self._outputs, found, strict=True))

    def _rows(self, inputs: Mapping[str, np.ndarray], n: int) -> list[np.ndarray]:
        if n == 0:  # a Reshape could not compute the size that its -1 asks for
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
