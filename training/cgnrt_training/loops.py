"""What the training loops share: batches, schedule, averaged weights, run folder."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from cgnrt.errors import CgnrtError, CheckpointError

from .mnist.data import VariantMnist

Settings = TypeVar("Settings")


class LossError(CgnrtError):
    """A loss is not finite; the last checkpoint stays."""


class Batches:
    """Real batches as a function of the step alone, so that a resumed run sees the same ones.

    Every epoch has an order of its own, and its images cues of their own (`VariantMnist.batch`).
    """

    def __init__(
        self, data: VariantMnist, batch_size: int, seed: int, device: torch.device | None = None
    ) -> None:
        self.data = data
        self.batch_size = batch_size
        self.seed = seed
        self.device = device  # of the batches; None is the CPU
        self._orders: dict[int, Tensor] = {}

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Images (batch, 3, 32, 32) float32 in [-1, 1] and labels (batch,) int64 of one step, on the device."""
        n = len(self.data)
        positions = range(step * self.batch_size, (step + 1) * self.batch_size)
        wanted = {position // n for position in positions}
        self._orders = {e: self._orders[e] if e in self._orders else self._order(e) for e in wanted}
        batch = self.data.batch([p // n * n + int(self._orders[p // n][p % n]) for p in positions])
        images, labels = torch.from_numpy(batch.images), torch.from_numpy(batch.labels)
        return images.to(self.device), labels.to(self.device)

    def _order(self, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(((self.seed << 20) + epoch) % 2**63)
        return torch.randperm(len(self.data), generator=generator)


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
    yield from module.parameters()
    yield from module.buffers()


def check_losses(losses: Mapping[str, Tensor], step: int, output: Path) -> dict[str, float]:
    """The losses as numbers.

    Raises:
      LossError: naming those that are not finite.
    """
    # One wait for the device, not one for each.
    values = dict(zip(losses, torch.stack([loss.detach() for loss in losses.values()]).tolist(), strict=True))
    if broken := [name for name, value in values.items() if not math.isfinite(value)]:
        raise LossError(
            f"train '{output}': loss {', '.join(broken)} is not finite at step {step}, expected a number. "
            f"The last checkpoint is kept: lower the learning rates or start anew."
        )
    return values


def open_run(output: Path, settings: Settings, *, resume: bool, force: bool) -> None:
    """Make a run folder whose `config.json` says what it is a run of, or check that it is this very run.

    Args:
      settings: a flat dataclass; `steps` may differ on resume, for a run may be made longer.
    Raises:
      ValueError: the folder holds a run and neither `resume` nor `force` is given, or on resume one of other
        settings.
      CheckpointError: on resume, `config.json` cannot be read.
    """
    path = output / "config.json"
    new = asdict(settings)  # type: ignore[call-overload]
    if resume:
        old = stored_settings(output)
        changed = [
            f"{key} ({old.get(key)} -> {value})"
            for key, value in new.items()
            if key != "steps" and old.get(key) != value
        ]
        if changed:
            raise ValueError(
                f"resume '{output}': settings are changed: {', '.join(changed)}, expected the run's own. "
                f"Leave them, or start anew in another folder."
            )
    elif path.exists() and not force:
        raise ValueError(
            f"train '{output}': folder holds a run, expected none. Use --resume, --force or another."
        )
    output.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(new, indent=2) + "\n")


def stored_settings(output: Path) -> dict[str, Any]:
    """The settings in a run folder's `config.json`.

    Raises:
      CheckpointError: there are none, or they cannot be read.
    """
    path = output / "config.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(
            f"resume '{output}': config.json is unreadable ({error.strerror}), expected a run. Start without "
            f"--resume."
        ) from error
    except ValueError as error:
        raise CheckpointError(
            f"resume '{path}': content is damaged ({error}), expected a run's settings. Start anew."
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"resume '{path}': content is no table, expected a run's settings. Start anew.")
    return content


def settings_from(kind: type[Settings], content: Any, subject: str) -> Settings:
    """A settings dataclass from what a file says, checked by its own constructor.

    Raises:
      CheckpointError: a key is missing or unknown, or a value is not allowed.
    """
    names = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    if not isinstance(content, dict) or set(content) != names:
        got = sorted(content) if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(
            f"load '{subject}': settings are {got}, expected the keys {', '.join(sorted(names))}. Train again."
        )
    try:
        return kind(**content)
    except (ValueError, TypeError) as error:
        raise CheckpointError(
            f"load '{subject}': settings are not allowed ({error}). Train again."
        ) from error


def check_positive(job: str, settings: Any, *names: str) -> None:
    """Raise ValueError where a setting is not above 0."""
    for name in names:
        value = getattr(settings, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise ValueError(f"{job}: {name} is {value!r}, expected a number > 0.")


def write_text(path: Path, text: str) -> None:
    """Write a file beside `path`, then rename it there, so that `path` is never half-written."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
