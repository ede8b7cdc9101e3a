"""`Pipeline`: a plan, the engine chosen for it, and the way from options to batches."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cgnrt._support.values import host_array, refuse_masked
from cgnrt.backends import choose
from cgnrt.batch import Batch
from cgnrt.errors import PlanError
from cgnrt.plan import Plan
from cgnrt.render.pools import PoolKey, PoolNoise
from cgnrt.render.renderer import Renderer
from cgnrt.request.options import GeneratorOptions, SampleOptions, beside_pool
from cgnrt.request.place import Place
from cgnrt.request.resolver import Request, Resolver, merge_requests
from cgnrt.sampling import STREAM_VERSION, check_index, check_span, resolve_indices

if TYPE_CHECKING:
    from cgnrt.request.interpolation import Interpolation
    from cgnrt.stream import Stream

# Batches of a stream without a thread that are made in one go, and their bytes, at most: these stay in the last-level
# cache until they are used.
_TOGETHER = 16
_TOGETHER_BYTES = 16 << 20


class Pipeline:
    """What a `Generator` works with: an open plan, its resolver, the engine chosen for it, and the renderer.

    Attributes:
      resolver: checks options against the plan.
      choice: the engine that runs the plan, and why it was chosen.
      renderer: opens the engines on first use in each process.
    """

    def __init__(self, plan: str | os.PathLike[str] | Plan, options: GeneratorOptions) -> None:
        self.plan = plan if isinstance(plan, Plan) else Plan.open(plan)
        self._owns_plan = self.plan is not plan
        self.options = options
        manifest = self.plan.manifest
        if manifest.stream_version != STREAM_VERSION:
            raise PlanError(
                f"load {self.plan.path!r}: stream version is {manifest.stream_version}, expected {STREAM_VERSION}. "
                "Use the cgnrt that made it, or export again with cgnrt-export."
            )
        self.resolution = (manifest.resolution[0], manifest.resolution[1])
        self.pixels = options.pixels(self.plan)
        self.resolver = Resolver.of_plan(self.plan, options.shared_noise)
        self.choice = choose(
            repr(self.plan.path),
            backend=options.backend,
            device=options.device,
            precision=options.precision,
            default_precision=manifest.precision,
            networks=list(self.plan.networks.values()),
            plan=self.plan,
            options=options.engines,
        )
        self.plan.release_pages()  # the backends have looked at the graphs and weights
        self.renderer = self._make_renderer()

    def close(self) -> None:
        """`Generator.close`."""
        self.renderer.close()
        if self._owns_plan:
            self.plan.close()

    def with_threads(self, threads: int | None) -> Pipeline:
        """`Generator.with_threads`."""
        other = self._copy(replace(self.options, threads=threads))
        other.renderer = other._make_renderer()
        return other

    def with_pixels(self, dtype: str, layout: str) -> Pipeline:
        """`Generator.with_pixels`."""
        other = self._copy(replace(self.options, dtype=dtype, layout=layout, range=None, normalize=None))
        other.pixels = other.options.pixels(self.plan)
        other.renderer = self.renderer.with_pixels(other.pixels)
        return other

    def sample(
        self, options: SampleOptions, indices: np.ndarray, *, noise: Any = None, out: Any = None
    ) -> Batch:
        """The batch of the samples at `indices`, int64 (n,)."""
        if options.pool is None:
            request = self.resolver.request(options, indices, noise)
            return self.renderer.render(request, options.parts, out)
        if noise is not None:
            raise beside_pool("noise")
        draws = self.resolver.draws(options)
        key = PoolKey(
            draws,
            options.pool_sizes,
            self.resolver.pool_truncation(options),
            options.refresh,
        )
        place = self.resolver.places(options, draws, indices)
        return self.renderer.render_pool(indices, key, place, options.parts, out)

    def batches(
        self,
        options: SampleOptions,
        n: int | None,
        batch_size: int,
        *,
        start: int,
        indices: Any = None,
        noise: Any = None,
        out: Any = None,
        together: int = 1,
    ) -> Iterator[Batch]:
        """`Generator.batches`: checks now, renders when the iterator is asked. Memory does not grow with n.

        Args:
          together: of batches from a pool as many may be made in one go, into one block of memory.
        """
        size = check_batch_size(batch_size)
        where: np.ndarray | None = None
        if indices is None:
            count, first = check_span(n, start)
        else:
            where = resolve_indices(n, start, indices)
            count, first = len(where), 0
        options = self.resolver.check(options, count, noise=noise)
        given = None if noise is None else self.resolver.noise(noise, count)
        rows: dict[str, Any] = {}
        if options.pool is None and np.ndim(options.truncation) > 0:
            rows["truncation"] = host_array("sample", "truncation", options.truncation)
        if options.place is not None and not isinstance(options.place, Place):
            rows["place"] = host_array("sample", "place", options.place)
        refuse_masked("sample", out=out)
        if out is not None:
            room = min(size, count)
            if not len(getattr(out, "shape", ())) or len(out) < room:
                raise ValueError(
                    f"sample: out is {getattr(out, 'shape', out)!r}, expected room for {room} images."
                )
            self.renderer.check_out(out)

        def make(low: int, high: int) -> Batch:
            part = slice(low, high)
            return self.sample(
                replace(options, **{name: array[part] for name, array in rows.items()}) if rows else options,
                np.arange(first + low, first + high, dtype=np.int64) if where is None else where[part],
                noise=None if given is None else tuple(u if u is None else u[part] for u in given),
                out=None if out is None else out[: high - low],
            )

        if together > 1 and options.pool is not None:
            return _together(make, count, size, together)
        made = (make(low, min(low + size, count)) for low in range(0, count, size))
        if self.renderer.ahead != "stream" or out is not None:
            return made
        from cgnrt.stream import one_ahead  # programs without a stream start faster

        return one_ahead(made)

    def stream(
        self, options: SampleOptions, batch_size: int, *, start: int, stop: int | None, prefetch: int
    ) -> Stream:
        """`Generator.stream`."""
        from cgnrt.stream import Stream, on_torch_threads  # programs without one start faster

        on_cpu = self.renderer.ahead == "thread"
        depth = check_index("prefetch", prefetch) if on_cpu else 0
        batch_bytes = self.pixels.item_bytes * math.prod(self.pixels.shape(batch_size, *self.resolution))
        together = (
            max(1, min(_TOGETHER, _TOGETHER_BYTES // max(1, batch_bytes))) if on_cpu and not depth else 1
        )

        def batches(seed: int, start: int, n: int) -> Iterator[Batch]:
            asked = replace(options, seed=seed)
            made = self.batches(asked, n, batch_size, start=start, together=together)
            return on_torch_threads(made) if on_cpu and not depth else made

        return Stream(batches, options.seed, start=start, stop=stop, prefetch=depth)

    def render(self, requests: Sequence[Request], parts: bool) -> list[Batch]:
        """`Generator.render`."""
        if len(requests) < 2:
            return [self.renderer.render(request, parts, None) for request in requests]
        whole = self.renderer.render(merge_requests(requests), parts, None).numpy()
        ends = np.cumsum([0, *(len(request.indices) for request in requests)]).tolist()
        return [
            whole.cut(slice(low, high), request)
            for request, low, high in zip(requests, ends, ends[1:], strict=False)
        ]

    def interpolate(
        self, path: Interpolation, parts: bool, progress: Callable[[int], object] | None
    ) -> Batch:
        """`Generator.interpolate`."""
        self.renderer.check_room(path.frames)
        tables = {name: network.embedding for name, network in self.plan.networks.items()}
        request, embeddings = path.request(self.resolver, tables)
        return self.renderer.render(request, parts, None, embeddings, progress)

    def _copy(self, options: GeneratorOptions) -> Pipeline:
        other = copy.copy(self)
        other.options = options
        return other

    def _make_renderer(self) -> Renderer:
        return Renderer(
            self.plan,
            self.resolver.sampler,
            self.pixels,
            self.choice,
            self.options.threads,
            self.options.bank_cache_bytes,
        )


def _together(make: Callable[[int, int], Batch], count: int, size: int, most: int) -> Iterator[Batch]:
    """Batches from a pool of `size` samples, `most` of them made in one go: first one, then twice as many each time.

    The networks find their weights in the caches, and Python its code, for all but the first of them.
    """
    low, several = 0, 1
    while low < count:
        high = min(low + several * size, count)
        try:
            whole = make(low, high)
        except Exception:
            if several == 1:
                raise
            several = 1  # the exception comes where its batch would
            continue
        assert isinstance(whole.draw_noise, PoolNoise)  # there is a pool
        for begin in range(0, high - low, size):
            part = slice(begin, min(begin + size, high - low))
            yield whole.rows(part, whole.draw_noise.cut(part))
        low, several = high, min(2 * several, most)


def check_batch_size(batch_size: object) -> int:
    """The number of samples in a batch.

    Raises:
      TypeError, ValueError: it is not an integer of at least 1.
    """
    size = check_index("batch_size", batch_size)
    if not size:
        raise ValueError("sample: batch_size is 0, expected at least 1.")
    return size
