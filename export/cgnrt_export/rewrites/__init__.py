"""Exact rewrites: each file holds one, as arithmetic on weights and as a pass over a traced graph.

A pass takes a traced module that it may change, replaces its pattern wherever it occurs and nothing depends
on the values inside, and returns how often it did. None of them changes the function that the graph computes.
"""

from __future__ import annotations

from cgnrt_export.rewrites.batch_norm import fold_batch_norm, fold_into_weights
from cgnrt_export.rewrites.constants import fold_constants
from cgnrt_export.rewrites.no_ops import remove_no_ops
from cgnrt_export.rewrites.upsample import merge_upsampling, transposed_weight

__all__ = [
    "fold_batch_norm",
    "fold_constants",
    "fold_into_weights",
    "merge_upsampling",
    "remove_no_ops",
    "transposed_weight",
]
