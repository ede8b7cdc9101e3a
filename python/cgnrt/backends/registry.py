"""Every backend, as far as it is known without importing its module or its engine library.

A new backend is a module with a class that has the protocol of `base.Backend`, and a line here.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cgnrt._support.machine import has_amx
from cgnrt.backends.base import TENSORRT_PACKAGES, Backend


@dataclass(frozen=True)
class Registration:
    """One backend.

    Attributes:
      name: what a caller asks for it by.
      make: imports its module and makes the backend.
      extras: the kinds of device that it runs on, each with the extra of cgnrt that installs it there; None for a
        backend that comes with cgnrt.
      packages: import names, any one of which is enough; none where it comes with cgnrt.
      fp32_is_faster: whether its fp32 is faster on this machine than lower precisions are in any other backend.
    """

    name: str
    make: Callable[[], Backend]
    extras: Mapping[str, str | None]
    packages: tuple[str, ...] = ()
    fp32_is_faster: Callable[[], bool] = lambda: False

    @functools.cached_property
    def backend(self) -> Backend:
        """The backend itself, whose module is imported at the first use."""
        return self.make()

    def installed(self) -> bool:
        """Whether its package is there, told without importing it."""
        return not self.packages or any(importlib.util.find_spec(name) for name in self.packages)

    def version(self) -> str:
        """The version of the engine library, which is imported."""
        return self.backend.version()


def _native() -> Backend:
    from cgnrt.backends.native import NativeBackend

    return NativeBackend()


def _openvino() -> Backend:
    from cgnrt.backends.openvino import OpenVinoBackend

    return OpenVinoBackend()


def _tensorrt() -> Backend:
    from cgnrt.backends.tensorrt import TensorRtBackend

    return TensorRtBackend()


def _onnxruntime() -> Backend:
    from cgnrt.backends.onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend()


# On each kind of device "auto" tries them in this order: the fastest first (docs/performance.md for the CPU).
BACKENDS: dict[str, Registration] = {
    entry.name: entry
    for entry in (
        Registration("native", _native, {"cpu": None}, fp32_is_faster=lambda: not has_amx()),
        Registration("openvino", _openvino, {"cpu": "cpu"}, ("openvino",)),
        Registration("tensorrt", _tensorrt, {"cuda": "tensorrt"}, TENSORRT_PACKAGES),
        Registration("onnxruntime", _onnxruntime, {"cpu": "cpu", "cuda": "gpu"}, ("onnxruntime",)),
    )
}


def backends_for(kind: str) -> list[Registration]:
    """Every backend for a kind of device, installed or not, the fastest first."""
    return [entry for entry in BACKENDS.values() if kind in entry.extras]
