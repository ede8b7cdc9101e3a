"""How much memory a recorded graph needs beside its weights."""

from __future__ import annotations

import torch
from torch import Tensor, fx

from cgnrt.backends.torch.tracer import BATCHES, EXAMPLES


def bytes_per_sample(graph: fx.Graph) -> int:
    """How much the peak of the memory in use grows with each sample, without workspaces."""
    low, high = (_peak_bytes(graph, k) for k in (0, 1))
    return (high - low) // (BATCHES[1] - BATCHES[0])


def _peak_bytes(graph: fx.Graph, k: int) -> int:
    """The peak for the k-th example batch size. Views and results in place share memory with their operand."""
    blocks: dict[fx.Node, tuple[int, int]] = {}  # of each node: which, and its bytes
    readers: dict[int, int] = {}  # of each block: how many reads are still to come
    for node in graph.nodes:
        examples = node.meta.get(EXAMPLES)
        if examples is None or node.op == "get_attr" or not isinstance(examples[k], Tensor):
            continue
        first = node.args[0] if node.args else None
        if isinstance(first, fx.Node) and first in blocks and _shares(node, first, k):
            blocks[node] = blocks[first]
        else:
            blocks[node] = (len(readers), examples[k].numel() * examples[k].element_size())
        block = blocks[node][0]
        readers[block] = readers.get(block, 0) + len(node.users)
    used = peak = 0
    begun: set[int] = set()
    for node in graph.nodes:
        if node in blocks and blocks[node][0] not in begun:
            begun.add(blocks[node][0])
            used += blocks[node][1]
            peak = max(peak, used)
        for read in node.all_input_nodes:
            if read in blocks:
                block, size = blocks[read]
                readers[block] -= 1
                if not readers[block]:
                    used -= size
    return peak


def _shares(node: fx.Node, first: fx.Node, k: int) -> bool:
    """Whether a node's result is in its first operand's memory."""
    name = getattr(node.target, "__name__", "")
    if name.endswith("_") and not name.endswith("__"):
        return True
    mine, other = node.meta[EXAMPLES][k], first.meta[EXAMPLES][k]
    same: bool = mine.untyped_storage()._cdata == other.untyped_storage()._cdata
    return same


def largest_batch(graph: fx.Graph, free_bytes: int) -> int:
    """How many samples fit, with a quarter of the memory left for workspaces."""
    return max(1, free_bytes * 3 // 4 // max(1, bytes_per_sample(graph)))


def what_fits(graph: fx.Graph, name: str, n: int, device: torch.device, free_bytes: int | None) -> str:
    """The message of a batch that is too large."""
    each = bytes_per_sample(graph)
    needed = f"run '{name}': a batch of {n} needs about {n * each:,} bytes beside the weights"
    if free_bytes is None:
        return f"{needed}, which {device} does not have. Take smaller batches."
    fits = largest_batch(graph, free_bytes)
    return f"{needed}, and {free_bytes:,} are free on {device}. A batch of {fits} fits."
