"""A torch module as a classifier: in evaluation mode, with images on its device."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def is_module(value: object) -> bool:
    """Whether it is a `torch.nn.Module`. Does not import torch: before that is imported there are no modules."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.nn.Module)


@contextmanager
def classifying(module: Any) -> Iterator[Callable[[Any], Any]]:
    """The module as a function of images on any device; afterwards all its parts are in the mode they were in."""
    tensors = itertools.chain(module.parameters(), module.buffers())
    device = next((tensor.device for tensor in tensors), None)
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield lambda images: module(images if device is None else images.to(device))
    finally:
        for part, training in modes:
            part.training = training
