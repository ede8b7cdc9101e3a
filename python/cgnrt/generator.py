"""Generator: a plan's mechanisms and the composer, from a request to a Batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cgnrt.batch import Batch
from cgnrt.batches import in_batches, one_ahead
from cgnrt.opened import Opened
from cgnrt.render.pools import PoolKey
from cgnrt.render.related import Related
from cgnrt.request import Request, merge_requests
from cgnrt.request.interpolation import interpolation_request
from cgnrt.request.labels import Label
from cgnrt.request.options import SampleOptions, beside_pool, check_names
from cgnrt.sampling import MECHANISMS, check_index, resolve_indices
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
        seed: int | None = SampleOptions.seed,
        *,
        start: int = 0,
        indices: Any = None,
        do: Mapping[str, Label] | None = SampleOptions.do,
        labels: str = SampleOptions.labels,
        classes: Mapping[str, Sequence[Label]] | None = SampleOptions.classes,
        shared_noise: bool | None = SampleOptions.shared_noise,
        per_noise: int = SampleOptions.per_noise,
        hold: str = SampleOptions.hold,
        noise: Any = None,
        truncation: Any = SampleOptions.truncation,
        pool: int | tuple[int, int, int] | None = SampleOptions.pool,
        refresh: int | None = SampleOptions.refresh,
        parts: bool = SampleOptions.parts,
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
        options = SampleOptions(
            seed=seed,
            do=do,
            labels=labels,
            classes=classes,
            shared_noise=shared_noise,
            per_noise=per_noise,
            hold=hold,
            truncation=truncation,
            pool=pool,
            refresh=refresh,
            parts=parts,
        )
        return self._sample(options, resolve_indices(n, start, indices), noise=noise, out=out)

    def check(self, options: SampleOptions, n: int = 0) -> SampleOptions:
        """Check options against the plan. Renders nothing and opens no engine.

        Args:
          n: samples, where `truncation` has a number for each.
        Returns:
          The same options with what was left open filled in: labels as class indices, the seed, noise mode and
          truncation. They give the same samples.
        Raises:
          TypeError, ValueError: as `sample`.
        """
        return self._resolver.check(options, n)

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
        asked = SampleOptions.collect("sample", {"seed": seed, "truncation": truncation, **options})
        return self._batches(asked, n, batch_size, start=start, indices=indices, noise=noise, out=out)

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
        asked = SampleOptions.collect("stream", options)
        depth = check_index("prefetch", prefetch) if self.device == "cpu" else 0

        def batches(seed: int, start: int, n: int) -> Iterator[Batch]:
            return self._batches(replace(asked, seed=seed), n, batch_size, start=start)

        return Stream(batches, seed, start=start, stop=stop, prefetch=depth)

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
        check_names("sample", options, _CALL_OPTIONS)
        n, indices = options.pop("n", None), options.pop("indices", None)
        return self._resolver.call(
            SampleOptions(seed=seed, **options),
            dict(zip(MECHANISMS, (shape, texture, background), strict=True)),
            n=n,
            start=start,
            indices=indices,
            noise=noise,
        )

    def render(self, requests: Sequence[Request], *, parts: bool = False) -> list[Batch]:
        """Batches of several prepared requests, run together: pixels are those of each alone to the engine's tolerance.

        The pictures of all are views of one memory.
        """
        if len(requests) < 2:
            return [self._renderer.render(request, parts, None) for request in requests]
        whole = self._renderer.render(merge_requests(requests), parts, None).numpy()
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
        ends = {"shape": shape, "texture": texture, "background": background}
        request, embeddings = interpolation_request(
            self._resolver,
            {m: v.embedding for m, v in self.plan.mechanisms.items()},
            SampleOptions(seed=seed),
            frames,
            mechanisms,
            ends,
            (start, end),
            noise,
            truncation,
        )
        return self._renderer.render(request, parts, None, embeddings, progress)

    def related(self, *, seed: int | None, indices: Any, truncation: float | None = None) -> Related:
        """Images of the same noise that differ in labels alone: what a label leaves as it is runs once (Sec. 2.2).

        Args:
          seed, indices, truncation: as for `sample`. Noise and rolls are those of these samples.
        """
        options = SampleOptions(seed=seed, truncation=truncation)
        return Related(self._renderer, self._resolver.request(options, resolve_indices(None, 0, indices)))

    def _batches(
        self,
        options: SampleOptions,
        n: int | None,
        batch_size: int,
        *,
        start: int,
        indices: Any = None,
        noise: Any = None,
        out: Any = None,
    ) -> Iterator[Batch]:
        made = in_batches(
            self._sample,
            self._resolver,
            options,
            n,
            batch_size,
            start=start,
            indices=indices,
            noise=noise,
            out=out,
        )
        if out is not None:
            self._renderer.check_out(out)
        return made if self.device == "cpu" or out is not None else one_ahead(made)

    def _sample(
        self, options: SampleOptions, where: np.ndarray, *, noise: Any = None, out: Any = None
    ) -> Batch:
        if options.pool is None:
            request = self._resolver.request(options, where, noise)
            return self._renderer.render(request, options.parts, out)
        if noise is not None:
            raise beside_pool("noise")
        key = PoolKey(
            self._resolver.draws(options),
            options.pool_sizes,
            self._resolver.pool_truncation(options),
            options.refresh,
        )
        return self._renderer.render_pool(where, key, options.parts, out)


# What `generator(...)` takes besides labels, seed, start and noise.
_CALL_OPTIONS = (frozenset(SampleOptions().keys()) | {"n", "indices"}) - {
    *("seed", "do", "pool", "refresh", "parts"),
}
