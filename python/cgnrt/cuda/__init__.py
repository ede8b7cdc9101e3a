"""CUDA devices: whether one can be used, and the arrays, streams and events on it.

Importing this loads no CUDA code; what needs a device says why there is none.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

from cgnrt.errors import BackendError

if TYPE_CHECKING:
    from cgnrt._cuda import DeviceArray, Event, Graph, PinnedBuffer, Stream

__all__ = [
    "DeviceArray",
    "Event",
    "Graph",
    "PinnedBuffer",
    "Stream",
    "finds_driver",
    "forked",
    "info",
    "is_cuda",
    "module",
    "on_device",
    "refusal",
]

_CLASSES = ("DeviceArray", "Event", "Graph", "PinnedBuffer", "Stream")
_CUDA_DEVICE = 2  # DLPack's number
_MODULE = "cgnrt._cuda"
_NO_DRIVER = "no NVIDIA driver is there"

# The process that has found a device first.
_first_pid: int | None = None


def refusal(index: int = 0) -> str | None:
    """Why CUDA device `index` cannot be used here, and what to do; None where it can."""
    global _first_pid
    if forked():
        return (
            "this process was forked from one that used CUDA, which does not survive a fork. "
            "Start workers with multiprocessing_context='spawn'"
        )
    # Told without CUDA code, which takes milliseconds to load.
    if _MODULE not in sys.modules and importlib.util.find_spec(_MODULE) and not finds_driver():
        return f"{_NO_DRIVER}. Install one"
    try:
        found = info()
    except BackendError as error:
        return f"CUDA does not start: {error}. Look at what nvidia-smi says"
    if found is None:
        return (
            "this build of cgnrt has no CUDA kernels. Put CUDA's nvcc on the PATH and install cgnrt from its sources "
            "again: pip install . -Ccmake.define.CGNRT_CUDA=ON"
        )
    if found["driver"] is None:
        return f"{_NO_DRIVER}. Install one for CUDA {found['runtime']}"
    if _version(found["driver"]) < _version(found["runtime"]) and not found["devices"]:
        return (
            f"the NVIDIA driver runs CUDA {found['driver']}, expected {found['runtime']} or newer. Update it"
        )
    if not found["devices"]:
        return (
            "the NVIDIA driver is there, but no GPU that this process may use. Look at CUDA_VISIBLE_DEVICES"
        )
    _first_pid = os.getpid()  # to ask for the devices is to use the driver
    if not 0 <= index < found["devices"]:
        there = "cuda:0" if found["devices"] == 1 else f"cuda:0 to cuda:{found['devices'] - 1}"
        return f"there is no cuda:{index}, only {there}"
    return None


def forked() -> bool:
    """Whether this process was forked from one that used a device."""
    return _first_pid not in (None, os.getpid())


def info() -> dict[str, Any] | None:
    """What the CUDA part of this build is and what it finds now; None in a build without it.

    Returns:
      "runtime" (CUDA's version at build time), "driver" (the newest that the driver runs, None without one),
      "devices" (how many), "architectures" (compiled for), "emulated".
    """
    try:
        found: dict[str, Any] = _import().info()
    except ModuleNotFoundError as error:
        if error.name != _MODULE:
            raise
        return None
    return found


def is_emulated() -> bool:
    """Whether the device is one whose memory is the host's, as tests have it."""
    found = info()
    return found is not None and bool(found["emulated"])


def module() -> ModuleType:
    """`cgnrt._cuda`.

    Raises:
      BackendError: no device can be used; the message says why.
    """
    reason = refusal()
    if reason is not None:
        raise BackendError(f"cuda: {reason}.")
    return _import()


@contextlib.contextmanager
def on_device(index: int) -> Iterator[None]:
    """Within the block the device is the thread's current one, and after it the one before is.

    For libraries that work on the current device, or make their own the current one.
    """
    there = module()
    before = there.set_device(index)
    try:
        yield
    finally:
        there.set_device(before)


def is_cuda(tensor: Any) -> bool:
    """Whether an object is a tensor on a CUDA device, told without touching its memory."""
    device = getattr(tensor, "__dlpack_device__", None)
    if device is not None:
        return int(device()[0]) == _CUDA_DEVICE
    return not hasattr(tensor, "__array_interface__") and hasattr(tensor, "__cuda_array_interface__")


def _import() -> ModuleType:
    return importlib.import_module(_MODULE)


def finds_driver() -> bool:
    """Whether NVIDIA's driver loads, by the name that the CUDA runtime uses, in WSL and on Tegra, too."""
    import ctypes

    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def __getattr__(name: str) -> Any:
    if name in _CLASSES:
        return getattr(_import(), name)
    raise AttributeError(f"module 'cgnrt.cuda' has no attribute {name!r}")
