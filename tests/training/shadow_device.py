"""A CUDA device that is not there: its tensors lie in the host's memory, but may not be mixed with the CPU's.

While `Shadow` is entered, whatever asks torch for "cuda" gets memory of the host that is remembered as the device's. A
call with tensors of both, the NumPy view of a device's tensor and a generator of the other device are errors, as they
are on a GPU. Values are the CPU's own, so that a whole job runs, and can be compared with its run on the CPU.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

_MOVES = {
    *(Tensor.to, Tensor.copy_, Tensor.__setitem__, Tensor.data.__set__, Tensor.grad.__set__),
    torch._has_compatible_shallow_copy_type,
}
_VIEWS_OF_THE_HOST = {Tensor.numpy, Tensor.__array__}
_CUDA = torch.device("cuda", 0)


class MixedDevicesError(AssertionError):
    """A call that a GPU refuses."""


class Shadow(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self._storages: dict[int, Any] = {}  # kept, so that no address is used again
        self.calls = 0  # with tensors of the device

    def holds(self, tensor: Tensor) -> bool:
        """Whether a tensor is the device's."""
        return tensor.untyped_storage()._cdata in self._storages

    def _keep(self, found: Any) -> Any:
        for tensor in tree_leaves(found):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self._storages[storage._cdata] = storage
        return found

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        ours = [tensor for tensor in tensors if self.holds(tensor)]
        self.calls += bool(ours)
        if func == Tensor.device.__get__:
            return _CUDA if ours else func(*args, **kwargs)
        if func == Tensor.cpu:
            return args[0].clone() if ours else args[0]
        if ours and func in _VIEWS_OF_THE_HOST:
            raise MixedDevicesError("the device's memory has no NumPy view")
        if func == Tensor.to:
            return self._moved(func, args, kwargs, bool(ours))
        if ours and func not in _MOVES:
            mixed = [tensor for tensor in tensors if tensor.dim() and not self.holds(tensor)]
            # A device's tensor may be indexed by the CPU's.
            if mixed and not (func == Tensor.__getitem__ and self.holds(args[0])):
                raise MixedDevicesError(f"{func} with tensors of both devices")
        elif func == Tensor.__getitem__ and ours:
            raise MixedDevicesError("the CPU's tensor indexed by the device's")
        made_here = self._takes_device(kwargs)
        if made_here and kwargs.get("generator") is not None:
            raise MixedDevicesError(f"{func} on the device with the CPU's generator")
        found = func(*args, **kwargs)
        if func in (Tensor.copy_, Tensor.__setitem__) and not self.holds(args[0]):
            return found
        return self._keep(found) if ours or made_here else found

    def _takes_device(self, kwargs: dict[str, Any]) -> bool:
        """Whether a call asks for the device; it then gets the host."""
        if (device := kwargs.get("device")) is None or torch.device(device).type != "cuda":
            return False
        kwargs["device"] = torch.device("cpu")
        return True

    def _moved(self, func: Any, args: Any, kwargs: dict[str, Any], from_here: bool) -> Any:
        source, *rest = args
        named = [a for a in rest if isinstance(a, str | torch.device)] + [kwargs.get("device")]
        asked = next((torch.device(a) for a in named if a is not None), None)
        to_here = from_here if asked is None else asked.type == "cuda"
        rest = [torch.device("cpu") if isinstance(a, str | torch.device) else a for a in rest]
        self._takes_device(kwargs)
        found = func(source, *rest, **kwargs)
        if to_here == from_here:
            return self._keep(found) if to_here else found
        return self._keep(found.clone()) if to_here else found.clone()
