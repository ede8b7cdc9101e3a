"""What a figure was measured on."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

from cgnrt.backends.base import available_cores

# What engines gain from in low precision, by the kernel's names for it.
_MATRIX = ("avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8", "amx_fp16")
_VECTOR = ("avx2", "fma", "f16c", "avx512f")


def describe_machine() -> dict[str, Any]:
    """Processor, usable cores, and its vector and matrix extensions (Linux; elsewhere the name alone)."""
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


def _cpuinfo() -> dict[str, str]:
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    first, _, _ = path.read_text().partition("\n\n")
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}
