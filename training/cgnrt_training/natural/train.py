"""Train a CGN of natural images (Sec. 3.1, App. C.3): the whole loop, from top to bottom.

A frozen cGAN draws a picture; three mechanisms that began as copies of it draw mask, foreground and background from the
same noise and label. Gradients of the losses are summed over a pseudo-batch, micro-batch by micro-batch, then each
mechanism takes a step. Sample i is the same in every process and micro-batch, so only rounding depends on these.
"""

from __future__ import annotations

import sys
from copy import deepcopy
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch

from cgnrt._support.terminal import say

from ..imagenet.cgn import MASK_RANGE, Parts
from ..imagenet.spectral import power_iterate
from ..runs.folder import RunFolder
from ..runs.loop import check_losses, print_losses, progress_bar, update_average
from ..runs.pictures import save_png
from ..runs.processes import Processes
from ..runs.sources import keep_sources
from ..runs.state import Gradients, State
from . import checkpoints
from .config import MAY_CHANGE, Config
from .draws import draw
from .model import MECHANISMS, NaturalCGN
from .monitor import Clock, collapse, summary
from .networks import Networks
from .objective import TERMS, Objective, Pictures, autocast, full
from .refine import Refiner
from .sheet import over_training, sheet


class Run:
    """The networks and the optimizer; `state` is what a checkpoint holds of them."""

    def __init__(
        self, config: Config, networks: Networks, output: Path, device: torch.device, processes: Processes
    ) -> None:
        torch.manual_seed(config.train.seed)
        self.config, self.output, self.device, self.processes = config, output, device, processes
        refiner = Refiner(config.train.refine_width) if config.train.refine else None
        features = networks.features
        self.teacher, saliency = networks.teacher.eval(), networks.saliency.eval()
        self.cgn = NaturalCGN.of_teacher(self.teacher, saliency, refiner)
        self.teacher.requires_grad_(False)
        module: Any
        for module in (self.teacher, self.cgn, features):
            if module is not None:
                module.to(device)
                if config.train.channels_last:
                    module.to(memory_format=torch.channels_last)
        if not config.train.train_embeddings:
            for name in MECHANISMS.values():
                self.cgn.get_submodule(name).embeddings.requires_grad_(False)
        self.average = deepcopy(self.cgn) if config.train.ema else self.cgn  # what is saved and shown
        self.objective = Objective(config, features, saliency)
        rates = config.optimizer
        self.optimizer = torch.optim.Adam(
            [
                {
                    "params": [p for p in module.parameters() if p.requires_grad],
                    "lr": getattr(rates, f"lr_{name}"),
                }
                for name, module in self.cgn.trained().items()
            ],
            betas=(rates.beta1, rates.beta2),
        )
        parts: dict[str, Any] = {"model": self.average, "optimizer": self.optimizer}
        if self.average is not self.cgn:
            parts["cgn"] = self.cgn
        parts["gradients"] = Gradients(self.cgn)
        classes = self.teacher.config.num_classes
        self.state = State(
            parts,
            {
                "samples": 0,  # of the present pseudo-batch that are done
                "losses": torch.zeros(len(TERMS), dtype=torch.float64),  # their sums
                "masks": torch.zeros(2, classes, dtype=torch.float64),  # sums of the masks' means, and counts
            },
        )

    def accumulate(self) -> None:
        """Add the gradients of a micro-batch in each process."""
        train, values, rank = self.config.train, self.state.values, self.processes.rank
        first = values["samples"]
        if train.power_iteration == "update" and first == 0:
            self._power_iterate()
        size = self.processes.size
        for turn in range(size):  # micro-batch by micro-batch, as one process alone would
            start = min(train.pseudo_batch, first + turn * train.micro_batch)
            end = min(train.pseudo_batch, start + train.micro_batch)
            if start < end and train.power_iteration == "micro-batch":
                self._power_iterate()
            if start < end and turn == rank:
                self._add_samples(self.state.step * train.pseudo_batch + np.arange(start, end))
            values["samples"] = end

    def _add_samples(self, indices: np.ndarray) -> None:
        model, train = self.teacher.config, self.config.train
        labels, noise, truncation = draw(
            train.seed,
            indices,
            classes=model.num_classes,
            noise_size=model.z_dim,
            truncation=train.truncation,
            device=self.device,
        )
        dtype = self.teacher.embeddings.weight.dtype
        noise, truncation = noise.to(dtype), truncation.to(dtype)
        with autocast(self.config, self.device):
            with torch.no_grad():
                target = self.teacher(noise, self.teacher.embedding_table[labels], truncation)
            drawn = Parts(*map(full, self.cgn(labels, labels, labels, noise=noise, truncation=truncation)))
        drawn = drawn._replace(mask=drawn.mask.clamp(*MASK_RANGE))  # bf16 has rounded its ends to 0 and 1
        pictures = Pictures(
            full(target), self.cgn.composite(drawn), drawn.mask, drawn.foreground, drawn.background
        )
        # Each term goes back to copies of the pictures, and its judge's activations are freed; then the sum of the
        # terms' gradients goes back through the mechanisms at once.
        copies = Pictures(pictures.target, *(p.detach().requires_grad_() for p in pictures[1:]))
        losses = {}
        for name, loss in self.objective.terms(copies, train.seed, indices):
            losses[name] = loss.detach().sum()
            loss.sum().backward()  # type: ignore[no-untyped-call]
        found = check_losses(losses, self.state.step, self.output)
        reached = [(p, c.grad) for p, c in zip(pictures[1:], copies[1:], strict=True) if c.grad is not None]
        torch.autograd.backward([p for p, _ in reached], [g for _, g in reached])
        values = self.state.values
        values["losses"] += torch.tensor([found.get(name, 0.0) for name in TERMS], dtype=torch.float64)
        means = drawn.mask.detach().flatten(1).mean(1).double().cpu()
        values["masks"][0].index_add_(0, labels.cpu(), means)
        values["masks"][1].index_add_(0, labels.cpu(), torch.ones_like(means))

    def _power_iterate(self) -> None:
        for module in self.cgn.trained().values():
            power_iterate(module)

    def gather(self) -> None:
        """Add up over the processes what they have accumulated, and leave it with the first."""
        self._add_up()
        self.keep()

    def keep(self) -> None:
        """Leave the sums over all processes with the first."""
        gradients = [p.grad for p in self.cgn.parameters() if p.grad is not None]
        self.processes.keep([self.state.values["losses"], self.state.values["masks"], *gradients])

    def _add_up(self) -> None:
        self.processes.add_gradients(self.cgn)
        self.processes.add([self.state.values["losses"], self.state.values["masks"]])

    def update(self) -> dict[str, float]:
        """Take a step with the sum of the gradients; returns the pseudo-batch's mean losses and masks."""
        values = self.state.values
        self._add_up()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not self.cgn:
            update_average(self.average, self.cgn, self.state.step, self.config.train.ema)
        found = summary(self.objective.names, values["losses"], values["masks"])
        self.state.step += 1
        values["samples"] = 0
        values["losses"].zero_()
        values["masks"].zero_()
        return found


