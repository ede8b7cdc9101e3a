"""Train a class-conditional GAN of photos: the whole loop.

A BigGAN-deep draws pictures of the labels of a batch of photos, a part of them from codes of these very photos; a
discriminator tells them from the photos, through the features of a frozen network. A linear classifier on these
features, trained on the photos beforehand, says whether a picture shows its class.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TextIO

import torch

from ..runs.folder import RunFolder
from ..runs.loop import check_losses, print_losses, progress_bar
from ..runs.pictures import save_png
from ..runs.sources import keep_sources
from ..runs.times import Estimate
from . import checkpoints
from .config import MAY_CHANGE, Config
from .run import Inputs, Run
from .sheet import reconstructions, sheet, shown_classes


def train(
    config: Config,
    inputs: Inputs,
    output: Path,
    *,
    resume: bool = False,
    force: bool = False,
    log: TextIO | None = None,
    device: torch.device | None = None,
) -> Path:
    """Train until `config.train.images` and leave `cgan.pt`, `resume.pt`, sheets and logs in `output`.

    A run that is stopped at any moment and resumed gives the same bits as one that was not (on one machine's CPU, with
    one number of threads).

    Args:
      inputs: its network becomes this run's.
      resume: go on from `output/resume.pt`.
      force: start anew over the run in `output`.
      device: what to train on; None is the CPU.
    Returns:
      The path of `cgan.pt`.
    Raises:
      LossError: a loss is not finite; the last checkpoint stays.
      ValueError: `output` holds a run (of other settings, photos or files, on resume), there is no BigGAN-deep of the
        photos' size, a class has fewer than two photos, or a network is needed and missing.
      CheckpointError: a checkpoint cannot be read or written.
    """
    log = log or sys.stderr
    run = Run(config, inputs, device or torch.device("cpu"))
    folder = RunFolder.open(output, config, resume=resume, force=force, may_change=MAY_CHANGE)
    keep_sources(output, inputs.sources, resume=resume)
    state = run.state
    folder.restore(state, log)
    about = checkpoints.about(config, run.generator.config, inputs.sources)
    if state.step < config.steps:
        run.prepare(log)
    images = config.train.batch
    estimate = Estimate((config.steps - state.step) * images, "images", log)
    with (
        folder.tensorboard(state, log) as board,
        progress_bar(config.steps * images, state.step * images, f"cgan {inputs.photos.size} px") as progress,
    ):
        while state.step < config.steps:
            run.add(check_losses(run.step(), state.step, output))
            progress.update(images)
            estimate.add(images)
            at_end = state.step == config.steps
            checkpoint = at_end or state.step % config.every(config.log.checkpoint_every) == 0
            if not checkpoint and state.step % config.every(config.log.scalars_every):
                continue
            values = run.means()
            if checkpoint:
                model = run.finished.update()
                values |= inputs.score(model) if inputs.score else {}
                print_losses(state.step, values, log)
                _draw_sheets(run, output)
            folder.add_scalars(state.step, values, board)
            if checkpoint:
                folder.save(state, about, "cgan.pt")
    return output / "cgan.pt"


def _draw_sheets(run: Run, output: Path) -> None:
    """`samples/images-*.png` of this moment; with an encoder, `reconstructions.png`, always the last one."""
    log = run.config.log
    model = run.finished.model
    drawn = sheet(model, log.sheet_samples, seed=run.config.train.seed, truncation=log.sheet_truncation)
    images = run.state.step * run.config.train.batch
    save_png(drawn, output / "samples" / f"images-{images:08d}.png", zoom=1)
    if run.encoder is not None:
        pairs = -(-log.sheet_samples // 2)
        classes = [run.reconstruct(label, pairs) for label in shown_classes(model.config.num_classes)]
        save_png(reconstructions(model, classes), output / "reconstructions.png", zoom=1)
