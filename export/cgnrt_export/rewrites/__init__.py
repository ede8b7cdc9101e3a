"""Exact rewrites: each module holds one, as arithmetic on weights and as a pass over a traced graph.

A pass takes a traced module that it may change, replaces its pattern wherever it occurs and nothing depends
on the values inside, and returns how often it did. None of them changes the function that the graph computes.

A new rewrite is a module, and a line in `REWRITES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import fx

from cgnrt_export.rewrites.batch_norm import fold_batch_norm
from cgnrt_export.rewrites.channels import slice_channels
from cgnrt_export.rewrites.constants import fold_constants
from cgnrt_export.rewrites.duplicates import merge_duplicates
from cgnrt_export.rewrites.fills import shrink_fills
from cgnrt_export.rewrites.in_place import remove_writes
from cgnrt_export.rewrites.no_ops import remove_no_ops
from cgnrt_export.rewrites.pointwise import fold_pointwise, move_pointwise_down, split_pointwise
from cgnrt_export.rewrites.scales import fold_scales
from cgnrt_export.rewrites.sizes import name_factors
from cgnrt_export.rewrites.slices import hoist_slices
from cgnrt_export.rewrites.upsample import merge_upsampling
from cgnrt_export.rewrites.wide import merge_linears, merge_lookups
from cgnrt_export.rewrites.wraps import merge_wraps

# In order: no-ops and calls in place stand between layers that belong together, and weights must be tensors
# before anything is folded into them. Layers merge before the arithmetic on their results does. A 1x1
# convolution has to reach the layer that it is folded into, and a batch norm goes into a convolution before
# that becomes a transposed one, or one that makes the border for the next.
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
    "circular paddings merged": merge_wraps,
    "up-samplings merged": merge_upsampling,
    "sizes made factors": name_factors,
}
