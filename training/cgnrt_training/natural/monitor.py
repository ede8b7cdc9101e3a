"""What is watched in a run: mean losses, the mean mask and its collapse (Sec. 4.2), and time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TextIO

from torch import Tensor

from cgnrt._support.terminal import say

from ..runs.times import shown
from .objective import TERMS

_TIMED = 3  # micro-batches that the estimate is from, after the first


def summary(names: Sequence[str], losses: Tensor, masks: Tensor) -> dict[str, float]:
    """Mean losses of a pseudo-batch, mu_mask, and its standard deviation over classes.

    Args:
      names: the terms that are on.
      losses: sums over samples, by `TERMS`.
      masks: (2, classes): sums of the masks' means, and how many they are.
    """
    sums, counts = masks
    means = dict(zip(TERMS, (losses / counts.sum()).tolist(), strict=True))
    seen = counts > 0
    spread = (sums[seen] / counts[seen]).std(correction=0)
    return {name: means[name] for name in names} | {
        "mu_mask": (sums.sum() / counts.sum()).item(),
        "mu_mask_spread": spread.item(),
    }


def collapse(mu_mask: float, tau: float) -> str | None:
    """What is wrong with a mean mask outside of [tau, 1 - tau], and what to try; None if nothing is."""
    if tau <= mu_mask <= 1 - tau:
        return None
    part, name = ("f_text", "texture") if mu_mask > 0.5 else ("f_bg", "background")
    return (
        f"mu_mask is {mu_mask:.3f}, expected {tau:g}..{1 - tau:g}: the masks have collapsed, {part} draws the whole "
        f"picture. Start anew with a higher loss.mask or loss.{name}, or a higher optimizer.lr_{name}."
    )


class Clock:
    """Tells once how long a micro-batch, an update and the rest of the run take.

    Args:
      pseudo_batch: samples of an update.
      left: samples that the run has left.
      log: None tells nothing.
    """

    def __init__(self, pseudo_batch: int, left: int, log: TextIO | None) -> None:
        self._pseudo_batch, self._left, self._log = pseudo_batch, left, log
        self._begin = time.perf_counter()
        self._ticks = self._samples = 0

    def tick(self, samples: int) -> None:
        """After each micro-batch of all processes."""
        self._ticks += 1
        if self._log is None or self._ticks > _TIMED + 1:
            return
        if self._ticks == 1:  # the first one is slower than the others
            self._begin = time.perf_counter()
            return
        self._samples += samples
        if self._ticks == _TIMED + 1:
            each = (time.perf_counter() - self._begin) / self._samples
            say(
                f"time: {shown(each)} a sample, {shown(each * self._pseudo_batch)} an update, "
                f"{shown(each * self._left)} for the run",
                self._log,
            )
