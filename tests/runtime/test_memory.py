"""Memory of large arrays is used again, and never while a view of them lives."""

from __future__ import annotations

import gc
import os
import threading

import numpy as np
import pytest

from cgnrt._support.memory import FreedBlocks

LARGE = (9 << 20,)  # float32: 36 MiB


def place(array: np.ndarray) -> int:
    return int(array.ctypes.data)


def test_the_memory_of_an_array_is_used_again_once_it_has_gone() -> None:
    blocks = FreedBlocks()
    first = blocks.empty(LARGE, np.float32)
    first[:] = 1
    where = place(first)
    second = blocks.empty(LARGE, np.float32)
    assert place(second) != where
    del first
    smaller = blocks.empty((9, 1 << 18, 4), "float32")  # of another shape, and as it was left
    assert (place(smaller), smaller.shape) == (where, (9, 1 << 18, 4))
    assert (smaller == 1).all()
    assert smaller.flags.writeable
    assert smaller.flags.c_contiguous


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a[5:][::2],
        lambda a: a.view(np.uint8)[3:4],
        lambda a: memoryview(a),
        lambda a: a.reshape(3, -1),
    ],
)
def test_a_view_keeps_the_memory(view: object) -> None:
    blocks = FreedBlocks()
    array = blocks.empty(LARGE, np.float32)
    array[:] = 7
    where = place(array)
    kept = view(array)  # type: ignore[operator]
    del array
    gc.collect()
    other = blocks.empty(LARGE, np.float32)
    assert place(other) != where
    other[:] = 1
    assert (np.asarray(kept) != 1).all()
    del kept
    assert place(blocks.empty(LARGE, np.float32)) == where


def test_torch_and_dlpack_keep_the_memory() -> None:
    import torch

    blocks = FreedBlocks()
    for lend in (torch.from_numpy, torch.from_dlpack):
        array = blocks.empty(LARGE, np.float32)
        where = place(array)
        tensor = lend(array)[1:]
        del array
        assert place(blocks.empty(LARGE, np.float32)) != where
        del tensor


def test_blocks_of_other_sizes_are_left_and_few_are_kept() -> None:
    blocks = FreedBlocks()
    where = place(blocks.empty(LARGE, np.float32))
    assert place(blocks.empty((12 << 20,), np.float32)) != where  # larger
    assert place(blocks.empty((8 << 20,), np.float32)) == where  # a little smaller
    arrays = [blocks.empty(LARGE, np.float32) for _ in range(20)]
    arrays.clear()
    assert sum(map(len, blocks._blocks)) <= 256 << 20


def test_small_arrays_are_numpys(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = FreedBlocks()
    assert blocks.empty((2, 3), np.uint8).base is None
    assert blocks.empty((0, 3), np.uint8).shape == (0, 3)
    assert not blocks._blocks


def test_what_the_system_does_not_have_is_a_memory_error() -> None:
    for size in (1 << 60, 1 << 70):
        with pytest.raises((MemoryError, ValueError)):
            FreedBlocks().empty((size,), np.uint8)


def test_arrays_may_outlive_the_blocks_and_go_in_other_threads() -> None:
    blocks = FreedBlocks()
    arrays = [blocks.empty(LARGE, np.float32) for _ in range(3)]
    threads = [threading.Thread(target=arrays.pop) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(blocks._blocks) == 2
    del blocks
    arrays[0][:] = 2
    assert (arrays[0] == 2).all()


def test_a_forked_process_writes_into_a_copy() -> None:
    blocks = FreedBlocks()
    array = blocks.empty(LARGE, np.float32)
    array[:] = 1
    child = os.fork()
    if child == 0:
        array[:] = 2
        os._exit(0)
    os.waitpid(child, 0)
    assert (array == 1).all()
