"""A GPU as a render device: everything is enqueued on one stream, and the host waits for nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cgnrt import cuda, ops
from cgnrt.backends import Choice
from cgnrt.backends.base import BUSY_PIXELS
from cgnrt.batch import DeviceColumns
from cgnrt.plan import Plan
from cgnrt.render.device import (
    COLUMNS,
    PLACED,
    ROLLS,
    Moves,
    RenderDevice,
    compose_pictures,
    compose_placed_part,
    largest_batch,
    load_engines,
    output_shapes,
    placed_rows,
)
from cgnrt.request.options import PixelFormat
from cgnrt.sampling import NoiseDraw

_ALIGNMENT = 256
# Uploads that may be on their way at once: the host waits only when it is this many ahead.
_SLOTS = 8


@dataclass(frozen=True, eq=False)
class CudaColumns(DeviceColumns):
    """The columns of a batch on a GPU, and the stream that makes the batch."""

    stream: cuda.Stream

    def synchronize(self) -> None:
        self.stream.synchronize()

    def fetch(self, array: Any) -> np.ndarray:
        if not isinstance(array, cuda.DeviceArray) or array.dtype == "bfloat16":
            found = getattr(array, "dtype", type(array).__name__)
            raise TypeError(f"batch.numpy: images are {found}, expected memory of cgnrt that NumPy has.")
        fetched: np.ndarray = array.numpy()
        return fetched

    def order_before(self, out: Any) -> None:
        import torch

        torch.cuda.current_stream(out.device).wait_stream(
            torch.cuda.ExternalStream(self.stream.ptr, device=out.device)  # type: ignore[no-untyped-call]
        )


class CudaDevice(RenderDevice):
    """One stream of a GPU, and on it the engines and the composer. Arrays are `cgnrt.cuda.DeviceArray`s.

    All memory comes from the stream's pool, which keeps what is returned for the next batch. One request at a time is
    enqueued: `call` holds the lock for all of it.
    """

    chunk_pixels = BUSY_PIXELS
    ahead = "stream"

    def __init__(self, plan: Plan, choice: Choice, threads: int | None) -> None:
        super().__init__(plan, choice, threads)
        cuda.module()  # an error where there is no GPU
        self._index = choice.device.index
        self.stream: cuda.Stream = cuda.Stream(self._index)
        self._uploads = Uploads(self.stream)
        # Masks of zero and of one, with which the composer copies a background or a foreground unchanged.
        resolution = plan.manifest.resolution
        ends = np.stack([np.zeros((1, *resolution), np.float32), np.ones((1, *resolution), np.float32)])
        self._ends = self.empty(ends.shape)
        self._ends.upload(ends)
        black = np.zeros((1, 3, *resolution), np.float32)
        self._black = self.empty(black.shape)
        self._black.upload(black)
        self._networks = CudaNetworks(plan, choice, self.stream)

    @property
    def largest_batch(self) -> int | None:
        return largest_batch(self._networks.engines)

    @contextmanager
    def call(self) -> Iterator[None]:
        with self.lock:
            try:
                yield
            finally:
                self._networks.join()  # also after a network that failed

    def free_bytes(self) -> int:
        self.stream.synchronize()
        self.stream.trim()
        free: int = cuda.module().device(self._index)["free_bytes"]
        return free

    def empty(self, shape: tuple[int, ...], dtype: str = "float32") -> cuda.DeviceArray:
        return cuda.DeviceArray.empty(shape, dtype, self.stream)

    def upload(self, arrays: Sequence[np.ndarray]) -> list[cuda.DeviceArray]:
        return self._uploads.send(arrays)

    def draw_noise(
        self, draw: NoiseDraw, seed: int, indices: np.ndarray, uploaded: cuda.DeviceArray
    ) -> cuda.DeviceArray:
        drawn: cuda.DeviceArray = draw.draw(seed, uploaded, self.stream)
        return drawn

    def scale_rows(self, rows: cuda.DeviceArray, factors: cuda.DeviceArray) -> cuda.DeviceArray:
        scaled: cuda.DeviceArray = cuda.module().scale_rows(rows, factors, stream=self.stream)
        return scaled

    def embedding(self, mechanism: str, labels: cuda.DeviceArray) -> cuda.DeviceArray:
        table = self._networks.tables[mechanism]
        found: cuda.DeviceArray = cuda.module().gather_rows(table, labels, stream=self.stream)
        return found

    def run(
        self, mechanism: str, inputs: Mapping[str, Any], into: Mapping[str, Any] | None = None
    ) -> dict[str, cuda.DeviceArray]:
        return self._networks.start(mechanism, inputs, into)

    def join(self) -> None:
        self._networks.join()

    def put(self, source: cuda.DeviceArray, target: cuda.DeviceArray, rows: np.ndarray) -> None:
        ends = [*(np.flatnonzero(np.diff(rows) != 1) + 1).tolist(), len(rows)]
        for low, high in zip([0, *ends], ends, strict=False):  # consecutive rows in one copy
            first = int(rows[low])
            cuda.module().copy(source[low:high], target[first : first + high - low], self.stream)

    def compose(
        self,
        pixels: PixelFormat,
        pictures: Mapping[str, Any],
        index: cuda.DeviceArray | None,
        moves: Moves,
        images: Any,
    ) -> None:
        compose_pictures(ops.compose, pixels, pictures, index, moves, images, stream=self.stream)

    def keep(
        self,
        pictures: Mapping[str, Any],
        rows: np.ndarray | None,
        moves: Moves,
        parts: Mapping[str, Any],
    ) -> None:
        # The composer copies and rolls: a foreground with a mask of one, anything else with a mask of zero.
        triples = []
        for name, part in parts.items():
            taken = np.arange(len(part)) if rows is None else rows[:, COLUMNS[name]]
            if moves.place is not None and name in PLACED:
                triples.append(placed_rows(name, taken).astype(np.int32))
                continue
            through = np.full(len(part), int(name == "foreground"))
            triples.append(np.stack([through, taken, taken], axis=1).astype(np.int32))
        for (name, part), index in zip(parts.items(), self.upload(triples), strict=True):
            picture = pictures[name]
            if moves.place is not None and name in PLACED:
                compose_placed_part(
                    *(ops.compose, self._ends, self._black, name, picture, index, moves, part),
                    stream=self.stream,
                )
                continue
            moved = moves.rolls if name in ROLLS else None
            ops.compose(self._ends, picture, picture, index, rolls=moved, out=part, stream=self.stream)

    def hand_out(
        self, labels: Sequence[Any], indices: Any, index: Any, place: Any, pictures: Sequence[Any]
    ) -> DeviceColumns:
        event = self.stream.record()  # consumers wait for this batch, not for the next one
        for array in (*pictures, *labels, indices, index, place):
            if isinstance(array, cuda.DeviceArray):
                array.ready(event)
        shape, texture, background = labels
        return CudaColumns((shape, texture, background), indices, index, place, self.stream)


class CudaNetworks:
    """Engines and embedding tables of a plan's three mechanisms, each on a stream of its own.

    What a mechanism reads and writes belongs to `stream`. The mechanism runs on its own stream, after what `stream`
    was given before the start; `join` makes `stream` wait for everything that was started.
    """

    def __init__(self, plan: Plan, choice: Choice, stream: cuda.Stream) -> None:
        self._stream = stream
        self._outputs = {name: output_shapes(network) for name, network in plan.networks.items()}
        self._streams = {name: cuda.Stream(stream.device) for name in plan.networks}
        self._started: list[tuple[cuda.Stream, list[cuda.DeviceArray]]] = []
        self.tables: dict[str, cuda.DeviceArray] = {}
        for name, network in plan.networks.items():
            table = np.ascontiguousarray(network.embedding, np.float32)
            self.tables[name] = cuda.DeviceArray.empty(table.shape, "float32", stream)
            self.tables[name].upload(table)
        self.engines = load_engines(plan, lambda name: choice.load(name, stream=self._streams[name]))

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
        # After the allocations: earlier work on `stream` may still use their memory.
        own.wait_for(self._stream)
        # Recorded before it runs: one that fails may have enqueued some of its work.
        self._started.append((own, [*inputs.values(), *outputs.values()]))
        self.engines[name].run(inputs, outputs, own)
        return outputs

    def join(self) -> None:
        """Make `stream` wait for what was started. Until then no memory that was used may be returned to it."""
        for own, _ in self._started:
            self._stream.wait_for(own)
        self._started.clear()


@dataclass
class _Slot:
    buffer: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint8))
    done: cuda.Event | None = None


class Uploads:
    """A ring of page-locked buffers of one stream, from which small host arrays go to the GPU: many in one copy."""

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
