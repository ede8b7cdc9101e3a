"""Generator: a plan's mechanisms and the composer, from a request to a Batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cgnrt.batch import Batch
from cgnrt.batches import batches
from cgnrt.opened import Opened
from cgnrt.render.pools import PoolKey
from cgnrt.render.related import Related
from cgnrt.request import requests as rq
from cgnrt.request.interpolation import interpolation_request
from cgnrt.request.labels import Label
from cgnrt.request.requests import Request
from cgnrt.sampling import (
    MECHANISMS,
    DrawOptions,
    Labels,
    resolve_indices,
)
from cgnrt.stream import Stream


class Generator(Opened):
    """Counterfactual batches from a plan (Sec. 3.2).

    Args:
      path: the plan file.
      device: "auto" (cuda:0 where a GPU and an engine for it are there, else the CPU), "cpu", "cuda" or "cuda:1".
      backend: "auto" (the fastest that runs the plan); "native", "openvino" or "onnxruntime" on the CPU; "tensorrt"
        or "onnxruntime" on a GPU.
      precision: "auto" (the plan's default where the device runs it, else fp32), "fp32", "bf16" or "fp16".
      threads: of the engines and the composer on the CPU; None takes the cores that this process may use.
      dtype: of the images: "float32", "float16", "bfloat16" or "uint8" (0..255).
      layout: "NCHW" or "NHWC".
      range: (low, high) of the images; None is (-1, 1), and (0, 255) for uint8.
      normalize: (mean, std), three numbers each, of images in [0, 1]; instead of `range`.
      shared_noise: all mechanisms take the shape's noise; None is the plan's noise mode.
      trust_engines: run the plan's own TensorRT engines, which are native code: only for plans that you trust.
      rebuild: build TensorRT engines where those of a trusted plan do not fit this card.
      engine_batches: batch sizes that TensorRT engines are built for (smallest, usual, largest), or that ONNX Runtime
        captures as CUDA graphs; None is the backend's own.
    Raises:
      PlanError: the file is no good plan.
      BackendError: no engine can run it as asked.
      ValueError: an argument is not as above.

    Sample i of stream `seed` is the same labels and noise whatever the batch size, thread count or machine; pixels
    agree to the engine's tolerance. A Generator pickles as (path, digest, options) and opens its engines on first
    use in each process. Calls from several threads take turns. On a GPU a batch is enqueued on the generator's own
    stream, and nobody waits for it but who reads it (docs/devices.md).
    """

    # Samples.

    def sample(
        self,
        n: int | None = None,
        seed: int | None = None,
        *,
        start: int = 0,
        indices: Any = None,
        do: Mapping[str, Label] | None = None,
        labels: str = "independent",
        classes: Mapping[str, Sequence[Label]] | None = None,
        shared_noise: bool | None = None,
        per_noise: int = 1,
        hold: str = "shape",
        noise: Any = None,
        truncation: Any = None,
        pool: int | tuple[int, int, int] | None = None,
        refresh: int | None = None,
        parts: bool = False,
        out: Any = None,
    ) -> Batch:
        """Samples `start` to `start + n - 1` of a stream.

        Args:
          n: how many; may be 0.
          seed: 0 to 2**64 - 1; None draws one, which is in `batch.seed`.
          indices: any int64 stream indices (n,), instead of n and start.
          do: mechanism -> class index or name, an intervention (Sec. 2.2): replaces labels only.
          labels: "independent" for counterfactuals, "shared" for one label for all mechanisms.
          classes: mechanism -> classes to draw from.
          shared_noise: overrides the generator's.
          per_noise: counterfactuals for each shape label and noise (App. A.3); not with `pool`.
          hold: "shape", or "all" to fix the noise of every mechanism in such a group.
          noise: (shape, texture, background[, rolls]), (n, z) each, or a `batch.noise`; None entries are drawn.
          truncation: a number, or (n,), for plans that have it.
          pool: sizes (M, F, B), or one for all: the networks run M, F and B times and images are composed from
            the results. A Generator keeps its last pool for the next call with the same seed and options.
          refresh: with `pool`, after how many samples its oldest entries leave for new ones: sample i is composed from
            stream entries i // refresh to i // refresh + size - 1 of each mechanism. None keeps the first ones.
          parts: also return mask, foreground and background as composed, and pre_mask where the plan has it.
          out: where to write the images, C-contiguous; new memory otherwise.
        Raises:
          TypeError, ValueError: the message names the argument, what it is and what is expected.
        """
        where = resolve_indices(n, start, indices)
        options = self._draw_options(
            seed,
            do,
            labels=labels,
            classes=classes,
            shared_noise=shared_noise,
            per_noise=per_noise,
            hold=hold,
        )
        period = rq.check_refresh(refresh, pool)
        if pool is not None:
            rq.check_pool_alone(options, noise)
            sizes = rq.check_pool(pool)
            factor = rq.check_truncation(self.plan.manifest.truncation, truncation, 1)
            one = None if factor is None else float(factor[0, 0])
            return self._renderer.render_pool(where, PoolKey(options, sizes, one, period), parts, out)
        drawn = (self._sampler.labels(options, name, where) for name in MECHANISMS)
        return self._renderer.render(
            self._request(where, options, Labels(*drawn), noise, truncation), parts, out
        )

    def batches(
        self,
        n: int | None,
        batch_size: int,
        seed: int | None = None,
        *,
        start: int = 0,
        indices: Any = None,
        noise: Any = None,
        truncation: Any = None,
        out: Any = None,
        **options: Any,
    ) -> Iterator[Batch]:
        """What one `sample` call gives, in batches of consecutive samples and in the memory of one batch.

        Args:
          n, seed, start, indices, noise, truncation: as for `sample`; what has a row for each sample is cut up.
          batch_size: samples in a batch, at least 1; the last batch may have fewer.
          out: memory for `batch_size` images. Every batch overwrites the images of the one before.
          options: the others of `sample`. With `pool` the networks run for the first batch alone, as long as
            this generator is asked for no other pool meanwhile.
        Returns:
          An iterator, which renders a batch when it is asked for the next one. seed=None draws one for all.
        Raises:
          TypeError, ValueError: as `sample`, and at once: before the first batch.
        """
        return batches(
            self,
            self._sampler,
            n,
            batch_size,
            seed,
            start=start,
            indices=indices,
            noise=noise,
            truncation=truncation,
            out=out,
            **options,
        )

    def stream(
        self,
        batch_size: int,
        seed: int | None = None,
        *,
        start: int = 0,
        stop: int | None = None,
        prefetch: int = 2,
        **options: Any,
    ) -> Stream:
        """Batches of samples `start` to `stop - 1` for a training loop, made in the background.

        Args:
          batch_size: samples in a batch, at least 1; the last batch may have fewer.
          seed: as for `sample`; None draws one, which is in `stream.seed`.
          stop: None is without end.
          prefetch: batches that wait or are being made at most; 0 makes each when it is asked for. A GPU needs none.
          options: of `sample`, such as `pool` and `refresh`; not `indices`, `noise` and `out`.
        Returns:
          A `cgnrt.stream.Stream`: an iterator to be used as a context, or closed.
        Raises:
          TypeError, ValueError: as `sample`, and at once.
        """
        return Stream(self, batch_size, seed, start=start, stop=stop, prefetch=prefetch, options=options)

    def __call__(
        self,
        shape: Any = None,
        texture: Any = None,
        background: Any = None,
        *,
        seed: int | None = None,
        start: int = 0,
        noise: Any = None,
        **options: Any,
    ) -> Batch:
        """`sample` with the given labels set: class indices or names, one for all samples or (n,) each.

        n is the common length of the labels or the noise; labels left out are drawn. Other options are `sample`'s.
        """
        out, parts = options.pop("out", None), options.pop("parts", False)
        request = self.prepare(shape, texture, background, seed=seed, start=start, noise=noise, **options)
        return self._renderer.render(request, parts, out)

    def prepare(
        self,
        shape: Any = None,
        texture: Any = None,
        background: Any = None,
        *,
        seed: int | None = None,
        start: int = 0,
        noise: Any = None,
        **options: Any,
    ) -> Request:
        """A call's checked request, for `render`; arguments are the call's, without `parts` and `out`."""
        given = dict(zip(MECHANISMS, (shape, texture, background), strict=True))
        unknown = set(options) - _CALL_OPTIONS
        if unknown:
            raise TypeError(
                f"sample: option is {min(unknown)!r}, expected one of {', '.join(sorted(_CALL_OPTIONS))}."
            )
        truncation, indices = options.pop("truncation", None), options.pop("indices", None)
        n = options.pop("n", None)
        single, several, count = rq.call_labels(self._names, given, noise=noise, indices=indices, n=n)
        where = resolve_indices(None if indices is not None else count, start, indices)
        resolved = self._draw_options(seed, single, **{**_CALL_DEFAULTS, **options})
        drawn = (several[m] if m in several else self._sampler.labels(resolved, m, where) for m in MECHANISMS)
        return self._request(where, resolved, Labels(*drawn), noise, truncation)

    def render(self, requests: Sequence[Request], *, parts: bool = False) -> list[Batch]:
        """Batches of several prepared requests, run together: pixels are those of each alone to the engine's tolerance.

        The pictures of all are views of one memory.
        """
        if len(requests) < 2:
            return [self._renderer.render(request, parts, None) for request in requests]
        whole = self._renderer.render(rq.merge_requests(requests), parts, None).numpy()
        ends = np.cumsum([0, *(len(request.indices) for request in requests)]).tolist()
        return [
            whole.cut(slice(low, high), request)
            for request, low, high in zip(requests, ends, ends[1:], strict=False)
        ]

    def interpolate(
        self,
        frames: int,
        *,
        mechanisms: str | Sequence[str] = "all",
        shape: Any = None,
        texture: Any = None,
        background: Any = None,
        seed: int | None = None,
        start: int = 0,
        end: int = 1,
        noise: Any = None,
        truncation: float | None = None,
        parts: bool = False,
        progress: Callable[[int], object] | None = None,
    ) -> Batch:
        """Images on the way between two (u, y) pairs (App. D.2).

        Args:
          frames: how many, both ends included; at least 2.
          mechanisms: which of them move: "all", a name or several; the others stay at the first end.
          shape, texture, background: (from, to) labels, or one label for both; None takes those of the two samples.
          seed, start, end: the stream, and the two samples in it that give noise and labels.
          noise: a `batch.noise` of length 2, the two ends; instead of those of the stream.
          progress: called with the number of frames that were made since it was called last.
        Returns:
          A Batch of `frames` images; `labels` are those of the nearer end, rolls those of the first.
        """
        options = self._draw_options(seed, None, **_CALL_DEFAULTS)
        ends = {"shape": shape, "texture": texture, "background": background}
        request, embeddings = interpolation_request(
            self._sampler,
            self._names,
            {m: v.embedding for m, v in self.plan.mechanisms.items()},
            options,
            frames,
            mechanisms,
            ends,
            (start, end),
            noise,
        )
        request = replace(
            request, truncation=rq.check_truncation(self.plan.manifest.truncation, truncation, frames)
        )
        return self._renderer.render(request, parts, None, embeddings, progress)

    def related(self, *, seed: int | None, indices: Any, truncation: float | None = None) -> Related:
        """Images of the same noise that differ in labels alone: what a label leaves as it is runs once (Sec. 2.2).

        Args:
          seed, indices, truncation: as for `sample`. Noise and rolls are those of these samples.
        """
        where = resolve_indices(None, 0, indices)
        options = self._draw_options(seed, None, **_CALL_DEFAULTS)
        drawn = Labels(*(self._sampler.labels(options, name, where) for name in MECHANISMS))
        return Related(self._renderer, self._request(where, options, drawn, None, truncation))

    # How.

    def _draw_options(self, seed: Any, do: Any, *, shared_noise: Any, **options: Any) -> DrawOptions:
        shared = self._shared_noise if shared_noise is None else bool(shared_noise)
        return rq.draw_options(self._sampler, self._names, seed, do, shared_noise=shared, **options)

    def _request(
        self, where: np.ndarray, options: DrawOptions, labels: Labels, noise: Any, truncation: Any
    ) -> Request:
        n = len(where)
        given = rq.check_noise(self._sampler, noise, n)
        bounds = self.plan.manifest.truncation
        return Request(
            self._sampler, where, options, labels, given, rq.check_truncation(bounds, truncation, n)
        )


# What `generator(...)` takes besides labels, seed, start and noise.
_CALL_DEFAULTS: dict[str, Any] = {
    "labels": "independent",
    "classes": None,
    "shared_noise": None,
    "per_noise": 1,
    "hold": "shape",
}
_CALL_OPTIONS = {*_CALL_DEFAULTS, "n", "indices", "truncation"}
