"""A torch device that no library knows, made in Python: stands in for those that cannot be tried here.

Its tensors hide CPU tensors. They meet no tensor of the CPU in one operation, cannot be read by NumPy, and an operation
that the device lacks is torch's own error. It comes as a package's device does: torch has its module, `torch.standin`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import backend_registration

from cgnrt.backends import BACKENDS, base

NAME = "standin"
_map = torch.utils._pytree.tree_map
# Operations that make a tensor from numbers alone; all others have a tensor of the device among their operands.
_FACTORIES = ("empty.memory_format", "empty_strided", "arange.start_out", "arange.out", "full.out")


class Stream:
    """Notes which streams it was made to wait for."""

    def __init__(self) -> None:
        self.waited: list[Stream] = []

    def wait_stream(self, other: Stream) -> None:
        self.waited.append(other)


class DeviceModule(SimpleNamespace):
    """What torch asks of a device, and what a test may change: `count`, `free`, `full`, `bad_fork`,
    `missing` (names of operations), `stream`."""

    def __init__(self) -> None:
        super().__init__(count=1, free=10**9, bad_fork=False, missing=set(), stream=Stream(), full=False)

    def is_available(self) -> bool:
        return self.count > 0

    def is_initialized(self) -> bool:
        return True

    def device_count(self) -> int:
        return int(self.count)

    def current_device(self) -> int:
        return 0

    def current_stream(self, device: Any = None) -> Stream:
        found: Stream = self.stream
        return found

    def mem_get_info(self, device: Any = None) -> tuple[int, int]:
        return self.free, 10**9

    def memory_reserved(self, device: Any = None) -> int:
        return 0

    def memory_allocated(self, device: Any = None) -> int:
        return 0

    def _is_in_bad_fork(self) -> bool:
        return bool(self.bad_fork)

    def manual_seed_all(self, seed: int) -> None:
        """Its numbers are drawn on the CPU."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16]


module = DeviceModule()


class StandInTensor(Tensor):
    """Of the form of the tensor that it hides."""

    raw: Tensor

    @staticmethod
    def __new__(cls, raw: Tensor) -> StandInTensor:
        made: StandInTensor = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            raw.size(),
            strides=raw.stride(),
            storage_offset=raw.storage_offset(),
            dtype=raw.dtype,
            device=torch.device(NAME, 0),
        )
        made.raw = raw
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(function, args, kwargs or {})


def _run(function: Any, args: Any, kwargs: Any) -> Any:
    name = function.name().removeprefix("aten::")
    if name.partition(".")[0] in module.missing:
        raise NotImplementedError(
            f"Could not run 'aten::{name}' with arguments from the '{NAME}' backend.\nMore lines of torch's."
        )
    if module.full and name.partition(".")[0] == "addmm":
        raise torch.OutOfMemoryError("no more memory")
    copies = name.partition(".")[0] in ("copy_", "_to_copy")
    wrappers: dict[int, StandInTensor] = {}

    def hidden(value: Any) -> Any:
        if isinstance(value, StandInTensor):
            wrappers[id(value.raw)] = value
            return value.raw
        if isinstance(value, Tensor) and value.dim() and not copies:
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but found {NAME} and cpu: {name}"
            )
        if isinstance(value, torch.device) and value.type == NAME:
            return torch.device("cpu")
        return value

    leaves = kwargs.get("device")
    to_host = leaves is not None and torch.device(leaves).type != NAME
    found = function(*_map(hidden, args), **_map(hidden, kwargs))
    if to_host:
        return found

    def shown(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return wrappers[id(value)] if id(value) in wrappers else StandInTensor(value)

    return _map(shown, found)


def register(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let cgnrt know it as one more kind of device of the torch backend, for one test."""
    install()
    extras = {**BACKENDS["torch"].extras, NAME: "torch"}
    monkeypatch.setattr(base, "KINDS", (*base.KINDS, NAME))
    monkeypatch.setitem(BACKENDS, "torch", replace(BACKENDS["torch"], extras=extras))


def _copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    """How torch copies where it does not ask Python, as in `torch.tensor`."""
    there, here = (tensor.raw if isinstance(tensor, StandInTensor) else tensor for tensor in (target, source))
    there.copy_(here)
    return target


@contextlib.contextmanager
def fresh() -> Iterator[DeviceModule]:
    """The device's module as new, for one test."""
    module.__init__()  # type: ignore[misc]
    yield module
    module.__init__()  # type: ignore[misc]


_library: Any = None


def install() -> None:
    """Let torch know the device; once in a process."""
    global _library
    if _library is not None:
        return
    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=module)
    _library = torch.library.Library("aten", "IMPL")
    _library.impl("_copy_from", _copy_from, "PrivateUse1")
    for name in _FACTORIES:
        packet, _, overload = name.partition(".")
        function = getattr(getattr(torch.ops.aten, packet), overload or "default")

        def make(*args: Any, function: Any = function, **kwargs: Any) -> Any:
            return _run(function, args, kwargs)

        _library.impl(name, make, "PrivateUse1")
