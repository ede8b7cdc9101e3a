"""The three mechanisms of one plan on a GPU, each on a stream of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cgnrt import cuda
from cgnrt.backends import Choice, Engine
from cgnrt.plan import MECHANISMS, Plan
from cgnrt.render.inputs import output_shapes


class CudaNetworks:
    """Engines and embedding tables of a plan.

    What a mechanism reads and writes belongs to `stream`. The mechanism runs on its own stream, after what `stream`
    was given before the start; `join` makes `stream` wait for everything that was started.
    """

    def __init__(self, plan: Plan, choice: Choice, stream: cuda.Stream) -> None:
        self._stream = stream
        self._outputs = {name: output_shapes(plan.mechanisms[name]) for name in MECHANISMS}
        self._streams = {name: cuda.Stream(stream.device) for name in MECHANISMS}
        self._engines: dict[str, Engine] = {}
        self._started: list[tuple[cuda.Stream, list[cuda.DeviceArray]]] = []
        self.tables: dict[str, cuda.DeviceArray] = {}
        for name in MECHANISMS:
            mechanism = plan.mechanisms[name]
            table = np.ascontiguousarray(mechanism.embedding, np.float32)
            self.tables[name] = cuda.DeviceArray.empty(table.shape, "float32", stream)
            self.tables[name].upload(table)
            self._engines[name] = choice.load(name, stream=self._streams[name])
            plan.release_pages()

    @property
    def largest_batch(self) -> int | None:
        """The most samples that `start` takes; None: any number."""
        limits = (getattr(engine, "largest_batch", None) for engine in self._engines.values())
        return min((limit for limit in limits if limit is not None), default=None)

    def start(
        self, name: str, inputs: Mapping[str, cuda.DeviceArray], into: Mapping[str, cuda.DeviceArray] | None
    ) -> dict[str, cuda.DeviceArray]:
        """Enqueue one mechanism for one chunk; its named outputs are good for `stream` after `join`.

        Args:
          into: where outputs go; new memory for those that are not named.
        """
        outputs: dict[str, Any] = dict(into or {})
        for output, shape in self._outputs[name].items():
            if output not in outputs:
                shape = (len(inputs["noise"]), *shape)
                outputs[output] = cuda.DeviceArray.empty(shape, "float32", self._stream)
        own = self._streams[name]
        own.wait_for(self._stream)  # after the allocations: their memory may have been others' until now
        # Before it runs: one that fails may have enqueued some of its work.
        self._started.append((own, [*inputs.values(), *outputs.values()]))
        self._engines[name].run(inputs, outputs, own)
        return outputs

    def join(self) -> None:
        """Make `stream` wait for what was started. Until then nothing that was used may go back to it."""
        for own, _ in self._started:
            self._stream.wait_for(own)
        self._started.clear()
