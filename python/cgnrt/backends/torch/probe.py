"""What can be told of a PyTorch installation without importing it, which takes more than a second."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
from pathlib import Path

from cgnrt import cuda
from cgnrt._support.reading import read_text
from cgnrt.backends.base import AMD_DRIVER


@functools.cache
def may_run_on(kind: str) -> bool:
    """Whether "auto" is to import torch for a kind of device: this installation may run there."""
    if kind != "cuda":
        return True  # nothing else runs there
    built_for = _accelerator()
    if built_for == "cuda":
        return cuda.finds_driver()
    return built_for == "hip" and os.path.exists(AMD_DRIVER)


def _accelerator() -> str | None:
    """What torch is built for besides the CPU: "cuda" or "hip"; None for neither."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return None
    try:
        text = read_text(Path(found.origin).parent / "version.py")
    except OSError:
        return None
    for name in ("cuda", "hip"):
        if re.search(rf"^{name}\b[^=\n]*= *['\"]", text, re.MULTILINE):
            return name
    return None
