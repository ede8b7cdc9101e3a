"""From a checked request to a Batch on a device: everything is enqueued, nothing is waited for."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from cgnrt import cuda
from cgnrt.backends import Choice
from cgnrt.backends.base import BUSY_PIXELS
from cgnrt.batch import Batch, DeviceColumns
from cgnrt.plan import Plan
from cgnrt.render.cuda.composer import CudaComposer
from cgnrt.render.cuda.inputs import RequestInputs
from cgnrt.render.cuda.networks import CudaNetworks
from cgnrt.render.cuda.pools import CudaPool, build_pool
from cgnrt.render.cuda.renewing import CudaRenewingPool
from cgnrt.render.cuda.uploads import Uploads
from cgnrt.render.networks import PICTURES, chunks, largest_chunk
from cgnrt.render.pixels import PixelFormat
from cgnrt.render.pools import PoolKey, PoolNoise, Renewal
from cgnrt.render.renderer import Renderer
from cgnrt.request import Request
from cgnrt.sampling import MECHANISMS, DrawOptions, Labels, Sampler

# The column of a pool index that picks each output.
_COLUMNS = {"mask": 0, "pre_mask": 0, "foreground": 1, "background": 2}


class _Session:
    """What a generator holds on its device: a stream, and on it the engines, the composer and the last pool."""

    def __init__(self, plan: Plan, choice: Choice, pixels: PixelFormat) -> None:
        cuda.module()
        self.stream = cuda.Stream(choice.device.index)
        self.uploads = Uploads(self.stream)
        self.composer = CudaComposer(plan, pixels, self.stream)
        self.networks = CudaNetworks(plan, choice, self.stream)
        self.pool: CudaPool | CudaRenewingPool | None = None

    def with_pixels(self, plan: Plan, pixels: PixelFormat) -> _Session:
        """Another composer on the same stream and engines, with a pool of its own."""
        other = copy.copy(self)
        other.composer = CudaComposer(plan, pixels, self.stream)
        other.pool = None
        return other


class CudaRenderer(Renderer):
    """Renders the requests of one Generator on one device; the counterpart of `rendering.Renderer`.

    All memory is of one stream's pool, which keeps what it was given for the next batch.
    """

    def __init__(self, plan: Plan, pixels: PixelFormat, sampler: Sampler, choice: Choice) -> None:
        self._plan = plan
        self._pixels = pixels
        self._sampler = sampler
        self._choice = choice
        self._resolution = (plan.manifest.resolution[0], plan.manifest.resolution[1])
        self._outputs = {spec.name: spec for m in plan.mechanisms.values() for spec in m.spec.outputs}
        self._session: _Session | None = None
        self._lock = threading.RLock()

    @property
    def stream(self) -> cuda.Stream:
        """The stream that batches are made on."""
        with self._lock:
            return self._open().stream

    def drop_pool(self) -> None:
        """Forget the kept pool."""
        with self._lock:
            if self._session is not None:
                self._session.pool = None

    def with_pixels(self, pixels: PixelFormat) -> CudaRenderer:
        """Images of another form from the same engines, which are opened; the two take turns."""
        other = copy.copy(self)
        other._pixels = pixels
        with self._lock:
            other._session = self._open().with_pixels(self._plan, pixels)
        return other

    def check_out(self, out: Any) -> None:
        """Refuse memory for images that has another form than they have, however many they are."""
        with self._turn(0, (), False) as session:
            session.composer.images(0, out[:0])

    def render(
        self,
        request: Request,
        parts: bool,
        out: Any,
        embeddings: Mapping[str, np.ndarray] | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> Batch:
        """Run the mechanisms for every sample; arguments as `Renderer.render` has them."""
        n = len(request.indices)
        with self._turn(n, (), parts) as session:
            images = session.composer.images(n, out)
            kept = self._empty_parts(n) if parts else {}
            inputs = self._inputs(request, embeddings)
            for part in self._chunks(n):
                (pictures,) = self._run_networks([inputs], part)
                rolls = inputs.rolls(part)
                session.composer.compose(pictures, None, rolls, images[part])
                entries = np.arange(part.stop - part.start)
                for name, array in kept.items():
                    self._keep(name, pictures[name], entries, rolls, array[part])
                if progress is not None:
                    progress(part.stop - part.start)
            return self._batch(request, images, inputs, kept)

    def render_variants(self, requests: Sequence[Request]) -> list[Batch]:
        """Batches of requests that differ in labels alone. A mechanism runs once for those that agree in its labels."""
        if not requests:
            return []
        n = len(requests[0].indices)
        with self._turn(n * len(requests), (), False) as session:
            images = [session.composer.images(n, None) for _ in requests]
            inputs = [self._inputs(request, None) for request in requests]
            for part in self._chunks(n):
                found = self._run_networks(inputs, part, [request.labels for request in requests])
                for pictures, target in zip(found, images, strict=True):
                    session.composer.compose(pictures, None, inputs[0].rolls(part), target[part])
            return [
                self._batch(request, target, sent, {})
                for request, target, sent in zip(requests, images, inputs, strict=True)
            ]

    def render_pool(
        self,
        where: np.ndarray,
        key: PoolKey,
        parts: bool,
        out: Any,
    ) -> Batch:
        """Compose samples from pool entries; those that the kept pool lacks are made first."""
        if key.refresh is not None:
            return self._render_renewing(where, key, key.refresh, parts, out)
        options, sizes = key.options, key.sizes
        index = self._sampler.pool_picks(options.seed, sizes, where)
        with self._turn(len(where), sizes, parts) as session:
            images = session.composer.images(len(where), out)
            labels = Labels(*np.empty((3, 0), np.int64))
            kept = self._empty_parts(len(where)) if parts else {}
            if len(where):  # no sample needs no pool
                pool = self._held_pool(key, parts)
                labels = Labels(*(pool.labels[column][index[:, column]] for column in range(3)))
            sent = self._send_pool_columns(where, options, index, labels)
            if len(where):
                moved = sent["rolls"] if session.composer.has_rolls else None
                session.composer.compose(pool.pictures, sent["index"], moved, images)
                for name, array in kept.items():
                    self._keep(name, pool.pictures[name], index[:, _COLUMNS[name]], moved, array)
            return self._pool_batch(where, options, index, labels, sent, images, kept)

    def _render_renewing(
        self,
        where: np.ndarray,
        key: PoolKey,
        refresh: int,
        parts: bool,
        out: Any,
    ) -> Batch:
        options, sizes = key.options, key.sizes
        n = len(where)
        renewal = Renewal(sizes, refresh, largest_chunk(self._resolution, BUSY_PIXELS))
        entries = renewal.entries(self._sampler.pool_picks(options.seed, sizes, where), where)
        labels = renewal.labels(self._sampler, options, entries)
        with self._turn(n, renewal.slots, parts) as session:
            images = session.composer.images(n, out)
            kept = self._empty_parts(n) if parts else {}
            sent = self._send_pool_columns(where, options, entries, labels)
            for part in renewal.parts(n):
                pool = self._held_renewing_pool(key, renewal, parts)
                rows, index = pool.index(entries[part], where[part], self._sampler, self._chunks)
                moved = sent["rolls"][part] if session.composer.has_rolls else None
                session.composer.compose(pool.pictures, index, moved, images[part])
                for name, array in kept.items():
                    self._keep(name, pool.pictures[name], rows[:, _COLUMNS[name]], moved, array[part])
            return self._pool_batch(where, options, entries, labels, sent, images, kept)

    # Steps.

    def _open(self) -> _Session:
        if self._session is None or cuda.forked():  # which cuda.module() refuses
            self._session = _Session(self._plan, self._choice, self._pixels)
        return self._session

    @contextmanager
    def _turn(self, n: int, pool_sizes: tuple[int, ...], parts: bool) -> Iterator[_Session]:
        """One caller at a time; whatever happens, the streams are joined, and lack of memory says what would fit."""
        with self._lock:
            session = self._open()
            try:
                yield session
            except MemoryError as error:
                raise MemoryError(self._what_fits(n, pool_sizes, parts, error)) from error
            finally:
                session.networks.join()

    def _what_fits(self, n: int, pool_sizes: tuple[int, ...], parts: bool, error: MemoryError) -> str:
        session = self._open()
        picture_bytes = {name: 4 * _size(spec.shape[1:]) for name, spec in self._outputs.items()}
        item_bytes = (
            2 if self._pixels.dtype in ("float16", "bfloat16") else 1 if self._pixels.dtype == "uint8" else 4
        )
        image_bytes = item_bytes * _size(self._pixels.shape(1, *self._resolution))
        image_bytes += sum(picture_bytes.values()) if parts else 0
        if pool_sizes:
            pictures = (PICTURES[name] for name in MECHANISMS)
            fixed_bytes = sum(size * picture_bytes[p] for size, p in zip(pool_sizes, pictures, strict=True))
        else:
            largest = max((part.stop - part.start for part in self._chunks(n)), default=0)
            fixed_bytes = largest * sum(picture_bytes.values())
        session.pool = None
        session.stream.synchronize()
        session.stream.trim()
        free_bytes = cuda.module().device(session.stream.device)["free_bytes"]
        fits = max(0, (free_bytes - fixed_bytes) // image_bytes)
        beside = "the pools" if pool_sizes else "the networks' pictures"
        return (
            f"sample: {n} images want {n * image_bytes:,} bytes, and {beside} {fixed_bytes:,}; {free_bytes:,} are free "
            f"on {self._choice.device}, which holds {fits} images beside them. ({error})"
        )

    def _chunks(self, n: int) -> Iterator[slice]:
        most = self._open().networks.largest_batch
        pixels = BUSY_PIXELS if most is None else min(BUSY_PIXELS, most * _size(self._resolution))
        return chunks(n, self._resolution, pixels)

    def _inputs(self, request: Request, embeddings: Mapping[str, np.ndarray] | None) -> RequestInputs:
        session = self._open()
        return RequestInputs(
            request,
            session.uploads,
            session.stream,
            has_rolls=session.composer.has_rolls,
            embeddings=embeddings,
        )

    def _run_networks(
        self, inputs: Sequence[RequestInputs], part: slice, labels: Sequence[Labels] = ()
    ) -> list[dict[str, cuda.DeviceArray]]:
        """Pictures of one chunk for each of the inputs, which have the same noise; of equal labels only once."""
        session = self._open()
        noise = inputs[0].noise(part)
        truncation = inputs[0].truncation(part)
        pictures: list[dict[str, cuda.DeviceArray]] = [{} for _ in inputs]
        for column, name in enumerate(MECHANISMS):
            made: dict[bytes, dict[str, cuda.DeviceArray]] = {}
            for k, sent in enumerate(inputs):
                key = np.asarray(labels[k][column][part], np.int64).tobytes() if labels else b""
                if key not in made:
                    embedding = sent.embedding(name, session.networks.tables[name], part)
                    made[key] = session.networks.start(name, noise[name], embedding, truncation)
                pictures[k] |= made[key]
        session.networks.join()
        return pictures

    def _held_renewing_pool(self, key: PoolKey, renewal: Renewal, parts: bool) -> CudaRenewingPool:
        session = self._open()
        pool = session.pool
        if not isinstance(pool, CudaRenewingPool) or pool.key != key or not pool.has(parts=parts):
            # The old pool goes before the new one is made: large pictures do not fit twice.
            pool = session.pool = None
            pool = session.pool = CudaRenewingPool(
                key, renewal, self._plan, session.networks, session.uploads, session.stream, parts=parts
            )
        return pool

    def _held_pool(self, key: PoolKey, parts: bool) -> CudaPool:
        session = self._open()
        pool = session.pool if isinstance(session.pool, CudaPool) else None
        same = pool is not None and pool.key == key
        if pool is None or not same or not pool.has(self._plan, parts=parts):
            kept = pool.pictures if pool is not None and same else {}
            # The old pool goes before the new one is made: large pictures do not fit twice.
            pool = session.pool = None
            pool = session.pool = build_pool(
                key,
                self._plan,
                self._sampler,
                session.networks,
                session.uploads,
                session.stream,
                self._chunks,
                parts=parts,
                kept=kept,
            )
        return pool

    def _empty_parts(self, n: int) -> dict[str, Any]:
        stream = self._open().stream
        return {
            name: cuda.DeviceArray.empty((n, *(int(size) for size in spec.shape[1:])), "float32", stream)
            for name, spec in self._outputs.items()
        }

    def _keep(
        self,
        name: str,
        picture: cuda.DeviceArray,
        entries: np.ndarray,
        rolls: cuda.DeviceArray | None,
        out: cuda.DeviceArray,
    ) -> None:
        session = self._open()
        rows = session.uploads.send({"rows": session.composer.rows(name, entries)})["rows"]
        session.composer.keep(name, picture, rows, rolls, out)

    def _send_pool_columns(
        self, where: np.ndarray, options: DrawOptions, index: np.ndarray, labels: Labels
    ) -> dict[str, cuda.DeviceArray]:
        columns = {f"label {name}": column for name, column in zip(MECHANISMS, labels, strict=True)}
        rolls = self._sampler.rolls(options, where)
        return self._open().uploads.send({"indices": where, "index": index, "rolls": rolls, **columns})

    def _pool_batch(
        self,
        where: np.ndarray,
        options: DrawOptions,
        index: np.ndarray,
        labels: Labels,
        sent: Mapping[str, cuda.DeviceArray],
        images: Any,
        kept: dict[str, Any],
    ) -> Batch:
        shape, texture, background = (sent[f"label {name}"] for name in MECHANISMS)
        there = (shape, texture, background)
        on_device = DeviceColumns(there, sent["indices"], sent["index"], self._open().stream)
        self._mark_ready(images, on_device, kept)
        return Batch(
            images=images,
            labels=labels,
            seed=options.seed,
            indices=where,
            index=index,
            draw_noise=PoolNoise(self._sampler, options, index, where),
            on_device=on_device,
            **kept,
        )

    def _batch(self, request: Request, images: Any, inputs: RequestInputs, kept: dict[str, Any]) -> Batch:
        on_device = DeviceColumns(inputs.labels, inputs.indices, None, self._open().stream)
        self._mark_ready(images, on_device, kept)
        return Batch(
            images=images,
            labels=request.labels,
            seed=request.options.seed,
            indices=request.indices,
            draw_noise=request.noise,
            on_device=on_device,
            **kept,
        )

    def _mark_ready(
        self, images: Any, on_device: DeviceColumns, kept: Mapping[str, cuda.DeviceArray]
    ) -> None:
        """Consumers wait for this batch, not for the next one."""
        event = self._open().stream.record()
        arrays = [images, *on_device.labels, on_device.indices, on_device.index, *kept.values()]
        for array in arrays:
            if isinstance(array, cuda.DeviceArray):
                array.ready(event)


def _size(shape: Sequence[int | str]) -> int:
    return int(np.prod([int(extent) for extent in shape], dtype=np.int64))
