"""Train a small network to find the objects that a large one found: the whole loop, from top to bottom.

A step's photos and their changes are functions of its number, so a run may be killed at any moment and resumed.
"""

from __future__ import annotations

import sys
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..runs.folder import RunFolder
from ..runs.loop import check_losses, cosine, print_losses, progress_bar, update_average
from ..runs.order import Order
from ..runs.pictures import Sheet, save_png
from ..runs.state import State
from ..runs.times import Estimate
from . import files
from .augment import augment
from .config import MAY_CHANGE, LossConfig, SaliencyConfig
from .model import MULTIPLE, SaliencyNet
from .scores import measure, read

if TYPE_CHECKING:
    from ..photos.pack import Photos

_HELD_OUT = 10  # one photo in so many judges, where no others are given


class _Run:
    """The network, its average and its optimizer; `state` is what a checkpoint holds of them."""

    def __init__(self, config: SaliencyConfig, photos: Photos, device: torch.device) -> None:
        torch.manual_seed(config.train.seed)
        self.config, self.device = config, device
        network: Any = SaliencyNet(config.train.width)
        self.network: SaliencyNet = network.to(
            device, memory_format=torch.channels_last
        )  # the faster one here
        self.average = deepcopy(self.network)
        rates = config.optimizer
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(),
            rates.lr,
            (rates.beta1, rates.beta2),
            weight_decay=rates.weight_decay,
            fused=True,
        )
        self.state = State(
            {"model": self.average, "network": self.network, "optimizer": self.optimizer},
            {"photos": photos.fingerprint},
        )

    def step(self, images: Tensor, masks: Tensor) -> dict[str, Tensor]:
        """Learn from some photos; returns the losses."""
        config, step = self.config, self.state.step
        generator = torch.Generator().manual_seed(_seed(config.train.seed, step))
        images, masks = augment(images, masks, config.augment, generator)
        self.optimizer.param_groups[0]["lr"] = config.optimizer.lr * cosine(step, config.train.steps, 0)
        losses = mask_losses(self.network.logits(images), masks, config.loss)
        self.optimizer.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        update_average(self.average, self.network, step, config.train.ema)
        self.state.step += 1
        return losses


def mask_losses(logits: Tensor, masks: Tensor, weights: LossConfig) -> dict[str, Tensor]:
    """Weighted losses of masks: found (n, 1, h, w), before the sigmoid, and given, in [0, 1]."""
    losses = {}
    if weights.binary:
        losses["binary"] = weights.binary * F.binary_cross_entropy_with_logits(logits, masks)
    if weights.overlap:
        found, given = torch.sigmoid(logits).flatten(1), masks.flatten(1)
        both = (found * given).sum(1)
        # One pixel more in each: photos without an object have no overlap, and small ones a gradient that is finite.
        shares = (both + 1) / ((found + given).sum(1) - both + 1)
        losses["overlap"] = weights.overlap * (1 - shares).mean()
    return losses


def train(
    config: SaliencyConfig,
    photos: Photos,
    output: Path,
    *,
    judged: Photos | None = None,
    resume: bool = False,
    force: bool = False,
    log: TextIO | None = None,
    device: torch.device | None = None,
) -> Path:
    """Train until `config.train.steps` and leave `saliency.pt`, `resume.pt`, `sheet.png` and logs in `output`.

    Args:
      photos: with masks.
      judged: other photos with masks, which are not trained on; None holds out a tenth of `photos`.
      resume: go on from `output/resume.pt`, bit for bit as if the run had not been stopped.
      force: start anew over the run in `output`.
      device: what to train on; None is the CPU.
    Returns:
      The path of `saliency.pt`.
    Raises:
      LossError: a loss is not finite; the last checkpoint stays.
      ValueError: photos have no masks or no objects, the photos are too few or of a size that is not a multiple
        of 16, or `output` holds a run (of other settings or photos, on resume).
      CheckpointError: a checkpoint cannot be read or written.
    """
    log = log or sys.stderr
    device = device or torch.device("cpu")
    training, judging = _split(photos, judged)
    judged = photos if judged is None else judged
    run = _Run(config, photos, device)
    state, steps, log_config = run.state, config.train.steps, config.log
    folder = RunFolder.open(output, config, resume=resume, force=force, may_change=MAY_CHANGE)
    folder.restore(state, log)
    if state.values["photos"] != photos.fingerprint:
        raise ValueError(
            f"resume '{output}': photos are other ones, expected those that the run began with. Give these, or start "
            "anew in another folder."
        )
    about = files.about(config, photos.size)
    order = Order(len(training), config.train.seed)
    size = config.train.batch_size
    estimate = Estimate(steps - state.step, "steps", log)
    with (
        folder.tensorboard(state, log) as board,
        progress_bar(steps, state.step, f"saliency {photos.size} px") as progress,
    ):
        while state.step < steps:
            _, places = order(state.step * size, size)
            losses = run.step(*read(photos, training[places], device))
            values = check_losses(losses, state.step, output)
            progress.update()
            estimate.add(1)
            last = state.step == steps
            if last or state.step % log_config.checkpoint_every == 0:
                indices = judging if last else _spread(judging, log_config.judged_photos)
                scores = measure(run.average, judged, indices, device)
                values |= vars(scores)
                save_png(
                    sheet(run.average, judged, judging, log_config.sheet_photos, device), output / "sheet.png"
                )
                folder.add_scalars(state.step, values, board)
                print_losses(state.step, values, log)
                folder.save(state, about, "saliency.pt")
            elif state.step % log_config.scalars_every == 0:
                folder.add_scalars(state.step, values, board)
    return output / "saliency.pt"


@torch.no_grad()
def sheet(
    network: SaliencyNet, photos: Photos, indices: NDArray[np.int64], columns: int, device: torch.device
) -> Sheet:
    """Some of these photos; down, each photo, its mask and the mask that is found."""
    was_training = network.training
    images, masks = read(photos, _spread(indices, columns), device)
    found = network.eval()(images)
    network.train(was_training)
    rows = [images / 2 + 0.5, masks.expand(-1, 3, -1, -1), found.expand(-1, 3, -1, -1)]
    drawn = torch.stack(rows, 2).flatten(2, 3).clamp(0, 1).cpu()
    return Sheet(list(drawn), side=["photo", "mask", "found"])


def _split(photos: Photos, judged: Photos | None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which of the photos are trained on, and which of `judged` (or of the photos) judge."""
    for each in (photos, photos if judged is None else judged):
        each.with_object()  # raises where there are no masks, or no objects
        if each.size % MULTIPLE:
            raise ValueError(
                f"train: photos are of {each.size} px, expected a multiple of {MULTIPLE}. Pack them again."
            )
    everything = np.arange(len(photos))
    if judged is None:
        held_out = everything % _HELD_OUT == _HELD_OUT - 1
        training, judging = everything[~held_out], everything[held_out]
    else:
        training, judging = everything, np.arange(len(judged))
        if judged.size != photos.size:
            raise ValueError(f"train: photos that judge are of {judged.size} px, expected {photos.size}.")
    if len(training) < 2 or not len(judging):
        raise ValueError(
            f"train: photos are {len(training)} to train on and {len(judging)} to judge by, expected at least 2 and 1. "
            "Pack more photos."
        )
    return training, judging


def _spread(indices: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """At most so many of the indices, from the first to the last."""
    places = np.linspace(0, len(indices) - 1, min(count, len(indices))).round().astype(np.int64)
    return indices[places]


def _seed(seed: int, step: int) -> int:
    """A seed of its own for each step."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0])
