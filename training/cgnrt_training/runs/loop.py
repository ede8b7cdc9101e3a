"""Steps that training loops have in common: schedule, averaged weights, a check of the losses, a progress bar."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor, nn

from cgnrt._support import terminal
from cgnrt.errors import CgnrtError


class LossError(CgnrtError):
    """A loss is not finite; the last checkpoint stays."""


def cosine(step: int, steps: int, final: float) -> float:
    """The factor on the learning rate: 1 at the first step, `final` at the last."""
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))


@torch.no_grad()
def update_average(average: nn.Module, module: nn.Module, step: int, decay: float) -> None:
    """Move averaged weights and batch norm statistics towards the present ones; the start is soon forgotten."""
    decay = min(decay, (step + 1) / (step + 10))
    for old, new in zip(_tensors(average), _tensors(module), strict=True):
        if old.is_floating_point():
            old.lerp_(new, 1 - decay)
        else:
            old.copy_(new)


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    return chain(module.parameters(), module.buffers())


def check_losses(losses: Mapping[str, Tensor], step: int, subject: Path | str) -> dict[str, float]:
    """The losses as numbers.

    Raises:
      LossError: naming those that are not finite.
    """
    # One wait for the device, not one for each.
    values = dict(zip(losses, torch.stack([loss.detach() for loss in losses.values()]).tolist(), strict=True))
    if broken := [name for name, value in values.items() if not math.isfinite(value)]:
        raise LossError(
            f"train '{subject}': loss {', '.join(broken)} is not finite at step {step}, expected a number. "
            f"The last checkpoint is kept: lower the learning rates or start anew."
        )
    return values


def print_losses(step: int, values: Mapping[str, float], log: TextIO) -> None:
    """A line of the losses at a checkpoint."""
    shown = ", ".join(f"{name} {value:.3f}" for name, value in values.items())
    terminal.say(f"step {step}: {shown}", log)


def progress_bar(steps: int, done: int, name: str, *, shown: bool = True) -> Any:
    """A bar on stderr; silent where it is not to be shown, or stderr is not a terminal, or closed."""
    return terminal.progress_bar(steps, initial=done, desc=name, shown=shown)
