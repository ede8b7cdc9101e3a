"""Train a classifier of photos, with counterfactuals and three heads or without: the whole loop.

A step's images and their changes are functions of its number, so a run may be killed at any moment and resumed, and
several processes share each batch.
"""

from __future__ import annotations

import json
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import torch

from cgnrt._support.prefetch import Prefetch

from ..photos.pack import Photos
from ..runs.folder import RunFolder, write_text
from ..runs.loop import check_losses, cosine, print_losses, progress_bar
from ..runs.processes import Processes
from ..runs.sources import Sources, keep_sources
from ..runs.state import State
from ..runs.times import Estimate
from . import files
from .backbones import load_backbone, new_backbone
from .config import MAY_CHANGE, EnsembleConfig, OptimizerConfig
from .measure import photo_accuracies
from .model import Ensemble, ensemble_losses
from .sources import StepBatch, open_batches

_AHEAD = 4  # batches that are made while another one is trained on


@dataclass(frozen=True)
class Inputs:
    """What a run begins with.

    Attributes:
      photos: to train on; with masks where the row needs them.
      judged: other photos of the same classes, whose accuracy is measured; None measures none.
      plan: a CGN's, for row original+cgn.
      weights: file of the backbone's; None where `model.pretrained` is off.
      sources: what the files are, by option.
    """

    photos: Photos
    judged: Photos | None
    plan: Path | None
    weights: Path | None
    sources: Sources


