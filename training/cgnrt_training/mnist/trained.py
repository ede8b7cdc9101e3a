"""Networks that help to train the generator and are no part of it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ..runs.state import Part
from .config import OptimizerConfig


class Trained(nn.Module):
    """Networks with an optimizer of their own. They are moved to their device before `optimise` is called."""

    _optimizer: torch.optim.Optimizer
    _rate: float

    def optimise(self, parameters: Iterable[nn.Parameter], rate: float, config: OptimizerConfig) -> None:
        """Train these parameters, by Adam with the configured betas."""
        self._rate = rate
        self._optimizer = torch.optim.Adam(parameters, rate, (config.beta1, config.beta2), fused=True)

    def set_learning_rate(self, factor: float) -> None:
        """As a factor of the first one."""
        self._optimizer.param_groups[0]["lr"] = self._rate * factor

    def step_down(self, loss: Tensor) -> None:
        """One step against the gradient of a loss."""
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()

    def parts(self) -> dict[str, Part]:
        """All that the next step depends on."""
        return {"networks": self, "optimizer": self._optimizer}
