"""`Generator`: counterfactual batches from a plan."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from cgnrt.batch import Batch
from cgnrt.described import Described
from cgnrt.pipeline import Pipeline
from cgnrt.plan import Plan
from cgnrt.render.renderer import Counterfactuals
from cgnrt.request.labels import Label
from cgnrt.request.options import OPTION_NAMES, GeneratorOptions, SampleOptions, check_names, dtype_name
from cgnrt.request.resolver import Request
from cgnrt.sampling import MECHANISMS, check_index, resolve_indices

if TYPE_CHECKING:
    from torch import device as TorchDevice
    from torch import dtype as TorchDtype

    from cgnrt.stream import Stream


class Generator(Described):
    """Counterfactual batches from a plan (Sec. 3.2).

    Args:
      path: the plan file; or an open `Plan`, which has to stay open, so that the file is not read again.
      device: "auto" (cuda:0 where a GPU and an engine for it are there, else the CPU), "cpu", "cuda", "cuda:1",
        "mps" or "xpu"; also a `torch.device`.
      backend: "auto" (the fastest that runs the plan), or one by name, such as "native"; docs/devices.md lists them.
      precision: "auto" (the plan's default where the device runs it, else fp32), "fp32", "bf16" or "fp16".
      threads: of the engines and the composer on the CPU; None takes the cores that this process may use.
      dtype: of the images: "float32", "float16", "bfloat16" or "uint8" (0..255); also torch's or NumPy's own, such as
        `torch.float16`.
      layout: "NCHW" or "NHWC".
      range: (low, high) of the images; None is (-1, 1), and (0, 255) for uint8.
      normalize: (mean, std), three numbers each, of images in [0, 1]; instead of `range`.
      shared_noise: all mechanisms take the shape's noise; None is the plan's noise mode.
      trust_engines: run the plan's own TensorRT engines, which are native code: only for plans that you trust.
      rebuild: build TensorRT engines where those of a trusted plan do not fit this card.
      engine_batches: batch sizes that TensorRT engines are built for (smallest, usual, largest), or that torch and ONNX
        Runtime capture as CUDA graphs; None is the backend's own.
      compile: with backend="torch", let torch.compile make kernels for `engine_batches`, or for every size as it comes:
        seconds to minutes the first time, kept on this machine.
      tf32: with backend="torch" on an NVIDIA GPU, compute what is float32 with ten bits of mantissa, faster.
      bank_cache_bytes: for pictures of banks that are stored as WebP or JPEG: what was decoded stays as long as there
        is room for it, so that each picture is decoded once if all fit. Memory is taken as it fills.
    Raises:
      PlanError: the file is not a plan, is damaged, or has another version.
      BackendError: no engine can run the plan with these options.
      ValueError: an argument is not as above.

    Sample i of stream `seed` is the same labels and noise whatever the batch size, thread count or machine; pixels
    agree to the engine's tolerance. A Generator pickles as (path, digest, options) and opens its engines on first
    use in each process. Calls from several threads share the cores where the native engine runs a small network, and
    else take turns. On a GPU a batch is enqueued on the generator's own stream, and only reading the result waits for
    it (docs/devices.md).

    `with Generator(...) as gen:` frees the engines, the pool and the plan file at its end, as `close` does. Without it
    they are freed with the generator.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | Plan,
        *,
        device: str | TorchDevice = "auto",
        backend: str = "auto",
        precision: str = "auto",
        threads: int | None = None,
        dtype: str | np.dtype[Any] | type[np.generic] | TorchDtype = "float32",
        layout: str = "NCHW",
        range: Sequence[float] | None = None,
        normalize: tuple[Sequence[float], Sequence[float]] | None = None,
        shared_noise: bool | None = None,
        trust_engines: bool = False,
        rebuild: bool = False,
        engine_batches: Sequence[int] | None = None,
        compile: bool = False,
        tf32: bool = False,
        bank_cache_bytes: int = 1 << 30,
    ) -> None:
        self._pipeline = Pipeline(
            path,
            GeneratorOptions(
                device=str(device),
                backend=backend,
                precision=precision,
                threads=threads,
                dtype=dtype_name(dtype),
                layout=layout,
                range=range,
                normalize=normalize,
                shared_noise=shared_noise,
                trust_engines=trust_engines,
                rebuild=rebuild,
                engine_batches=engine_batches,  # type: ignore[arg-type]  # which it checks
                compile=compile,
                tf32=tf32,
                bank_cache_bytes=bank_cache_bytes,
            ),
        )
        self._absolute = os.path.join(os.getcwd(), self.plan.path)  # for workers, wherever they are started

    # Samples.

    def sample(
        self,
        n: int | None = None,
        seed: int | None = SampleOptions.seed,
        *,
        start: int = 0,
        indices: Any = None,
        do: Mapping[str, Label | float] | None = SampleOptions.do,
        labels: str = SampleOptions.labels,
        classes: Mapping[str, Sequence[Label]] | None = SampleOptions.classes,
        shared_noise: bool | None = SampleOptions.shared_noise,
        per_noise: int = SampleOptions.per_noise,
        hold: str = SampleOptions.hold,
        distinct: bool = SampleOptions.distinct,
        noise: Any = None,
        truncation: Any = SampleOptions.truncation,
        pool: int | tuple[int, int, int] | None = SampleOptions.pool,
        refresh: int | None = SampleOptions.refresh,
        place: Any = SampleOptions.place,
        parts: bool = SampleOptions.parts,
        out: Any = None,
    ) -> Batch:
        """Samples `start` to `start + n - 1` of a stream.

        Args:
          n: how many; may be 0.
          seed: 0 to 2**64 - 1; None draws one, which is in `batch.seed`.
          indices: any int64 stream indices (n,), instead of n and start.
          do: mechanism -> class index or name, an intervention (Sec. 2.2): replaces labels only. "dy", "dx", "scale"
            and "flip" set that of the place.
          labels: "independent" for counterfactuals, "shared" for one label for all mechanisms.
          classes: mechanism -> classes to draw from.
          shared_noise: overrides the generator's.
          per_noise: counterfactuals for each shape label and noise (App. A.3); not with `pool`.
          hold: "shape", or "all" to fix the noise of every mechanism in such a group.
          distinct: no sample has a texture and a background of one class, which hides its shape; not with `pool`.
          noise: (shape, texture, background[, rolls]), (n, z) each, or a `batch.noise`; None entries are drawn.
          truncation: a number, or (n,), for plans that have it.
          pool: sizes (M, F, B), or one for all: the networks run M, F and B times and images are composed from
            the results. A Generator keeps its last pool for the next call with the same seed and options.
          refresh: with `pool`, after how many samples its oldest entries leave for new ones: sample i is composed from
            stream entries i // refresh to i // refresh + size - 1 of each mechanism. None keeps the first ones.
          place: where each object is put: a `Place` to draw from, or (n, 4) places such as a `batch.place`. What leaves
            the picture is cut off.
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
            distinct=distinct,
            truncation=truncation,
            pool=pool,
            refresh=refresh,
            place=place,
            parts=parts,
        )
        if indices is None and out is None:
            self._pipeline.renderer.check_room(check_index("n", n))
        return self._pipeline.sample(options, resolve_indices(n, start, indices), noise=noise, out=out)

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
        return self._pipeline.resolver.check(options, n)

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
          n, seed, start, indices, noise, truncation: as for `sample`. Arrays with a row for each sample are split.
          batch_size: samples in a batch, at least 1; the last batch may have fewer.
          out: memory for `batch_size` images. Every batch overwrites the images of the one before.
          options: the other options of `sample`. With `pool` the networks run only for the first batch, unless this
            generator makes another pool in the meantime.
        Returns:
          An iterator, which renders a batch when it is asked for it. seed=None draws one seed for all of them.
        Raises:
          TypeError, ValueError: as `sample`, and at once: before the first batch.
        """
        asked = SampleOptions.collect("sample", {"seed": seed, "truncation": truncation, **options})
        return self._pipeline.batches(
            asked, n, batch_size, start=start, indices=indices, noise=noise, out=out
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
        """Batches of samples `start` to `stop - 1` for a training loop, made in the background or between its steps.

        Args:
          batch_size: samples in a batch, at least 1; the last batch may have fewer.
          seed: as for `sample`; None draws one, which is in `stream.seed`.
          stop: None is without end.
          prefetch: how many batches a background thread has made or is making, at most. With 0 there is no thread:
            batches are made when they are asked for, on the threads of PyTorch where it is loaded. Use that for a
            training on the CPU. From a pool up to 16 small batches are then made in one go. It has no effect on a GPU.
          options: of `sample`, such as `pool` and `refresh`; not `indices`, `noise` and `out`.
        Returns:
          A `cgnrt.stream.Stream`: an iterator to be used as a context, or closed.
        Raises:
          TypeError, ValueError: as `sample`, and at once.
        """
        asked = SampleOptions.collect("stream", {"seed": seed, **options})
        return self._pipeline.stream(asked, batch_size, start=start, stop=stop, prefetch=prefetch)

    def __call__(
        self,
        shape: Any = None,
        texture: Any = None,
        background: Any = None,
        *,
        seed: int | None = None,
        start: int = 0,
        noise: Any = None,
        parts: bool = SampleOptions.parts,
        out: Any = None,
        **options: Any,
    ) -> Batch:
        """`sample` with the given labels set: class indices or names, one for all samples or (n,) each.

        n is the common length of the labels or the noise; labels left out are drawn. `options` are others of `sample`:
        n, indices, labels, classes, shared_noise, per_noise, hold, distinct, truncation and place.
        """
        if options.get("n") is not None and out is None:
            self._pipeline.renderer.check_room(check_index("n", options["n"]))
        request = self.prepare(shape, texture, background, seed=seed, start=start, noise=noise, **options)
        return self._pipeline.renderer.render(request, parts, out)

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
        """The checked request of a call, for `render`; arguments as for the call, without `parts` and `out`."""
        check_names("sample", options, _CALL_OPTIONS)
        n, indices = options.pop("n", None), options.pop("indices", None)
        return self._pipeline.resolver.call(
            SampleOptions(seed=seed, **options),
            dict(zip(MECHANISMS, (shape, texture, background), strict=True)),
            n=n,
            start=start,
            indices=indices,
            noise=noise,
        )

    def drop_pool(self) -> None:
        """Forget the kept pool: the next call with `pool` runs the networks for all of its entries."""
        self._pipeline.renderer.drop_pool()

    def render(self, requests: Sequence[Request], *, parts: bool = False) -> list[Batch]:
        """Batches of several prepared requests, run together: pixels are those of each alone to the engine's tolerance.

        The pictures of all are views of one memory.
        """
        return self._pipeline.render(requests, parts)

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
        place: Any = None,
        parts: bool = False,
        progress: Callable[[int], object] | None = None,
    ) -> Batch:
        """Images on the way between two (u, y) pairs (App. D.2).

        Args:
          frames: how many, both ends included; at least 2.
          mechanisms: which of them change: "all", a name or several; the others stay at the first end. "place" is one.
          shape, texture, background: (from, to) labels, or one label for both; None takes those of the two samples.
          seed, start, end: the stream, and the two samples in it that give noise and labels.
          noise: a `batch.noise` of length 2, the two ends; instead of those of the stream.
          place: where the object is at the two ends, as for `sample`; between them on a straight line.
          progress: called with the number of frames made since its last call.
        Returns:
          A Batch of `frames` images; `labels` are those of the nearer end, rolls those of the first.
        """
        from cgnrt.request.interpolation import Interpolation  # programs without one start faster

        path = Interpolation(
            frames=frames,
            mechanisms=mechanisms,
            labels=dict(zip(MECHANISMS, (shape, texture, background), strict=True)),
            seed=seed,
            start=start,
            end=end,
            noise=noise,
            truncation=truncation,
            place=place,
        )
        return self._pipeline.interpolate(path, parts, progress)

    def related(
        self,
        *,
        seed: int | None,
        indices: Any,
        truncation: float | None = None,
        distinct: bool = False,
        place: Any = None,
    ) -> Counterfactuals:
        """Images of the same noise that differ only in labels; a mechanism runs once for each of its labels (Sec. 2.2).

        Args:
          seed, indices, truncation, distinct, place: as for `sample`. Noise and rolls are those of these samples.
        """
        options = SampleOptions(seed=seed, truncation=truncation, distinct=distinct, place=place)
        return Counterfactuals(
            self._pipeline.renderer,
            self._pipeline.resolver.request(options, resolve_indices(None, 0, indices)),
        )

    def close(self) -> None:
        """Free the engines, the kept pool, and the plan file if this generator opened it.

        Batches stay as they are; another call is an error. Copies by `with_threads` and `with_pixels` share the plan,
        and must not be used afterwards. May be called again.
        """
        self._pipeline.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Copies with other options, and in other processes.

    def with_threads(self, threads: int | None) -> Self:
        """The same plan and options with another number of threads, and engines of its own."""
        return self._with(self._pipeline.with_threads(threads))

    def with_pixels(self, dtype: str | np.dtype[Any] | type[np.generic] | TorchDtype, layout: str) -> Self:
        """The same plan and engines with images in another form and its default range. The two take turns."""
        return self._with(self._pipeline.with_pixels(dtype_name(dtype), layout))

    def _with(self, pipeline: Pipeline) -> Self:
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._pipeline = pipeline
        return other

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (type(self), self._absolute, self.plan.digest, self._pipeline.options)


# What `generator(...)` takes besides labels, seed, start and noise.
_CALL_OPTIONS = {*OPTION_NAMES, "n", "indices"} - {"seed", "do", "pool", "refresh", "parts"}


def _reopen(kind: type[Generator], path: str, digest: str, options: GeneratorOptions) -> Generator:
    generator = kind(path, **vars(options))
    generator.plan.check_digest(digest, "this generator was made")
    return generator