class Run:
    """The classifier and its optimizer; `state` is what a checkpoint holds of them."""

    def __init__(
        self,
        config: EnsembleConfig,
        inputs: Inputs,
        device: torch.device | None = None,
        processes: Processes | None = None,
    ) -> None:
        torch.manual_seed(config.train.seed)
        self.config = config
        self.device = device or torch.device("cpu")
        self.processes = processes or Processes()
        backbone: Any
        if inputs.weights is None:
            backbone = new_backbone(config.model.backbone)
        else:
            _, backbone = load_backbone(inputs.weights, config.model.backbone)
        model: Any = files.build(config, backbone, len(inputs.photos.classes))
        self.model: Ensemble = model.to(self.device, memory_format=torch.channels_last)
        rates = config.optimizer
        self.optimizer = torch.optim.SGD(
            [p for p in self.model.parameters() if p.requires_grad],
            rates.lr,
            rates.momentum,
            weight_decay=rates.weight_decay,
        )
        self.steps = config.steps(len(inputs.photos))
        # No random state: batches are functions of the step, and nothing else here is random.
        self.state = State(
            {"model": self.model, "optimizer": self.optimizer}, {"photos": inputs.photos.fingerprint}
        )

    def step(self, batch: StepBatch) -> dict[str, torch.Tensor]:
        """Learn from a batch; returns this process' part of the losses."""
        self.optimizer.param_groups[0]["lr"] = self.config.optimizer.lr * rate(
            self.config.optimizer, self.state.step, self.steps, self.config.train.epochs
        )
        parts = [part[0] for part in (batch.real, batch.counterfactual) if part is not None]
        logits = self.model(torch.cat(parts))
        real, other = logits.split(
            [0 if part is None else len(part[0]) for part in (batch.real, batch.counterfactual)]
        )
        losses = ensemble_losses(
            None if batch.real is None else real,
            None if batch.real is None else batch.real[1],
            None if batch.counterfactual is None else other,
            None if batch.counterfactual is None else batch.counterfactual[1],
            counts=batch.counts,
        )
        self.optimizer.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
        self.processes.add_gradients(self.model)
        if longest := self.config.optimizer.clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), longest)
        self.optimizer.step()
        self.state.step += 1
        return losses

    def whole(self, losses: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The losses of all processes' parts."""
        found = {name: loss.detach().clone() for name, loss in losses.items()}
        self.processes.add(found.values())
        return found


def rate(config: OptimizerConfig, step: int, steps: int, epochs: float) -> float:
    """The factor on the learning rate at a step."""
    factor = 1.0
    if step < config.warmup * steps:
        factor = (step + 1) / (config.warmup * steps + 1)
    if config.schedule == "cosine":
        return factor * cosine(step, steps, 0)
    epoch = epochs * step / steps
    drops = sum(epoch >= drop for drop in config.drops)
    return float(factor * config.factor**drops)


def train(
    config: EnsembleConfig,
    inputs: Inputs,
    output: Path | None,
    *,
    resume: bool = False,
    force: bool = False,
    log: TextIO | None = None,
    device: torch.device | None = None,
    processes: Processes | None = None,
) -> tuple[Ensemble, dict[str, Any]]:
    """Train a classifier and measure it.

    A run that is stopped at any moment and resumed gives the same bits as one that was not (on one machine's CPU, with
    one number of threads). Processes of a `torchrun` share each batch, with the same result up to rounding where batch
    norm is frozen; where it is not, each takes the statistics of its own part.

    Args:
      output: a folder for `ensemble.pt`, `resume.pt`, `result.json` and logs; None keeps nothing.
      resume: go on from `output/resume.pt`.
      force: start anew over the run in `output`.
      device: what to train on; None is the CPU.
      processes: those of a `torchrun`; None is this one alone.
    Returns:
      The classifier in evaluation mode, and the result: `accuracy` of each answer on `inputs.judged`, and `steps`.
    Raises:
      LossError: a loss is not finite; the last checkpoint stays.
      ValueError: `output` holds a run (of other settings or files, on resume); the row needs a plan or masks; the plan
        or `judged` has other classes than the photos, or another size.
      CheckpointError: weights are of another network, or a checkpoint cannot be read or written.
    """
    log = log or sys.stderr
    processes = processes or Processes()
    device = device or torch.device("cpu")
    _check_judged(inputs)
    batches = open_batches(
        config, inputs.photos, inputs.plan, rank=processes.rank, size=processes.size, device=device
    )
    run = Run(config, inputs, device, processes)
    state, steps = run.state, run.steps
    folder = None
    if output is not None:
        folder = RunFolder.open(
            output, config, resume=resume, force=force, may_change=MAY_CHANGE, writes=processes.first
        )
        if processes.first:
            keep_sources(output, inputs.sources, resume=resume)
        folder.restore(state, log)
    if state.values["photos"] != inputs.photos.fingerprint:
        raise ValueError(
            f"resume '{output}': photos are other ones, expected those that the run began with. Give these, or start "
            "anew in another folder."
        )
    processes.wait()
    about = files.about(config, inputs.photos.classes, inputs.photos.size, inputs.sources)
    run.model.train()
    _train_steps(run, batches, inputs, folder, about, log)
    run.model.eval()
    result: dict[str, Any] = {"steps": steps, "row": config.train.row}
    if inputs.judged is not None:
        result["accuracy"] = photo_accuracies(run.model, inputs.judged)
    if output is not None and processes.first:
        write_text(output / "result.json", json.dumps(result, indent=2) + "\n")
    return run.model, result


def _train_steps(
    run: Run, batches: Any, inputs: Inputs, folder: RunFolder | None, about: dict[str, Any], log: TextIO
) -> None:
    state, steps, log_config, first = run.state, run.steps, run.config.log, run.processes.first
    estimate = Estimate(steps - state.step, "steps", log if first else None)
    name = f"{run.config.train.row} {inputs.photos.size} px"
    subject = folder.path if folder is not None else run.config.train.row
    with (
        Prefetch(map(batches, range(state.step, steps)), depth=_AHEAD) as prefetched,
        _board(folder, state, log) as board,
        progress_bar(steps, state.step, name, shown=first) as progress,
    ):
        for batch in prefetched:
            values = check_losses(run.whole(run.step(batch)), state.step, subject)
            progress.update()
            estimate.add(1)
            last = state.step == steps
            if folder is None:
                continue
            if last or state.step % log_config.checkpoint_every == 0:
                if inputs.judged is not None and first:
                    found = photo_accuracies(run.model, inputs.judged, log_config.judged_photos)
                    values |= {f"accuracy {answer}": value for answer, value in found.items()}
                folder.add_scalars(state.step, values, board)
                if first:
                    print_losses(state.step, values, log)
                folder.save(state, about, "ensemble.pt")
            elif state.step % log_config.scalars_every == 0:
                folder.add_scalars(state.step, values, board)


def _board(folder: RunFolder | None, state: State, log: TextIO) -> AbstractContextManager[Any]:
    return nullcontext() if folder is None else folder.tensorboard(state, log)


def _check_judged(inputs: Inputs) -> None:
    judged, photos = inputs.judged, inputs.photos
    if judged is not None and (judged.classes, judged.size) != (photos.classes, photos.size):
        raise ValueError(
            f"train ensemble: photos that judge are of {judged.size} px and classes {', '.join(judged.classes)}, "
            "expected those of the photos that are trained on. Pack both from one folder."
        )
