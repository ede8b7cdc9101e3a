"""PyTorch itself: which devices it can use here, what memory they have, and its settings around a run."""

from __future__ import annotations

import contextlib
import multiprocessing.context
import os
import warnings
from collections.abc import Iterator
from typing import Any

import torch

from cgnrt import _core
from cgnrt._support.machine import available_cores
from cgnrt.backends.base import Device
from cgnrt.errors import BackendError

# Kinds of device on which weights and pictures have the channels last, because convolutions are faster that way.
_CHANNELS_LAST = ("cpu", "cuda", "xpu")
_BF16_CAPABILITY = (8, 0)
_HALF = {"bf16": {"avx512_bf16", "amx_bf16"}, "fp16": {"avx512_fp16", "amx_fp16"}}
_pid = os.getpid()
_MEMORY_WORDS = ("out of memory", "can't allocate memory", "not enough memory")


def torch_device(device: Device) -> torch.device:
    """torch's name of a device."""
    return torch.device("cpu") if device.kind == "cpu" else torch.device(device.kind, device.index)


def channels_last(device: torch.device) -> bool:
    """Whether weights and pictures have the channels last."""
    return device.type in _CHANNELS_LAST


def refusal(device: Device, precision: str) -> str | None:
    """Why torch cannot run a precision on a device, and what to do; None where it can."""
    if device.kind == "cpu":
        features = _core.build_info()["cpu"]["features"]
        if precision == "fp32" or not _HALF[precision].isdisjoint(features):
            return None
        return f"this processor has no {precision} instructions, where torch is hundreds of times slower"
    if (reason := _device_refusal(device)) is not None:
        return reason
    if precision == "bf16" and not _has_bf16(device):
        return f"{device} has no bf16"
    return None


def _device_refusal(device: Device) -> str | None:
    kind, version = device.kind, torch.__version__
    if not _is_built(kind):
        return f"torch {version} is built without {kind}. Install a build with it: https://pytorch.org/get-started"
    module = torch.get_device_module(kind)
    if getattr(module, "_is_in_bad_fork", lambda: False)():
        return (
            f"this process was forked from one that used {kind}, which does not survive a fork. "
            "Start workers with multiprocessing_context='spawn'"
        )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        count = module.device_count() if module.is_available() else 0
    if not count:
        cause = f" ({' '.join(str(caught[0].message).split())})" if caught else ""
        return f"torch {version} finds no {kind} device or no driver{cause}"
    if not 0 <= device.index < count:
        there = f"{kind}:0" if count == 1 else f"{kind}:0 to {kind}:{count - 1}"
        return f"there is no {device}, only {there}"
    return None


def _is_built(kind: str) -> bool:
    if kind == "cuda":
        return torch.version.cuda is not None or torch.version.hip is not None
    if kind == "mps":
        return torch.backends.mps.is_built()
    if kind == "xpu":
        return bool(getattr(torch.version, "xpu", None))
    return hasattr(torch, kind)  # a device that another package brought along


def _has_bf16(device: Device) -> bool:
    if device.kind == "cuda" and torch.version.hip is None:
        return torch.cuda.get_device_capability(device.index) >= _BF16_CAPABILITY
    return device.kind != "mps" or torch.backends.mps.is_macos_or_newer(14, 0)


def free_bytes(device: torch.device) -> int | None:
    """Memory of a device that is free, or held by torch without use; None where that is not known."""
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    module: Any = None if device.type == "cpu" else torch.get_device_module(device)
    if not hasattr(module, "mem_get_info"):
        return None
    unused = module.memory_reserved(device) - module.memory_allocated(device)
    return int(module.mem_get_info(device)[0]) + int(unused)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch says that there is too little memory."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _MEMORY_WORDS)


def first_line(error: BaseException) -> str:
    """What an error says in its first line, or its name."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def missing_operation(error: Exception, subject: str, device: torch.device) -> BackendError | None:
    """The error for an operation that a device does not have; None if `error` says something else."""
    if not isinstance(error, NotImplementedError):
        return None
    return BackendError(f"{subject}: an operation is not supported by torch on {device}: {first_line(error)}")


@contextlib.contextmanager
def settings(device: torch.device, *, tf32: bool, threads: int | None = None) -> Iterator[None]:
    """A context around work whose result must not depend on the settings of torch in this process.

    There are no gradients and no autocast. float32 is computed in float32, or with `tf32` in TF32 on NVIDIA's cards.

    Args:
      threads: on the CPU; None takes the cores that this process may use.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        if torch.is_autocast_enabled(device.type):
            stack.enter_context(torch.autocast(device.type, enabled=False))
        stack.enter_context(_attributes(_products(device, "tf32" if tf32 else "ieee")))
        if device.type == "cpu":
            wanted, before = _threads(threads), torch.get_num_threads()
            if wanted != before:
                torch.set_num_threads(wanted)
                stack.callback(torch.set_num_threads, before)
        yield


def _threads(asked: int | None) -> int:
    """How many threads the CPU's operations may have: one in a forked process, since OpenMP's do not survive a fork."""
    forks: Any = getattr(multiprocessing.context, "ForkProcess", ())
    if os.getpid() != _pid or isinstance(multiprocessing.process.current_process(), forks):
        return 1
    return asked or available_cores()


def _products(device: torch.device, precision: str) -> list[tuple[Any, str, Any]]:
    """The settings of float32's products and convolutions on a kind of device: owner, name and value."""
    backends: Any = torch.backends
    new = "fp32_precision"
    if not hasattr(backends.cuda.matmul, new):  # before torch 2.9
        if device.type != "cuda":
            return []
        allowed = precision == "tf32"
        return [(backends.cuda.matmul, "allow_tf32", allowed), (backends.cudnn, "allow_tf32", allowed)]
    if device.type == "cuda":
        return [(backends.cuda.matmul, new, precision), (backends.cudnn.conv, new, precision)]
    # The CPU and Intel's GPUs.
    return [(backends.mkldnn.matmul, new, "ieee"), (backends.mkldnn.conv, new, "ieee")]


@contextlib.contextmanager
def _attributes(wanted: list[tuple[Any, str, Any]]) -> Iterator[None]:
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in wanted]
    try:
        for owner, name, value in wanted:
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)
