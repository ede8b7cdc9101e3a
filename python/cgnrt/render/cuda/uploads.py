"""Small host arrays on their way to a device: many in one copy, and nobody waits for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from cgnrt import cuda

_ALIGNMENT = 256
# Uploads that may be on their way at once: the host is held up only when it is this many requests ahead.
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

    def send(self, arrays: Mapping[str, np.ndarray]) -> dict[str, cuda.DeviceArray]:
        """Copies of the arrays on the device, in the order of the stream; one copy for all."""
        offsets, total = {}, 0
        for name, array in arrays.items():
            offsets[name] = total
            total += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
        slot = self._slots[self._next]
        self._next = (self._next + 1) % _SLOTS
        if slot.done is not None:
            slot.done.synchronize()  # before what it holds is overwritten
        if len(slot.buffer) < total:
            slot.buffer = np.asarray(memoryview(cuda.PinnedBuffer(2 * total)))
        for name, array in arrays.items():
            place = slot.buffer[offsets[name] : offsets[name] + array.nbytes]
            place[...] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        packed = cuda.DeviceArray.empty((total,), "uint8", self._stream)
        packed.upload(slot.buffer[:total])
        slot.done = self._stream.record()
        return {
            name: packed.view(offsets[name], array.shape, str(array.dtype)) for name, array in arrays.items()
        }