def train(
    config: Config,
    networks: Networks,
    output: Path,
    *,
    resume: bool = False,
    force: bool = False,
    log: TextIO | None = None,
    device: torch.device | None = None,
    processes: Processes | None = None,
) -> Path:
    """Train until `config.train.updates` and leave `cgn.pt`, `resume.pt`, sheets and logs in `output`.

    A run that is stopped at any moment and resumed gives the same bits as one that was not (on one machine's CPU, with
    one number of threads).

    Args:
      networks: become this run's: they move to the device.
      resume: go on from `output/resume.pt`, also in the middle of a pseudo-batch.
      force: start anew over the run in `output`.
      device: what to train on; None is the CPU.
      processes: those of a `torchrun`; None is this one alone.
    Returns:
      The path of the light checkpoint.
    Raises:
      LossError: a loss is not finite; the last checkpoint stays.
      ValueError: `output` holds a run (of other settings or files, on resume).
      CheckpointError: a checkpoint cannot be read or written.
    """
    log = log or sys.stderr
    processes = processes or Processes()
    folder = RunFolder.open(
        output, config, resume=resume, force=force, may_change=MAY_CHANGE, writes=processes.first
    )
    if processes.first:
        keep_sources(output, networks.sources, resume=resume)
    run = Run(config, networks, output, device or torch.device("cpu"), processes)
    state, train = run.state, config.train
    folder.restore(state, log)
    run.keep()  # what the checkpoint has accumulated is the sum over all processes
    processes.wait()
    about = checkpoints.about(config, run.cgn, networks.sources)
    if processes.first and state.step == 0 and state.values["samples"] == 0:
        _draw_sheets(run, folder)
    total = train.updates * train.pseudo_batch
    done = state.step * train.pseudo_batch + state.values["samples"]
    clock = Clock(train.pseudo_batch, total - done, log if processes.first else None)
    with (
        folder.tensorboard(state, log) as board,
        progress_bar(
            total, done, f"cgn {run.teacher.config.resolution} px", shown=processes.first
        ) as progress,
    ):
        while state.step < train.updates:
            before = state.values["samples"]
            run.accumulate()
            done = state.values["samples"]
            progress.update(done - before)
            clock.tick(done - before)
            if done == train.pseudo_batch:
                values = run.update()
                folder.add_scalars(state.step, values, board)
                if processes.first:
                    print_losses(state.step, values, log)
                    if fault := collapse(values["mu_mask"], config.loss.tau):
                        say(f"step {state.step}: {fault}", log)
                    if state.step % config.log.samples_every == 0 or state.step == train.updates:
                        _draw_sheets(run, folder)
                folder.save(state, about, "cgn.pt")
            elif done // config.log.checkpoint_every > before // config.log.checkpoint_every:
                run.gather()
                folder.save(state, about, "cgn.pt")
    return output / "cgn.pt"


def _draw_sheets(run: Run, folder: RunFolder) -> None:
    """`samples/step-*.png` of this moment, and `over-training.png` of all so far."""
    log = run.config.log
    drawn = sheet(
        run.average,
        run.teacher,
        log.sheet_samples,
        seed=run.config.train.seed,
        truncation=log.sheet_truncation,
        device=run.device,
    )
    folder.add_sheet(run.state.step, drawn, zoom=1)
    joined = over_training(folder.sheets(), run.teacher, log.sheet_samples)
    save_png(joined, run.output / "over-training.png", zoom=1)
