"""CUDA graphs: a network's launches, recorded once for a batch size and replayed by one call."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_WARMUPS = 3  # libraries choose algorithms and take workspaces before a capture


class CudaGraph:
    """What a function enqueues for inputs of one form.

    Inputs are copied to memory that stays; the outputs are in memory that the next run overwrites. It is captured on a
    stream of its own, while other threads may use the device.
    """

    def __init__(
        self, function: Callable[[Sequence[Tensor]], tuple[Tensor, ...]], arguments: Sequence[Tensor]
    ) -> None:
        self._inputs = list(arguments)
        device = arguments[0].device
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for _ in range(_WARMUPS):
                function(self._inputs)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
            self._outputs = function(self._inputs)
        torch.cuda.current_stream(device).wait_stream(stream)

    def run(self, arguments: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Enqueue a run on the current stream."""
        for target, source in zip(self._inputs, arguments, strict=True):
            target.copy_(source)
        self._graph.replay()
        return self._outputs
