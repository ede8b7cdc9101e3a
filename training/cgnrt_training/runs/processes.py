"""Several processes that train one model: `torchrun` starts them, gradients are added up."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn


class Processes:
    """The processes of a run; `rank` is this one's number, and the first, 0, writes the files.

    One process alone is the default: then nothing here does anything.
    """

    def __init__(self, rank: int = 0, size: int = 1, device: torch.device | None = None) -> None:
        self.rank = rank
        self.size = size
        self.device = device or torch.device("cpu")  # what this one trains on

    @property
    def first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            dist.barrier()

    def add_gradients(self, module: nn.Module) -> None:
        """Give every process the sum of all processes' gradients; a missing one is 0."""
        if self.size > 1:
            self.add([_gradient(p) for p in module.parameters() if p.requires_grad])

    def add(self, tensors: Iterable[Tensor]) -> None:
        """Put the sums over all processes into the tensors."""
        if self.size > 1:
            for tensor in tensors:
                dist.all_reduce(tensor)

    def keep(self, tensors: Iterable[Tensor]) -> None:
        """After sums were taken in the middle of an accumulation, leave them with the first process alone."""
        if not self.first:
            for tensor in tensors:
                tensor.zero_()


def _gradient(parameter: nn.Parameter) -> Tensor:
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


@contextmanager
def open_processes(device: torch.device) -> Iterator[Processes]:
    """The processes that `torchrun` has started, or this one alone; `device` is what each trains on."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Processes(device=device)
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(dist.get_rank(), size, device)
    finally:
        dist.destroy_process_group()


def local_device(name: str) -> str:
    """The device that a process of a `torchrun` takes where "cuda" is asked for: one GPU each."""
    rank = os.environ.get("LOCAL_RANK", "0")
    return f"cuda:{rank}" if name == "cuda" and rank.isdecimal() else name
