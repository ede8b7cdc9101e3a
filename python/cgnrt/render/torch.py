"""torch tensors as a render device: any `torch.device`, where this build has no kernels of its own.

Everything is enqueued on torch's current stream, which is the consumer's: there is nothing to wait for, and nothing is
made ahead. Noise is drawn by the CPU, which has the right bits, and uploaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cgnrt import torch_ops
from cgnrt.backends import Choice
from cgnrt.backends.base import BUSY_PIXELS
from cgnrt.backends.torch import library
from cgnrt.batch import DeviceColumns
from cgnrt.plan import Plan
from cgnrt.render.device import (
    COLUMNS,
    PLACED,
    ROLLS,
    Moves,
    RenderDevice,
    compose_pictures,
    largest_batch,
    load_engines,
)
from cgnrt.request.options import PixelFormat
from cgnrt.sampling import NoiseDraw
from cgnrt.torch_moves import put, roll


@dataclass(frozen=True, eq=False)
class TorchColumns(DeviceColumns):
    """The columns of a batch of torch tensors."""

    def synchronize(self) -> None:
        self.indices.cpu()  # a copy to the host waits for what was enqueued before

    def fetch(self, array: Any) -> np.ndarray:
        if not isinstance(array, Tensor) or array.dtype == torch.bfloat16:
            found = str(getattr(array, "dtype", type(array).__name__)).removeprefix("torch.")
            raise TypeError(f"batch.numpy: images are {found}, expected tensors of a type that NumPy has.")
        fetched: np.ndarray = array.cpu().numpy()
        return fetched

    def order_before(self, out: Any) -> None: ...  # the current stream has made it


class Streams:
    """The streams that a device was used on. Work on one of them waits for what was enqueued on the others before."""

    def __init__(self, device: torch.device) -> None:
        module = getattr(torch, device.type, None)
        self._current = getattr(module, "current_stream", None) if device.type != "cpu" else None
        self._device = device
        self._used: list[Any] = []

    @contextmanager
    def use(self) -> Iterator[None]:
        """A context around work on the current stream; on a device without streams it does nothing."""
        if self._current is None:
            yield
            return
        stream = self._current(self._device)
        others = [used for used in self._used if used != stream]
        if len(others) == len(self._used):
            self._used.append(stream)
        for other in others:
            stream.wait_stream(other)
        try:
            yield
        finally:
            for other in others:  # memory that is returned there may still be in use here
                other.wait_stream(stream)


class TorchDevice(RenderDevice):
    """Engines of the torch backend, and the composer as torch operations. Arrays are tensors."""

    chunk_pixels = BUSY_PIXELS
    ahead = None

    def __init__(self, plan: Plan, choice: Choice, threads: int | None) -> None:
        super().__init__(plan, choice, threads)
        self._device = library.torch_device(choice.device)
        self._streams = Streams(self._device)
        self._threads = threads
        self._pins = self._device.type == "cuda"
        with self._streams.use(), self._failures():
            tables = [np.array(network.embedding, np.float32) for network in plan.networks.values()]
            self._tables = dict(zip(plan.networks, self.upload(tables), strict=True))
            self._engines = load_engines(plan, lambda name: choice.load(name, threads))

    @property
    def largest_batch(self) -> int | None:
        return largest_batch(self._engines)

    @contextmanager
    def call(self) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(self.lock)
            stack.enter_context(self._streams.use())
            stack.enter_context(library.settings(self._device, tf32=False, threads=self._threads))
            stack.enter_context(self._failures())
            yield

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Turn errors of torch into those that other devices raise."""
        try:
            yield
        except Exception as error:
            if library.is_out_of_memory(error) and not isinstance(error, MemoryError):
                raise MemoryError(library.first_line(error)) from error
            if (missing := library.missing_operation(error, "sample", self._device)) is not None:
                raise missing from error
            raise

    def free_bytes(self) -> int | None:
        return library.free_bytes(self._device)

    def empty(self, shape: tuple[int, ...], dtype: str = "float32") -> Tensor:
        return torch.empty(shape, dtype=getattr(torch, dtype), device=self._device)

    def upload(self, arrays: Sequence[np.ndarray]) -> list[Tensor]:
        return [self._sent(np.array(array, order="C")) for array in arrays]

    def _sent(self, array: np.ndarray) -> Tensor:
        """A copy on the device; the array may not change afterwards."""
        tensor = torch.from_numpy(array)
        if self._pins and tensor.numel():  # else the host would wait
            return tensor.pin_memory().to(self._device, non_blocking=True)
        return tensor.to(self._device)

    def draw_noise(self, draw: NoiseDraw, seed: int, indices: np.ndarray, uploaded: Tensor) -> Tensor:
        return self._sent(draw.draw(seed, indices))

    def scale_rows(self, rows: Tensor, factors: Tensor) -> Tensor:
        return rows * factors

    def embedding(self, mechanism: str, labels: Tensor) -> Tensor:
        return self._tables[mechanism].index_select(0, labels)

    def run(
        self, mechanism: str, inputs: Mapping[str, Any], into: Mapping[str, Any] | None = None
    ) -> dict[str, Tensor]:
        return self._engines[mechanism].run(inputs, into)

    def put(self, source: Tensor, target: Tensor, rows: np.ndarray) -> None:
        target.index_copy_(0, self._sent(np.asarray(rows, np.int64)), source)

    def compose(
        self,
        pixels: PixelFormat,
        pictures: Mapping[str, Any],
        index: Tensor | None,
        moves: Moves,
        images: Any,
    ) -> None:
        compose_pictures(torch_ops.compose, pixels, pictures, index, moves, images)

    def keep(
        self,
        pictures: Mapping[str, Any],
        rows: np.ndarray | None,
        moves: Moves,
        parts: Mapping[str, Any],
    ) -> None:
        for name, part in parts.items():
            picture = pictures[name]
            if rows is not None:
                picture = picture.index_select(0, self._sent(rows[:, COLUMNS[name]].astype(np.int64)))
            if moves.rolls is not None and name in ROLLS:
                picture = roll(picture, moves.rolls[:, ROLLS[name]])
            if moves.place is not None and name in PLACED:
                picture = put(picture, moves.place)
            part.copy_(picture)

    def hand_out(
        self, labels: Sequence[Any], indices: Any, index: Any, place: Any, pictures: Sequence[Any]
    ) -> TorchColumns:
        shape, texture, background = labels
        return TorchColumns((shape, texture, background), indices, index, place)
