"""From a trained module to its inference form: the same function with less work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from cgnrt_export.graph import tidy, trace
from cgnrt_export.rewrites import REWRITES


@dataclass(frozen=True)
class InferenceForm:
    """A module rewritten for inference.

    Attributes:
      module: called as the original was; computes the same up to rounding.
      rewrites: how often each rewrite was applied, by its name in `REWRITES`.
      macs_before, macs_after: multiply-adds for one image in matrix products and convolutions.
    """

    module: fx.GraphModule
    rewrites: dict[str, int]
    macs_before: int
    macs_after: int


def inference_form(module: nn.Module, inputs: Mapping[str, Tensor]) -> InferenceForm:
    """Rewrite a copy of a module for inference.

    Args:
      module: called with the tensors of `inputs` as positional arguments; left as it is. The form is that of
        its eval mode.
      inputs: example inputs by name, batch first, all of one batch size of two or more.
    Raises:
      Exception: whatever torch.export raises on a module that it cannot capture.
    """
    traced = trace(module, inputs)
    one = [value[:1] for value in inputs.values()]
    macs_before = count_macs(traced, *one)
    rewrites = {name: rewrite(traced) for name, rewrite in REWRITES.items()}
    form = tidy(traced)
    return InferenceForm(form, rewrites, macs_before, count_macs(form, *one))


def count_macs(module: nn.Module, *inputs: Tensor) -> int:
    """Multiply-adds of one call in matrix products, convolutions and attention; nothing element-wise."""
    # On tensors without data: only shapes matter, and a large network would take seconds.
    with FakeTensorMode(allow_non_fake_inputs=True) as fake, torch.no_grad():
        given = [fake.from_tensor(value) for value in inputs]
        with FlopCounterMode(display=False) as counter:
            module(*given)
    return int(counter.get_total_flops()) // 2
