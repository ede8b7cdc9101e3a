"""Small host arrays on their way to a device: many in one copy, which the host does not wait for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from cgnrt import cuda

_ALIGNMENT = 256
# Uploads that may be on their way at once: the host waits only when it is this many ahead.
_SLOTS = 4


@dataclass
class _Slot:
    buffer: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint8))
    done: cuda.Event | None = None


class Uploads:
    """A ring of page-locked buffers of one stream."""

    def __init__(self, stream: cuda.Stream) -> None:
        self._stream = stream
        self._slots = [_Slot() for _ in range(_SLOTS)]
        self._next = 0

    def send(self, arrays: Sequence[np.ndarray]) -> list[cuda.DeviceArray]:
        """Copies of the arrays on the device, in the order of the stream; one copy for all."""
        offsets = [0]
        for array in arrays:
            offsets.append(offsets[-1] + -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT)
        total = offsets.pop()
        slot = self._slots[self._next]
        self._next = (self._next + 1) % _SLOTS
        if slot.done is not None:
            slot.done.synchronize()  # before what it holds is overwritten
        if len(slot.buffer) < total:
            slot.buffer = np.asarray(memoryview(cuda.PinnedBuffer(2 * total)))
        for offset, array in zip(offsets, arrays, strict=True):
            place = slot.buffer[offset : offset + array.nbytes]
            place[...] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        packed = cuda.DeviceArray.empty((total,), "uint8", self._stream)
        packed.upload(slot.buffer[:total])
        slot.done = self._stream.record()
        return [
            packed.view(offset, array.shape, str(array.dtype))
            for offset, array in zip(offsets, arrays, strict=True)
        ]
