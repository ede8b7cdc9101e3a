"""The external weights of a network: in place in the plan's file, or widened from half precision."""

from __future__ import annotations

import weakref

import numpy as np

from cgnrt.errors import refuse
from cgnrt.plan.limits import ALIGNMENT

_STEP = 1 << 20  # numbers that are looked at or widened together: they stay in the processor's caches
_EXPONENT = np.uint16(0x7C00)  # of a float16: all ones in infinity and NaN


class Weights:
    """What the external data of a graph lies in. Nothing is copied before `view` is called.

    Args:
      stored: the bytes of the weights member.
      half_from: the byte behind which they are float16 that stand for float32; None where they are stored in full. A
        multiple of 64 within the member, with an even number of bytes behind it.

    Attributes:
      nbytes: of the weights, as the graph counts them.
    """

    def __init__(self, stored: memoryview, half_from: int | None = None) -> None:
        self._stored = stored
        self.half_from = half_from
        self.nbytes = stored.nbytes if half_from is None else 2 * stored.nbytes - half_from
        self._kept: np.ndarray | None = None
        self._shared: weakref.ref[np.ndarray] | None = None

    @property
    def stored_bytes(self) -> int:
        """The size of the weights member."""
        return self._stored.nbytes

    def check_finite(self) -> None:
        """Refuse infinity and NaN among the numbers that are stored in half precision."""
        if self.half_from is None:
            return
        bits = np.frombuffer(self._stored[self.half_from :], "<u2")
        for first in range(0, bits.size, _STEP):
            wrong = (bits[first : first + _STEP] & _EXPONENT) == _EXPONENT
            if wrong.any():
                place = self.half_from + 2 * (first + int(wrong.argmax()))
                raise refuse(
                    f"float16 at byte {place} of the weights member", "infinity or NaN", "a finite number"
                )

    def piece(self, start: int, length: int) -> bytes:
        """A few bytes of the weights, copied."""
        if self.half_from is None or start < self.half_from:
            return bytes(self._stored[start : start + length])
        first = self.half_from + (start - self.half_from) // 2
        return np.frombuffer(self._stored[first : first + length // 2], "<f2").astype("<f4").tobytes()

    def view(self) -> memoryview:
        """The weights, read-only and aligned to 64 bytes: in place, or widened into memory of their own.

        All callers share one widened copy. It is freed when `release` was called and the last view of it is gone.
        """
        if self.half_from is None:
            return self._stored
        widened = self._kept
        if widened is None and self._shared is not None:
            widened = self._shared()
        if widened is None:
            widened = self._widen(self.half_from)
            self._kept, self._shared = widened, weakref.ref(widened)
        return widened.data

    def release(self) -> None:
        """Keep the widened copy no longer than those who have a view of it."""
        self._kept = None

    def _widen(self, half_from: int) -> np.ndarray:
        memory = np.empty(self.nbytes + ALIGNMENT, np.uint8)
        first = -memory.ctypes.data % ALIGNMENT
        # By way of a memoryview, so that views of this array keep it alive, and not only the memory below it: the weak
        # reference then holds as long as they do.
        widened = np.frombuffer(memory.data[first : first + self.nbytes], np.uint8)
        widened[:half_from] = np.frombuffer(self._stored[:half_from], np.uint8)
        halves = np.frombuffer(self._stored[half_from:], "<f2")
        numbers = widened[half_from:].view("<f4")
        for start in range(0, halves.size, _STEP):
            numbers[start : start + _STEP] = halves[start : start + _STEP]
        widened.flags.writeable = False
        return widened
