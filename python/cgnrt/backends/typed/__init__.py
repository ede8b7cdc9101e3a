"""Graphs whose precision is in the graph itself, for engines on GPUs: see `graph`."""

from __future__ import annotations

from cgnrt.backends.typed.graph import planned_fp32_layers, typed_graph

__all__ = ["planned_fp32_layers", "typed_graph"]
