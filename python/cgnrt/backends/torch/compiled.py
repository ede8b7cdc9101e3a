"""torch.compile: fuses operations into kernels of their own, separately for each batch size.

The first run of a size takes several seconds to minutes. The kernels are kept in a folder of this machine, as
TensorRT's engines are, for later processes. They are never stored in a plan.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from cgnrt._support.files import cache_folder
from cgnrt.errors import BackendError

_FOLDER = "TORCHINDUCTOR_CACHE_DIR"


class Compiled:
    """A module compiled for batch sizes, each at its first run.

    Args:
      batches: the sizes; empty: every size that is run.
    """

    def __init__(self, module: fx.GraphModule, name: str, batches: frozenset[int]) -> None:
        self._module = module
        self._name = name
        self._batches = batches
        self._made: dict[int, Callable[..., Any]] = {}

    def takes(self, n: int) -> bool:
        """Whether runs of n samples are compiled."""
        return n in self._batches or not self._batches

    def run(self, n: int, arguments: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The outputs for n samples; the first run of a size compiles it."""
        if n in self._made:
            found: tuple[Tensor, ...] = self._made[n](*arguments)
            return found
        # A module for each size, with the same weights: torch compiles one function for a few sizes only.
        made = torch.compile(fx.GraphModule(self._module, self._module.graph), dynamic=False, fullgraph=True)
        try:
            with _kept():
                found = made(*arguments)
        except Exception as error:
            # torch's first line names the compiler, its second one says what is wrong.
            cause = " ".join([line.strip() for line in str(error).splitlines() if line.strip()][:2])
            raise BackendError(
                f"run '{self._name}': torch.compile failed for a batch of {n}: {cause}. "
                "Leave compile=True out, or install what it needs (a C++ compiler; Triton on a GPU)."
            ) from error
        self._made[n] = made
        return found


@contextlib.contextmanager
def _kept() -> Iterator[None]:
    """Let torch keep what it compiles in cgnrt's folder, unless the user's environment names another."""
    before = os.environ.get(_FOLDER)
    # torch writes its default there when its compiler is imported.
    own = None if before is None else Path(before)
    if own is not None and not (
        own.parent == Path(tempfile.gettempdir()) and own.name.startswith("torchinductor_")
    ):
        yield
        return
    folder = cache_folder("torch")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.environ[_FOLDER] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ[_FOLDER]
        else:
            os.environ[_FOLDER] = before
