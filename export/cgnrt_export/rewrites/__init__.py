"""Exact rewrites: each file holds one, as arithmetic on weights and as a pass over a traced graph.

A pass takes a traced module that it may change, replaces its pattern wherever it occurs and nothing depends
on the values inside, and returns how often it did. None of them changes the function that the graph computes.
"""

from __future__ import annotations

from cgnrt_export.rewrites.batch_norm import fold_batch_norm, fold_into_weights
from cgnrt_export.rewrites.channels import kept_weights, slice_channels
from cgnrt_export.rewrites.constants import fold_constants
from cgnrt_export.rewrites.duplicates import merge_duplicates
from cgnrt_export.rewrites.fills import shrink_fills
from cgnrt_export.rewrites.in_place import remove_writes
from cgnrt_export.rewrites.no_ops import remove_no_ops
from cgnrt_export.rewrites.pointwise import (
    fold_pointwise,
    merged_weights,
    move_pointwise_down,
    split_pointwise,
)
from cgnrt_export.rewrites.scales import fold_scales
from cgnrt_export.rewrites.sizes import name_factors
from cgnrt_export.rewrites.slices import hoist_slices
from cgnrt_export.rewrites.upsample import merge_upsampling, transposed_weight
from cgnrt_export.rewrites.wide import merge_linears, merge_lookups

__all__ = [
    "fold_batch_norm",
    "fold_constants",
    "fold_into_weights",
    "fold_pointwise",
    "fold_scales",
    "hoist_slices",
    "kept_weights",
    "merge_duplicates",
    "merge_linears",
    "merge_lookups",
    "merge_upsampling",
    "merged_weights",
    "move_pointwise_down",
    "name_factors",
    "remove_no_ops",
    "remove_writes",
    "shrink_fills",
    "slice_channels",
    "split_pointwise",
    "transposed_weight",
]
