"""Networks that help to train the generator and are no part of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from cgnrt.errors import CheckpointError

from .. import checkpoints
from ..config import OptimizerConfig


class Trained(nn.Module):
    """Networks with an optimiser of their own, whose state goes into a resume checkpoint as one entry.

    They are to be on their device before they are optimised.
    """

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

    def state(self) -> dict[str, Any]:
        """All that the next step depends on."""
        return {"networks": self.state_dict(), "optimizer": self._optimizer.state_dict()}

    def restore(self, state: Any, subject: str) -> None:
        """The inverse of `state`.

        Raises:
          CheckpointError: it is not of this kind.
        """
        name = type(self).__name__
        if not isinstance(state, dict) or set(state) != {"networks", "optimizer"}:
            raise CheckpointError(
                f"resume '{subject}': entry {name} is another one's, expected networks and optimizer. "
                f"Start anew with --force."
            )
        checkpoints.load_state(self, state["networks"], subject)
        with checkpoints.fitting(subject):
            self._optimizer.load_state_dict(state["optimizer"])
