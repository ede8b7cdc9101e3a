"""From a checked request to a Batch: networks chunk by chunk, then the composer; and the pool that is kept."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from cgnrt.backends import Choice
from cgnrt.batch import Batch
from cgnrt.composer import Composer
from cgnrt.networks import PICTURES, Networks, chunks
from cgnrt.plan import Plan
from cgnrt.pools import Pool, PoolKey, PoolNoise
from cgnrt.requests import Request
from cgnrt.sampling import MECHANISMS, DrawOptions, Labels, Sampler


class Renderer:
    """Renders the requests of one Generator. Opens its engines on first use in each process; keeps its last pool."""

    def __init__(
        self, plan: Plan, composer: Composer, sampler: Sampler, choice: Choice, threads: int | None
    ) -> None:
        self._plan = plan
        self._composer = composer
        self._sampler = sampler
        self._choice = choice
        self._threads = threads
        self._resolution = (plan.manifest.resolution[0], plan.manifest.resolution[1])
        self._networks: Networks | None = None
        self._networks_pid = 0
        self._pool: Pool | None = None

    def render(
        self, request: Request, parts: bool, out: Any, embeddings: Mapping[str, np.ndarray] | None = None
    ) -> Batch:
        """Run the mechanisms for every sample; `embeddings`, (n, e) each, stand in for those of the labels."""
        n = len(request.indices)
        images = self._composer.images(n, out)
        kept = self._composer.empty_parts(n) if parts else {}
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
        return Batch(
            images=self._composer.wrap(images),
            labels=request.labels,
            seed=request.options.seed,
            indices=request.indices,
            draw_noise=request.noise,
            **kept,
        )

    def render_pool(
        self,
        where: np.ndarray,
        options: DrawOptions,
        sizes: tuple[int, int, int],
        truncation: float | None,
        parts: bool,
        out: Any,
    ) -> Batch:
        """Compose samples from pool entries, which are made first where the kept pool is another."""
        key = PoolKey(options, sizes, truncation)
        pool = self._pool
        if pool is None or pool.key != key:
            pool = self._pool = Pool.build(key, self._plan, self._sampler, self._open_networks())
        index = self._sampler.pool_picks(options.seed, sizes, where)
        rolls = self._sampler.rolls(options, where)
        images = self._composer.images(len(where), out)
        pictures = dict(zip(PICTURES.values(), pool.pictures, strict=True))
        self._composer.compose(pictures, index, rolls, images)
        kept: dict[str, np.ndarray] = {}
        if parts:
            kept = {name: p[index[:, column]] for column, (name, p) in enumerate(pictures.items())}
            self._composer.keep(kept, kept, rolls, slice(None))
        chosen_labels = (pool.labels[column][index[:, column]] for column in range(3))
        return Batch(
            images=self._composer.wrap(images),
            labels=Labels(*chosen_labels),
            seed=options.seed,
            indices=where,
            index=index,
            draw_noise=PoolNoise(self._sampler, options, index, where),
            **kept,
        )

    def _open_networks(self) -> Networks:
        # Engines do not survive a fork: their worker threads stay behind in the parent.
        if self._networks is None or self._networks_pid != os.getpid():
            self._networks = Networks(self._plan, self._choice, self._threads)
            self._networks_pid = os.getpid()
        return self._networks
