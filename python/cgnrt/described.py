"""What a generator is: its plan, engines and form of images, all read-only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cgnrt.pipeline import Pipeline
from cgnrt.plan import Plan


class Described:
    """What `Generator` says of itself."""

    _pipeline: Pipeline

    @property
    def plan(self) -> Plan:
        return self._pipeline.plan

    @property
    def backend(self) -> str:
        return self._pipeline.choice.backend.name

    @property
    def device(self) -> str:
        return str(self._pipeline.choice.device)

    @property
    def precision(self) -> str:
        return self._pipeline.choice.precision

    @property
    def reason(self) -> str:
        """Why this backend and precision."""
        return self._pipeline.choice.reason

    @property
    def threads(self) -> int | None:
        """Of the engines and the composer; None is the cores that this process may use."""
        return self._pipeline.options.threads

    @property
    def resolution(self) -> tuple[int, int]:
        """Height and width of the images."""
        return self._pipeline.resolution

    @property
    def dtype(self) -> str:
        """Of the images: "float32", "float16", "bfloat16" or "uint8"."""
        return self._pipeline.pixels.dtype

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Of one image: (3, h, w), or (h, w, 3) for the NHWC layout."""
        return self._pipeline.pixels.shape(1, *self.resolution)[1:]

    @property
    def classes(self) -> Mapping[str, tuple[str, ...]]:
        """Class names of each mechanism, by index."""
        return self._pipeline.resolver.names.names

    @property
    def cuda_stream(self) -> Any:
        """The `cgnrt.cuda.Stream` that batches are made on; None on the CPU. `.ptr` is its handle."""
        return self._pipeline.renderer.stream

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({str(self.plan.path)!r}, backend={self.backend!r}, device={self.device!r}, "
            f"precision={self.precision!r}: {self.reason})"
        )
