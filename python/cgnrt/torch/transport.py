"""Sends batches from a loader's worker to its consumer in shared memory that is reused, without a copy.

torch makes new shared memory for every tensor of every batch, copies the tensor there, and sends a file descriptor for
each through a socket: more work than composing the batch. Here a worker composes into a slot of its own and sends the
number of the slot. The consumer's tensors are views of the slot; when the last of them is freed, the worker reuses it.
"""

from __future__ import annotations

import itertools
import os
import secrets
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

_HEADER = 64  # bytes before a slot's memory, of which two are used
# The consumer clears the first byte when its tensors are freed, and sets the second when it has mapped the slot.
_IN_USE, _KNOWN = 0, 1

View = tuple[torch.dtype, int, torch.Size, tuple[int, ...]]  # as a tensor's: dtype, offset, size, stride


class _Slot:
    """A worker's piece of shared memory."""

    def __init__(self, size: int) -> None:
        self.number = next(_numbers)
        self.size = size
        storage = torch.UntypedStorage._new_shared(_HEADER + size)  # type: ignore[no-untyped-call]
        self.whole = torch.empty(0, dtype=torch.uint8).set_(storage)
        self.header = self.whole.numpy()[:_HEADER]
        self.header[:] = 0
        self.lent = self.sent = False

    @property
    def free(self) -> bool:
        """Whether neither this process nor the consumer has tensors here."""
        return not (self.lent or self.header[_IN_USE])

    def lend(self) -> Tensor:
        """Its memory, uint8 (size,)."""
        self.lent, self.sent = True, False
        self.header[_IN_USE] = 1
        lent = self.whole.numpy()[_HEADER:]
        _lent[lent.ctypes.data] = self
        weakref.finalize(lent, self._take_back, lent.ctypes.data).atexit = False
        return torch.from_numpy(lent)

    def _take_back(self, address: int) -> None:
        _lent.pop(address, None)
        if not self.sent:
            self.header[_IN_USE] = 0
        self.lent = False


class Outbox:
    """A worker's slots. Their number grows to that of the batches that are sent or in use by the consumer."""

    def __init__(self) -> None:
        self._slots: list[_Slot] = []

    def room(self, parts: Sequence[tuple[tuple[int, ...], torch.dtype]]) -> list[Tensor]:
        """Tensors of these shapes and dtypes in one slot, for `send`."""
        places, size = [], 0
        for shape, dtype in parts:
            count = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
            places.append((size, size + count))
            size += -(-count // _HEADER) * _HEADER
        slot = next((s for s in self._slots if s.size >= size and s.free), None)
        if slot is None:
            slot = _Slot(size)
            self._slots.append(slot)
        memory = slot.lend()
        return [
            memory[low:high].view(dtype).view(shape)
            for (shape, dtype), (low, high) in zip(parts, places, strict=True)
        ]


_token = secrets.token_hex(8), os.getpid()
_numbers = itertools.count()  # of slots; a consumer knows them by token and number
_outbox = Outbox()
_lent: dict[int, _Slot] = {}  # a worker's, by address
_known: dict[tuple[str, int], dict[int, Tensor]] = {}  # a consumer's mapped slots, by worker


def _renew_token() -> None:
    global _token, _outbox
    _token = secrets.token_hex(8), os.getpid()
    _outbox = Outbox()
    _lent.clear()
    _known.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_token)


def outbox() -> Outbox:
    """The one of this process, for all its data sets and epochs, so that memory is mapped once."""
    return _outbox


def send(tensors: Sequence[Any]) -> tuple[Any, ...] | None:
    """The arguments of `receive` for tensors in one slot; None if they are not, and must be pickled by torch."""
    addresses = {tensor.untyped_storage().data_ptr() for tensor in tensors}
    slot = _lent.get(addresses.pop()) if len(addresses) == 1 else None
    if slot is None:
        return None
    slot.sent = True
    views: list[View] = [(t.dtype, t.storage_offset(), t.size(), t.stride()) for t in tensors]
    return _token, slot.number, None if slot.header[_KNOWN] else slot.whole, views


def receive(token: tuple[str, int], number: int, whole: Tensor | None, views: Sequence[View]) -> list[Tensor]:
    """The tensors, in the sender's memory, which the sender reuses when the last of them is freed."""
    if whole is not None:
        if token not in _known:
            _forget_the_dead()
        _known.setdefault(token, {})[number] = whole
    else:
        whole = _known.get(token, {}).get(number)
        if whole is None:
            raise RuntimeError(
                f"dataset: a batch of process {token[1]} was sent to another process, expected its loader's."
            )
    array = whole.numpy()
    array[_KNOWN] = 1
    memory = array[_HEADER:]
    weakref.finalize(memory, _give_back, array, os.getpid()).atexit = False
    storage = torch.from_numpy(memory).untyped_storage()
    return [torch.empty(0, dtype=dtype).set_(storage, *place) for dtype, *place in views]


def _give_back(array: np.ndarray, pid: int) -> None:
    # A forked process frees only its copies; the parent's tensors may be in use.
    if pid == os.getpid():
        array[_IN_USE] = 0


def _forget_the_dead() -> None:
    """Unmap the slots of workers that have ended, except those of tensors that are still in use."""
    for token in list(_known):
        try:
            os.kill(token[1], 0)
        except ProcessLookupError:
            del _known[token]
        except PermissionError:
            continue
