"""From a checked request to a Batch: networks chunk by chunk, then the composer; and the pool that is kept."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from cgnrt.backends import Choice
from cgnrt.batch import Batch
from cgnrt.plan import Plan
from cgnrt.render.composer import Composer
from cgnrt.render.networks import PICTURES, Networks, chunks, largest_chunk
from cgnrt.render.pixels import PixelFormat
from cgnrt.render.pools import Pool, PoolKey, PoolNoise, Renewal
from cgnrt.render.renewing import RenewingPool
from cgnrt.request import Request
from cgnrt.sampling import MECHANISMS, Labels, Sampler

# The column of a pool index that picks each output.
_COLUMNS = {"mask": 0, "pre_mask": 0, "foreground": 1, "background": 2}


class Renderer:
    """Renders the requests of one Generator. Opens its engines on first use in each process; keeps its last pool."""

    def __init__(
        self, plan: Plan, pixels: PixelFormat, sampler: Sampler, choice: Choice, threads: int | None
    ) -> None:
        self._plan = plan
        self._composer = Composer(plan, pixels, threads)
        self._sampler = sampler
        self._choice = choice
        self._threads = threads
        self._resolution = (plan.manifest.resolution[0], plan.manifest.resolution[1])
        self._networks: Networks | None = None
        self._networks_pid = 0
        self._pool: Pool | RenewingPool | None = None

    def render(
        self,
        request: Request,
        parts: bool,
        out: Any,
        embeddings: Mapping[str, np.ndarray] | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> Batch:
        """Run the mechanisms for every sample; `embeddings`, (n, e) each, stand in for those of the labels.

        `progress` is called after each chunk with the number of its images.
        """
        n = len(request.indices)
        images = self._composer.images(n, out)
        kept: dict[str, Any] = self._composer.empty_parts(n) if parts else {}
        for part in chunks(n, self._resolution):
            networks = self._open_networks()
            noise = request.noise(part)
            truncation = None if request.truncation is None else request.truncation[part]
            with networks.lock:
                outputs: dict[str, np.ndarray] = {}
                for column, name in enumerate(MECHANISMS):
                    table = self._plan.mechanisms[name].embedding
                    embedding = (
                        table[request.labels[column][part]] if embeddings is None else embeddings[name][part]
                    )
                    outputs |= networks.run(name, noise[column], embedding, truncation)
                self._composer.compose(outputs, None, noise.rolls, images[part])
                if parts:
                    self._composer.keep(kept, outputs, noise.rolls, part)
            if progress is not None:
                progress(part.stop - part.start)
        return Batch(
            images=self._composer.wrap(images),
            labels=request.labels,
            seed=request.options.seed,
            indices=request.indices,
            draw_noise=request.noise,
            **kept,
        )

    def check_out(self, out: Any) -> None:
        """Refuse memory for images that has another form than they have, however many they are."""
        self._composer.images(0, out[:0])

    @property
    def stream(self) -> Any:
        """The `cgnrt.cuda.Stream` that batches are made on; None on the CPU."""
        return None

    def with_pixels(self, pixels: PixelFormat) -> Renderer:
        """Images of another form from the same engines, which are opened; the two take turns."""
        self._open_networks()
        other = copy.copy(self)
        other._composer = Composer(self._plan, pixels, self._threads)
        return other

    def drop_pool(self) -> None:
        """Forget the kept pool."""
        self._pool = None

    def render_variants(self, requests: Sequence[Request]) -> list[Batch]:
        """Batches of requests that differ in labels alone. A mechanism runs once for those that agree in its labels."""
        if not requests:
            return []
        first = requests[0]
        n = len(first.indices)
        images = [self._composer.images(n, None) for _ in requests]
        for part in chunks(n, self._resolution):
            networks = self._open_networks()
            noise = first.noise(part)
            truncation = None if first.truncation is None else first.truncation[part]
            pictures: list[dict[str, np.ndarray]] = [{} for _ in requests]
            with networks.lock:
                for column, name in enumerate(MECHANISMS):
                    picture, table = PICTURES[name], self._plan.mechanisms[name].embedding
                    made: dict[bytes, np.ndarray] = {}
                    for request, found in zip(requests, pictures, strict=True):
                        labels = request.labels[column][part]
                        key = labels.astype(np.int64).tobytes()
                        if key not in made:
                            outputs = networks.run(name, noise[column], table[labels], truncation)
                            made[key] = outputs[picture].copy()  # the engine's own until its next run
                        found[picture] = made[key]
            for found, target in zip(pictures, images, strict=True):
                self._composer.compose(found, None, noise.rolls, target[part])
        return [
            Batch(
                images=self._composer.wrap(target),
                labels=request.labels,
                seed=request.options.seed,
                indices=request.indices,
                draw_noise=request.noise,
            )
            for request, target in zip(requests, images, strict=True)
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
        images = self._composer.images(len(where), out)
        kept: dict[str, Any] = self._composer.empty_parts(0) if parts else {}
        chosen_labels = Labels(*np.empty((3, 0), np.int64))
        if len(where):  # no sample needs no pool
            pool = self._pool_of(key, parts)
            rolls = self._sampler.rolls(options, where)
            self._composer.compose(pool.pictures, index, rolls, images)
            kept = {name: pool.pictures[name][index[:, _COLUMNS[name]]] for name in kept}
            self._composer.keep(kept, kept, rolls, slice(None))
            chosen_labels = Labels(*(pool.labels[column][index[:, column]] for column in range(3)))
        return Batch(
            images=self._composer.wrap(images),
            labels=chosen_labels,
            seed=options.seed,
            indices=where,
            index=index,
            draw_noise=PoolNoise(self._sampler, options, index, where),
            **kept,
        )

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
        renewal = Renewal(sizes, refresh, largest_chunk(self._resolution))
        entries = renewal.entries(self._sampler.pool_picks(options.seed, sizes, where), where)
        rolls = self._sampler.rolls(options, where)
        images = self._composer.images(n, out)
        kept: dict[str, Any] = self._composer.empty_parts(n) if parts else {}
        for part in renewal.parts(n):
            networks = self._open_networks()
            with networks.lock:  # whoever else makes entries takes slots
                pool = self._renewing_pool_of(key, renewal, parts)
                index = pool.index(entries[part], where[part], self._sampler, networks)
                self._composer.compose(pool.pictures, index, rolls[part], images[part])
                chosen = {name: pool.pictures[name][index[:, _COLUMNS[name]]] for name in kept}
                self._composer.keep(kept, chosen, rolls[part], part)
        return Batch(
            images=self._composer.wrap(images),
            labels=renewal.labels(self._sampler, options, entries),
            seed=options.seed,
            indices=where,
            index=entries,
            draw_noise=PoolNoise(self._sampler, options, entries, where),
            **kept,
        )

    def _renewing_pool_of(self, key: PoolKey, renewal: Renewal, parts: bool) -> RenewingPool:
        pool = self._pool
        if not isinstance(pool, RenewingPool) or pool.key != key or not pool.has(parts=parts):
            # The old pool goes before the new one is made: large pictures do not fit twice.
            pool = self._pool = None
            pool = self._pool = RenewingPool(key, renewal, self._plan, parts=parts)
        return pool

    def _pool_of(self, key: PoolKey, parts: bool) -> Pool:
        pool = self._pool if isinstance(self._pool, Pool) else None
        same = pool is not None and pool.key == key
        if pool is None or not same or not pool.has(self._plan, parts=parts):
            kept = pool.pictures if pool is not None and same else None
            # The old pool goes before the new one is made: large pictures do not fit twice.
            pool = self._pool = None
            pool = self._pool = Pool.build(
                key, self._plan, self._sampler, self._open_networks(), parts=parts, kept=kept
            )
        return pool

    def _open_networks(self) -> Networks:
        # Engines do not survive a fork: their worker threads stay behind in the parent.
        if self._networks is None or self._networks_pid != os.getpid():
            self._networks = Networks(self._plan, self._choice, self._threads)
            self._networks_pid = os.getpid()
        return self._networks
