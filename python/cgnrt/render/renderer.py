"""From a checked request to a Batch: networks chunk by chunk, then the composer; and the pool that is kept."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from cgnrt._support.values import host_array, refuse_masked
from cgnrt.backends import Choice
from cgnrt.batch import Batch
from cgnrt.plan import MECHANISMS, PICTURES, Plan
from cgnrt.render.banks import BankPictures
from cgnrt.render.device import (
    Moves,
    Opening,
    RenderDevice,
    Uploaded,
    largest_chunk,
    output_shapes,
)
from cgnrt.render.inputs import RequestInputs, network_inputs
from cgnrt.render.pools import Pool, PoolKey, PoolLayout, PoolNoise
from cgnrt.request.options import PixelFormat
from cgnrt.request.resolver import Request
from cgnrt.sampling import Labels, Sampler

# Images that a pool composes in one call of the compiled code: 16,384 of 32 x 32, a tenth of a second's work.
_COMPOSED_PIXELS = 1 << 24
# Images of banks that are decoded first.
_DECODED_PIXELS = 1 << 22

# Images of fewer bytes are made without asking for their memory first.
_ROOM_BYTES = 64 << 20


class Renderer:
    """Renders the requests of one Generator on the chosen device, which is opened on first use. Keeps its last pool."""

    def __init__(
        self,
        plan: Plan,
        sampler: Sampler,
        pixels: PixelFormat,
        choice: Choice,
        threads: int | None,
        bank_cache_bytes: int,
    ) -> None:
        self._plan = plan
        self._sampler = sampler
        self._pixels = pixels
        self._opening = Opening(plan, choice, threads)
        self._banks = BankPictures(plan, bank_cache_bytes, threads)
        self._resolution = (plan.manifest.resolution[0], plan.manifest.resolution[1])
        self._shapes = {
            output: shape for m in plan.mechanisms.values() for output, shape in output_shapes(m).items()
        }
        self._has_rolls = any(m.spec.roll for m in plan.mechanisms.values())
        self._pool: Pool | None = None

    @property
    def stream(self) -> Any:
        """The stream that batches are made on, such as a `cgnrt.cuda.Stream`; None on the CPU."""
        return self._opening.device().stream

    @property
    def ahead(self) -> str | None:
        """How batches are made before they are asked for, as `RenderDevice.ahead` has it."""
        return self._opening.kind.ahead

    def with_pixels(self, pixels: PixelFormat) -> Renderer:
        """Images of another form from the same engines, with a pool of its own. The two take turns."""
        other = copy.copy(self)
        other._pixels = pixels
        other._pool = None
        return other

    def close(self) -> None:
        """Let go of the engines and the pool; renderers that `with_pixels` made of this one are closed, too."""
        self._opening.close()
        self._banks.close()
        self._pool = None

    def drop_pool(self) -> None:
        """Forget the kept pool."""
        self._pool = None

    def render(
        self,
        request: Request,
        parts: bool,
        out: Any,
        embeddings: Mapping[str, np.ndarray] | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> Batch:
        """Run the mechanisms for every sample.

        Args:
          parts: keep the pictures, too.
          out: where to write the images; None takes new memory.
          embeddings: (n, e) each, instead of those of the labels.
          progress: called after each chunk with the number of its images.
        """
        (batch,) = self._render([request], parts, out, embeddings, progress)
        return batch

    def render_variants(self, requests: Sequence[Request], parts: bool = False) -> list[Batch]:
        """Batches of requests that differ in labels only. A mechanism runs once for those that agree in its labels.

        Args:
          parts: keep the pictures of the first request, which its batch then has.
        """
        return self._render(requests, parts) if requests else []

    def render_pool(
        self, where: np.ndarray, key: PoolKey, place: np.ndarray | None, parts: bool, out: Any
    ) -> Batch:
        """Compose samples from pool entries; those that the kept pool lacks are made first.

        Args:
          where: int64 (n,) stream indices.
          place: (n, 4) float32, where the objects are put, or None.
          parts, out: as for `render`.
        """
        n, options = len(where), key.options
        kept_pool = self._pool
        if kept_pool is not None and kept_pool.key == key:
            layout = kept_pool.layout
        else:
            chunk = largest_chunk(self._resolution, self._opening.kind.chunk_pixels)
            composed = largest_chunk(self._resolution, _COMPOSED_PIXELS)
            layout = PoolLayout(key.sizes, key.refresh, chunk, composed)
        entries = layout.entries(self._sampler.pool_picks(options.seed, key.sizes, where), where)
        rolls = self._sampler.rolls(options, where) if self._has_rolls else None
        with self._call(n, layout.rows, parts) as device:
            images = self._images(device, n, out)
            kept = self._parts(device, n) if parts else {}
            shape, texture, background = np.empty((3, n), np.int64)
            labels = Labels(shape, texture, background)
            uploaded = device.uploaded([where, entries, rolls, place])
            for part in layout.parts(n):  # none where there is no sample: that needs no pool
                with device.lock:
                    pool = self._pool_of(device, key, layout, parts)
                    found = uploaded[entries][part]
                    rows, index = pool.find(device, entries[part], found, where[part])
                    moves = Moves.of(uploaded, rolls, place, part)
                    picture_rows, index = pool.picture_rows(rows, index)
                    device.compose(self._pixels, pool.pictures, index, moves, images[part])
                    if kept:
                        device.keep(pool.pictures, picture_rows, moves, _cut(kept, part))
                    for column, chosen in zip(labels, pool.labels(rows), strict=True):
                        column[part] = chosen
            return Batch(
                images=device.shown(self._pixels, images),
                labels=labels,
                seed=options.seed,
                indices=where,
                index=entries,
                place=place,
                draw_noise=PoolNoise(self._sampler, options, entries, where),
                on_device=device.hand_out(
                    device.upload(labels),
                    uploaded[where],
                    uploaded[entries],
                    None if place is None else uploaded[place],
                    [images, *kept.values()],
                ),
                **kept,
            )

    def check_room(self, n: int) -> None:
        """Refuse more images than the host's memory could ever hold, before anything is drawn for them.

        Raises:
          MemoryError: the system does not give the memory.
        """
        size = self._pixels.item_bytes * math.prod(self._pixels.shape(n, *self._resolution))
        if size < _ROOM_BYTES or self._opening.name != "cpu":  # another device says what fits
            return
        try:
            np.empty(size, np.uint8)
        except (MemoryError, ValueError) as error:
            raise MemoryError(
                f"sample: {n} images need {size / 2**30:,.1f} GiB ({size:,} bytes) at once, more than the system has. "
                "Use Generator.batches or Generator.stream, which hold a batch at a time; cgnrt generate writes files."
            ) from error

    def check_out(self, out: Any) -> None:
        """Refuse memory for images that has another form than they have, however many they are."""
        with self._call(0, (), False) as device:
            self._images(device, 0, out[:0])

    # Steps.

    def _render(
        self,
        requests: Sequence[Request],
        parts: bool = False,
        out: Any = None,
        embeddings: Mapping[str, np.ndarray] | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> list[Batch]:
        """Batches of requests that differ in labels only; arguments as for `render`. Parts are those of the first."""
        first = requests[0]
        n = len(first.indices)
        read = RequestInputs(requests, embeddings or {}, has_rolls=self._has_rolls)
        with self._call(n * len(requests), (), parts) as device:
            images = [self._images(device, n, out) for _ in requests]
            kept = self._parts(device, n) if parts else {}
            uploaded = device.uploaded(read.arrays())
            for part in self._chunks(device, n):
                noise = read.draw(device, uploaded, part)
                moves = Moves.of(uploaded, read.rolls, read.place, part)
                with device.lock if self._banks.decodes else device.turn():
                    found = self._pictures(device, read, noise, uploaded, part)
                    device.join()
                    for (pictures, rows), target in zip(found, images, strict=True):
                        device.compose(self._pixels, pictures, rows, moves, target[part])
                    if kept:
                        device.keep(*found[0], moves, _cut(kept, part))
                if progress is not None:
                    progress(part.stop - part.start)
            return [
                Batch(
                    images=device.shown(self._pixels, target),
                    labels=labels,
                    seed=request.options.seed,
                    indices=request.indices,
                    place=read.place,
                    draw_noise=request.noise,
                    on_device=device.hand_out(
                        [uploaded[column] for column in labels],
                        uploaded[first.indices],
                        None,
                        None if read.place is None else uploaded[read.place],
                        [target, *kept.values()],
                    ),
                    **(kept if request is first else {}),
                )
                for request, labels, target in zip(requests, read.labels, images, strict=True)
            ]

    def _chunks(self, device: RenderDevice, n: int) -> Iterator[slice]:
        """Slices of n samples that are made at once; of more where no network runs."""
        if self._plan.networks or not device.composes_banks:
            return device.chunks(n, self._resolution)
        pixels = _DECODED_PIXELS if self._banks.decodes else _COMPOSED_PIXELS
        size = largest_chunk(self._resolution, pixels)
        return (slice(low, min(low + size, n)) for low in range(0, n, size))

    def _pictures(
        self,
        device: RenderDevice,
        read: RequestInputs,
        noise: Mapping[str, Any],
        uploaded: Uploaded,
        part: slice,
    ) -> list[tuple[dict[str, Any], np.ndarray | None]]:
        """The pictures of one chunk for each of the requests; a mechanism runs once for those of equal labels.

        Returns:
          For each request its pictures, and the rows of them (n, 3) where a bank is composed in place.
        """
        pictures: list[dict[str, Any]] = [{} for _ in read.labels]
        in_place: list[dict[int, np.ndarray]] = [{} for _ in read.labels]
        networks, banks = self._plan.networks, self._plan.banks
        truncation = None if read.truncation is None else uploaded[read.truncation][part]
        for column, name in enumerate(MECHANISMS):
            if name in banks:
                picked = [banks[name].entries(labels[column][part], noise[name]) for labels in read.labels]
                if device.composes_banks:
                    # Those of all requests at once: what is kept of decoded pictures is good until the next call.
                    every = picked[0] if len(picked) == 1 else np.concatenate(picked)
                    stored, rows = self._banks.find(name, every)
                    for k, found in enumerate(pictures):
                        found[PICTURES[name]] = stored
                        in_place[k][column] = rows[k * len(picked[0]) : (k + 1) * len(picked[0])]
                    continue
                for found, entries in zip(pictures, picked, strict=True):
                    found |= device.bank_pictures(name, self._banks.read(name, entries))
                continue
            made: dict[bytes, dict[str, Any]] = {}
            for labels, found in zip(read.labels, pictures, strict=True):
                key = labels[column][part].tobytes() if len(pictures) > 1 else b""
                if key not in made:
                    if read.embeddings:
                        embedding = uploaded[read.embeddings[name]][part]
                    else:
                        embedding = device.embedding(name, uploaded[labels[column]][part])
                    inputs = network_inputs(networks[name], noise[name], embedding, truncation)
                    made[key] = device.run(name, inputs, self._own(device, name, part, len(pictures)))
                found |= made[key]
        n = part.stop - part.start
        return [
            (found, np.stack([rows.get(c, np.arange(n)) for c in range(3)], axis=1) if rows else None)
            for found, rows in zip(pictures, in_place, strict=True)
        ]

    def _own(self, device: RenderDevice, name: str, part: slice, runs: int) -> dict[str, Any] | None:
        """Memory for a picture that has to outlast the next run of its mechanism."""
        if runs == 1:
            return None
        picture = PICTURES[name]
        return {picture: device.empty((part.stop - part.start, *self._shapes[picture]))}

    def _pool_of(self, device: RenderDevice, key: PoolKey, layout: PoolLayout, parts: bool) -> Pool:
        """The kept pool, if it is this one, or a new one. The caller holds the device's lock."""
        pool = self._pool
        if pool is not None and pool.key == key and pool.has(parts=parts):
            return pool
        # Not kept until it is whole; and an old one goes before a new one is made: they may not fit together.
        self._pool = None
        if pool is None or pool.key != key:
            pool = None
            pool = Pool(key, layout, self._plan, self._sampler, self._banks)
        pool.prepare(device, parts=parts)
        self._pool = pool
        return pool

    def _images(self, device: RenderDevice, n: int, out: Any) -> Any:
        """Where n images go: `out` if it is fit for them, else new memory."""
        shape = self._pixels.shape(n, *self._resolution)
        if out is None:
            return device.empty(shape, self._pixels.dtype)
        refuse_masked("sample", out=out)
        if tuple(getattr(out, "shape", ())) != shape:
            found = tuple(out.shape) if hasattr(out, "shape") else out
            raise ValueError(f"sample: out is {found!r}, expected shape {shape}.")
        # Composing no image tells what else is wrong with `out` before the networks run.
        device.compose(self._pixels, self._parts(device, 0), None, Moves(), out[:0])
        return out

    def _parts(self, device: RenderDevice, n: int) -> dict[str, Any]:
        """Memory for every named output of the plan, float32 (n, c, h, w)."""
        return {name: device.empty((n, *shape)) for name, shape in self._shapes.items()}

    @contextmanager
    def _call(self, n: int, pool_rows: tuple[int, ...], parts: bool) -> Iterator[RenderDevice]:
        """Around everything that one request for n images does; lack of memory says what would fit."""
        device = self._opening.device()
        # A plan that was overwritten, or cut short, must not be read, and what was read of it not be handed out.
        self._plan.check_unchanged()
        with device.call():
            try:
                yield device
                self._plan.check_unchanged()
            except MemoryError as error:
                self._pool = None
                free_bytes = device.free_bytes()
                if free_bytes is None:
                    raise
                raise MemoryError(
                    self._what_fits(device, n, pool_rows, parts, free_bytes) + f" ({error})"
                ) from error

    def _what_fits(
        self, device: RenderDevice, n: int, pool_rows: tuple[int, ...], parts: bool, free_bytes: int
    ) -> str:
        picture_bytes = {name: 4 * math.prod(shape) for name, shape in self._shapes.items()}
        image_bytes = self._pixels.item_bytes * math.prod(self._pixels.shape(1, *self._resolution))
        image_bytes += sum(picture_bytes.values()) if parts else 0
        if pool_rows:
            rows = zip(MECHANISMS, pool_rows, strict=True)
            fixed_bytes = sum(count * picture_bytes[PICTURES[name]] for name, count in rows)
        else:
            largest = max((part.stop - part.start for part in device.chunks(n, self._resolution)), default=0)
            fixed_bytes = largest * sum(picture_bytes.values())
        fits = max(0, (free_bytes - fixed_bytes) // image_bytes)
        beside = "the pools" if pool_rows else "the networks' pictures"
        return (
            f"sample: {n} images need {n * image_bytes:,} bytes, and {beside} {fixed_bytes:,}; {free_bytes:,} are free "
            f"on {self._opening.name}, which holds {fits} images beside them."
        )


@dataclass(frozen=True)
class Counterfactuals:
    """Images of the same noise that differ in labels only (Sec. 2.2): n samples, for any labels."""

    renderer: Renderer
    request: Request

    @property
    def labels(self) -> Labels:
        """What the samples draw with `labels="independent"`, int64 (n,) each; of `distinct` classes if asked for."""
        return self.request.labels

    @property
    def shared_labels(self) -> Labels:
        """What they draw with `labels="shared"`."""
        options = self.request.options._replace(labels="shared", distinct=False)
        draw = self.request.sampler.labels
        return Labels(*(draw(options, name, self.request.indices) for name in MECHANISMS))

    def render(self, labels: Sequence[Labels], *, parts: bool = False) -> list[Batch]:
        """A Batch for each of the labels, int64 (n,) class indices each, to the last bit as a call would give it.

        A mechanism runs once for the variants that agree in its labels; images of all variants are held at once.

        Args:
          parts: the first batch also has its mask, foreground, background, and pre_mask where the plan has it.
        Raises:
          ValueError: labels have another shape, or a class is not there.
        """
        n = len(self.request.indices)
        variants = [
            Labels(*(host_array("render", "labels", column) for column in variant)) for variant in labels
        ]
        for k, variant in enumerate(variants):
            for name, column in zip(MECHANISMS, variant, strict=True):
                classes = self.request.sampler.mechanisms[name].classes
                if column.shape != (n,) or column.dtype.kind != "i":
                    raise ValueError(
                        f"render: labels[{k}] of {name} are {column.dtype} {column.shape}, expected int64 ({n},)."
                    )
                if n and not 0 <= column.min() <= column.max() < classes:
                    raise ValueError(
                        f"render: labels[{k}] of {name} are {column.min()}..{column.max()}, expected "
                        f"0..{classes - 1}."
                    )
            for name, leader in self.request.sampler.following.items():
                if (getattr(variant, name) != getattr(variant, leader)).any():
                    raise ValueError(
                        f"render: labels[{k}] of {name} are others than those of {leader}, expected the same: {name} "
                        f"follows {leader} in this plan."
                    )
        variants = [Labels(*(column.astype(np.int64) for column in variant)) for variant in variants]
        requests = [self.request._replace(labels=variant) for variant in variants]
        return self.renderer.render_variants(requests, parts)


def _cut(arrays: Mapping[str, Any], part: slice) -> dict[str, Any]:
    return {name: array[part] for name, array in arrays.items()}
