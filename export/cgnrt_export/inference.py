"""From a trained module to its inference form: the same function with less work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from cgnrt_export.graph import tidy, trace
from cgnrt_export.rewrites import (
    fold_batch_norm,
    fold_constants,
    fold_pointwise,
    fold_scales,
    hoist_slices,
    merge_duplicates,
    merge_linears,
    merge_lookups,
    merge_upsampling,
    move_pointwise_down,
    name_factors,
    remove_no_ops,
    remove_writes,
    shrink_fills,
    slice_channels,
    split_pointwise,
)

# In order: no-ops and calls in place stand between layers that belong together, and weights must be tensors
# before anything is folded into them. Layers merge before the arithmetic on their results does. A 1x1
# convolution has to reach the layer that it is folded into, and a batch norm goes into a convolution before
# that becomes a transposed one.
REWRITES: Mapping[str, Callable[[fx.GraphModule], int]] = {
    "no-ops removed": remove_no_ops,
    "writes in place removed": remove_writes,
    "constants folded": fold_constants,
    "duplicates merged": merge_duplicates,
    "fills shrunk": shrink_fills,
    "convolutions cut to the channels read": slice_channels,
    "batch norms folded": fold_batch_norm,
    "factors folded": fold_scales,
    "linear layers merged": merge_linears,
    "look-ups merged": merge_lookups,
    "vector operations merged": hoist_slices,
    "1x1 convolutions split": split_pointwise,
    "1x1 convolutions moved down": move_pointwise_down,
    "1x1 convolutions folded": fold_pointwise,
    "up-samplings merged": merge_upsampling,
    "sizes made factors": name_factors,
}


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
