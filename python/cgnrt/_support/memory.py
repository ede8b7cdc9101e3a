"""Memory of large arrays, used again once they are gone.

The C library gives large blocks back to the system when they are freed: always those of more than 32 MiB, smaller ones
if they were the last in memory. The system clears the pages of the next one: for 64 images of 224 px as float32 that
takes as long as composing them.
"""

from __future__ import annotations

import math
import mmap
import weakref
from collections import deque

import numpy as np
import numpy.typing as npt

_LARGE = 1 << 20  # bytes; what is smaller stays with the C library
_KEPT = 256 << 20  # bytes that wait for the next array, at most


class FreedBlocks:
    """Makes arrays, and keeps the memory of those that are gone, with all views of them, for the next ones.

    What is kept is freed with this object.
    """

    def __init__(self) -> None:
        self._blocks: deque[mmap.mmap] = deque()  # its methods are atomic: an array may go in any thread

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> np.ndarray:
        """Memory that is not cleared, as of `numpy.empty`.

        Raises:
          MemoryError: the system does not give it.
        """
        count = math.prod(shape)
        size = count * np.dtype(dtype).itemsize
        if size < _LARGE or not hasattr(mmap, "MAP_PRIVATE"):
            return np.empty(shape, dtype)
        block = self._find(size) or _new(size)
        owner = np.frombuffer(block, dtype, count)
        # Every view refers to this array: it goes when the last of them has gone.
        weakref.finalize(owner, _give_back, weakref.ref(self), block).atexit = False
        return owner.reshape(shape)

    def _find(self, size: int) -> mmap.mmap | None:
        """A kept block for so many bytes, at most a quarter larger."""
        for _ in range(len(self._blocks)):
            try:
                block = self._blocks.popleft()
            except IndexError:  # another thread took it
                return None
            if size <= len(block) <= size + size // 4:
                return block
            self._blocks.append(block)
        return None

    def _keep(self, block: mmap.mmap) -> None:
        self._blocks.append(block)
        while sum(map(len, tuple(self._blocks))) > _KEPT:
            try:
                self._blocks.popleft()
            except IndexError:
                return


def _give_back(blocks: weakref.ref[FreedBlocks], block: mmap.mmap) -> None:
    found = blocks()
    if found is not None:
        found._keep(block)


def _new(size: int) -> mmap.mmap:
    try:
        # Private: a forked process writes into a copy.
        block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, ValueError, OverflowError) as error:
        raise MemoryError(f"unable to allocate {size:,} bytes") from error
    if hasattr(mmap, "MADV_HUGEPAGE"):
        block.madvise(mmap.MADV_HUGEPAGE)
    return block
