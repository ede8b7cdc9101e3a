"""A plan opened for sampling: its engines chosen, its sampler and composer made, and how it goes to other processes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from cgnrt.backends import EngineOptions, choose
from cgnrt.errors import PlanError
from cgnrt.plan import Plan
from cgnrt.render import make_renderer
from cgnrt.render.pixels import PixelFormat
from cgnrt.request.labels import ClassNames
from cgnrt.request.resolver import Resolver
from cgnrt.sampling import STREAM_VERSION, MechanismDraws, Sampler


class Opened:
    """What a `Generator` is, apart from what it makes; arguments and errors are documented there."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        device: str = "auto",
        backend: str = "auto",
        precision: str = "auto",
        threads: int | None = None,
        dtype: str = "float32",
        layout: str = "NCHW",
        range: Sequence[float] | None = None,
        normalize: tuple[Sequence[float], Sequence[float]] | None = None,
        shared_noise: bool | None = None,
        trust_engines: bool = False,
        rebuild: bool = False,
        engine_batches: Sequence[int] | None = None,
    ) -> None:
        self._options: dict[str, Any] = {
            "device": device,
            "backend": backend,
            "precision": precision,
            "threads": threads,
            "dtype": dtype,
            "layout": layout,
            "range": range,
            "normalize": normalize,
            "shared_noise": shared_noise,
            "trust_engines": trust_engines,
            "rebuild": rebuild,
            "engine_batches": engine_batches,
        }
        _check_threads(threads)
        self.plan = Plan.open(path)
        self._absolute = str(Path(path).absolute())  # for workers, wherever they are started
        manifest = self.plan.manifest
        if manifest.stream_version != STREAM_VERSION:
            raise PlanError(
                f"load '{path}': stream version is {manifest.stream_version}, expected {STREAM_VERSION}. "
                "Use the cgnrt that made it, or export again with cgnrt-export."
            )
        self.resolution = (manifest.resolution[0], manifest.resolution[1])
        mechanisms = self.plan.mechanisms
        source = mechanisms["texture"].spec.range
        self._pixels = PixelFormat.make(
            dtype=dtype, layout=layout, range=range, normalize=normalize, source=source
        )
        sampler = Sampler(
            {
                name: MechanismDraws(
                    len(m.classes), m.spec.noise.size, m.spec.noise.distribution, bool(m.spec.roll)
                )
                for name, m in mechanisms.items()
            },
            self.resolution,
        )
        shared = (manifest.noise_mode == "shared") if shared_noise is None else bool(shared_noise)
        if shared and not sampler.can_share_noise:
            raise ValueError(
                f"load '{path}': shared_noise is on, expected one noise size and distribution for all mechanisms."
            )
        names = ClassNames({name: m.classes for name, m in mechanisms.items()})
        self._resolver = Resolver(sampler, names, manifest.truncation, shared)
        self._engines = EngineOptions(
            bool(trust_engines), bool(rebuild), None if engine_batches is None else tuple(engine_batches)
        )
        self._choice = choose(
            f"'{path}'",
            backend=backend,
            device=device,
            precision=precision,
            default_precision=manifest.precision,
            mechanisms=list(mechanisms.values()),
            plan=self.plan,
            options=self._engines,
        )
        self.plan.release_pages()  # whose graphs and weights the backends have looked at
        self._renderer = make_renderer(
            self.plan, self._resolver.sampler, self._pixels, self._choice, self._engines, threads
        )

    # What it is.

    @property
    def backend(self) -> str:
        return self._choice.backend.name

    @property
    def device(self) -> str:
        return str(self._choice.device)

    @property
    def cuda_stream(self) -> Any:
        """The `cgnrt.cuda.Stream` that batches are made on; None on the CPU. `.ptr` is its handle."""
        return self._renderer.stream

    @property
    def threads(self) -> int | None:
        """Of the engines and the composer; None is the cores that this process may use."""
        threads: int | None = self._options["threads"]
        return threads

    def with_threads(self, threads: int | None) -> Self:
        """The same plan and options with another number of threads, and engines of its own."""
        _check_threads(threads)
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._options = {**self._options, "threads": threads}
        other._renderer = make_renderer(
            self.plan, self._resolver.sampler, self._pixels, self._choice, self._engines, threads
        )
        return other

    def with_pixels(self, dtype: str, layout: str) -> Self:
        """The same plan and engines with images in another form, in its usual range. The two take turns."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._options = {
            **self._options,
            "dtype": dtype,
            "layout": layout,
            "range": None,
            "normalize": None,
        }
        source = self.plan.mechanisms["texture"].spec.range
        other._pixels = PixelFormat.make(
            dtype=dtype, layout=layout, range=None, normalize=None, source=source
        )
        other._renderer = self._renderer.with_pixels(other._pixels)
        return other

    def drop_pool(self) -> None:
        """Forget the kept pool: the next call with `pool` runs the networks for all of its entries."""
        self._renderer.drop_pool()

    @property
    def dtype(self) -> str:
        """Of the images: "float32", "float16", "bfloat16" or "uint8"."""
        return self._pixels.dtype

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Of one image: (3, h, w), or (h, w, 3) for the NHWC layout."""
        return self._pixels.shape(1, *self.resolution)[1:]

    @property
    def precision(self) -> str:
        return self._choice.precision

    @property
    def reason(self) -> str:
        """Why this backend and precision."""
        return self._choice.reason

    @property
    def classes(self) -> Mapping[str, tuple[str, ...]]:
        """Class names of each mechanism, by index."""
        return self._resolver.names.names

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({str(self.plan.path)!r}, backend={self.backend!r}, device={self.device!r}, "
            f"precision={self.precision!r}: {self.reason})"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (type(self), self._absolute, self.plan.digest, self._options)


def _check_threads(threads: Any) -> None:
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise ValueError(f"load: threads is {threads!r}, expected an int of at least 1, or None.")


def _reopen(kind: type[Opened], path: str, digest: str, options: dict[str, Any]) -> Opened:
    generator = kind(path, **options)
    if generator.plan.digest != digest:
        raise PlanError(
            f"load '{path}': digest is {generator.plan.digest[:12]}, expected {digest[:12]}. "
            "The file was replaced since this generator was made."
        )
    return generator
