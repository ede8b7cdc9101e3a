"""The machine: processor, cores and extensions."""

from __future__ import annotations

import ctypes
import itertools
import os
from typing import Any

from cgnrt import _core

# The extensions that make engines faster in low precision, with the kernel's names.
_MATRIX = ("avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8", "amx_fp16")
_VECTOR = ("avx2", "fma", "f16c", "avx512f")

_KEEP = {-4: 0, -1: 2**31 - 1, -2: 2**26}  # malloc.h: M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD


def describe_machine() -> dict[str, Any]:
    """The processor, usable cores, vector and matrix extensions. Extensions are known on Linux only."""
    import platform

    fields = _cpuinfo()
    flags = set(fields.get("flags", fields.get("Features", "")).split())
    return {
        "cpu": fields.get("model name") or platform.processor() or platform.machine(),
        "cores": available_cores(),
        "vector_extensions": [name for name in _VECTOR if name in flags],
        "matrix_extensions": [name for name in _MATRIX if name in flags],
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def available_cores() -> int:
    """The number of cores that this process may use: no more than its CPU affinity and its container's quota allow."""
    cpus: int = _core.build_info()["cpu"]["cpus"]
    return cpus


def limit_torch_threads() -> None:
    """Let torch take no more threads than there are available cores; it knows no quotas. OMP_NUM_THREADS prevails."""
    import torch

    if "OMP_NUM_THREADS" not in os.environ and available_cores() < torch.get_num_threads():
        torch.set_num_threads(available_cores())


def keep_freed_memory() -> None:
    """Let the C library keep what is freed for the next allocation, where it can be told to (glibc).

    By default it gives large blocks back, and a training step, which allocates the same again, spends a sixth of its
    time on new pages.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or another system
        return
    for option, value in _KEEP.items():
        mallopt(option, value)


def _cpuinfo() -> dict[str, str]:
    try:
        with open("/proc/cpuinfo") as file:
            # One processor is enough: the kernel is slow to write the others.
            first = list(itertools.takewhile(str.strip, file))
    except FileNotFoundError:  # not Linux
        return {}
    pairs = (line.partition(":") for line in first)
    return {key.strip(): value.strip() for key, _, value in pairs}
