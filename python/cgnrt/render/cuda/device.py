"""A GPU as a render device: everything is enqueued on one stream, and the host waits for nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from cgnrt import cuda, ops
from cgnrt.backends import Choice
from cgnrt.backends.base import BUSY_PIXELS
from cgnrt.batch import DeviceColumns
from cgnrt.plan import Plan
from cgnrt.render.cuda.networks import CudaNetworks
from cgnrt.render.cuda.uploads import Uploads
from cgnrt.render.device import COLUMNS, ROLLS, RenderDevice
from cgnrt.render.pixels import PixelFormat
from cgnrt.sampling import NoiseDraw


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

    All memory is of the stream's pool, which keeps what it was given back for the next batch. Requests take turns as
    a whole: the order of the stream is theirs.
    """

    chunk_pixels = BUSY_PIXELS

    def __init__(self, plan: Plan, choice: Choice, threads: int | None) -> None:
        super().__init__(plan, choice, threads)
        cuda.module()  # says why where there is none
        self._index = choice.device.index
        self.stream: cuda.Stream = cuda.Stream(self._index)
        self._uploads = Uploads(self.stream)
        # Masks of zero and of one: a picture under the one, or behind the other, comes through unchanged.
        resolution = plan.manifest.resolution
        ends = np.stack([np.zeros((1, *resolution), np.float32), np.ones((1, *resolution), np.float32)])
        self._ends = self.empty(ends.shape)
        self._ends.upload(ends)
        self._networks = CudaNetworks(plan, choice, self.stream)

    @property
    def largest_batch(self) -> int | None:
        return self._networks.largest_batch

    @contextmanager
    def call(self) -> Iterator[None]:
        with self.lock:
            try:
                yield
            finally:
                self._networks.join()  # also behind a network that failed half-way

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
        rolls: cuda.DeviceArray | None,
        images: Any,
    ) -> None:
        ops.compose(
            pictures["mask"],
            pictures["foreground"],
            pictures["background"],
            index,
            rolls=rolls,
            out=images,
            stream=self.stream,
            **pixels.compose_options,
        )

    def keep(
        self,
        pictures: Mapping[str, Any],
        rows: np.ndarray | None,
        rolls: cuda.DeviceArray | None,
        parts: Mapping[str, Any],
    ) -> None:
        # The composer copies and rolls: a foreground under a mask of one, anything else behind a mask of zero.
        triples = []
        for name, part in parts.items():
            taken = np.arange(len(part)) if rows is None else rows[:, COLUMNS[name]]
            through = np.full(len(part), int(name == "foreground"))
            triples.append(np.stack([through, taken, taken], axis=1).astype(np.int32))
        for (name, part), index in zip(parts.items(), self.upload(triples), strict=True):
            picture, moved = pictures[name], rolls if name in ROLLS else None
            ops.compose(self._ends, picture, picture, index, rolls=moved, out=part, stream=self.stream)

    def hand_out(
        self, labels: Sequence[Any], indices: Any, index: Any, pictures: Sequence[Any]
    ) -> DeviceColumns:
        event = self.stream.record()  # consumers wait for this batch, not for the next one
        for array in (*pictures, *labels, indices, index):
            if isinstance(array, cuda.DeviceArray):
                array.ready(event)
        shape, texture, background = labels
        return CudaColumns((shape, texture, background), indices, index, self.stream)
