"""Train a class-conditional GAN of photos: the whole loop, from top to bottom.

A BigGAN-deep draws pictures of the labels of a batch of photos; a discriminator tells them from the photos, through the
features of a frozen network; both take a step. A linear classifier on these features, trained on the photos beforehand,
says whether a picture shows its class, and a loss of the generator keeps the samples of a class apart.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import torch
import torch.nn.functional as F
from torch import Tensor

from cgnrt._support.terminal import say

from ..features.efficientnet_lite import POOLED, EfficientNetLite
from ..features.probe import LinearProbe
from ..imagenet.biggan import BigGAN, BigGANConfig
from ..imagenet.calibrate import truncated_normal
from ..photos.pack import Photos
from ..runs.folder import RunFolder
from ..runs.loop import check_losses, print_losses, progress_bar, update_average
from ..runs.pictures import save_png
from ..runs.sources import Sources, keep_sources
from ..runs.state import GeneratorState, State
from ..runs.times import Estimate
from . import checkpoints
from .augment import augment
from .batches import Batches
from .config import MAY_CHANGE, Config
from .discriminator import (
    Discriminator,
    PlainDiscriminator,
    ProjectedDiscriminator,
    discriminator_loss,
    diversity_loss,
    generator_loss,
)
from .features import FrozenFeatures, Seen
from .sheet import sheet

TERMS = ("discriminator", "generator", "classify", "diversity")
_DIVERSE_MAPS = 3  # the shallow ones: the deepest is of a few places
_PROBE_BATCH = 100

Score = Callable[[BigGAN], Mapping[str, float]]  # what a judge says of the cGAN at a checkpoint


@dataclass(frozen=True)
class Inputs:
    """What a run is made from.

    Attributes:
      photos: the user's.
      network: the frozen one; None where no setting needs it.
      sources: what photos and network are: option -> name, sha256 and path.
      score: None scores nothing.
    """

    photos: Photos
    network: EfficientNetLite | None
    sources: Sources
    score: Score | None = None


class Run:
    """The networks and their optimizers; `state` is what a checkpoint holds of them."""

    def __init__(self, config: Config, inputs: Inputs, device: torch.device) -> None:
        if config.needs_features and inputs.network is None:
            raise ValueError(
                "train cgan: --features is missing, expected an EfficientNet-Lite. Give one, or set "
                "discriminator.kind=plain, loss.classify=0 and loss.diversity=0."
            )
        torch.manual_seed(config.train.seed)
        self.config, self.device = config, device
        self.batches = Batches(inputs.photos, device)
        size, classes = inputs.photos.size, len(inputs.photos.classes)
        width, z_dim = config.generator.width, config.generator.z_dim
        self.random = torch.Generator().manual_seed(config.train.seed)
        self.generator = checkpoints.new_generator(
            BigGANConfig.of_resolution(
                size,
                channel_width=width,
                z_dim=z_dim,
                num_classes=classes,
                class_names=tuple(inputs.photos.classes),
            ),
            config.generator.embedding_std,
        )
        self.features: FrozenFeatures | None = None
        if config.needs_features and inputs.network is not None:
            self.features = FrozenFeatures(inputs.network, config)
        self.discriminator: Discriminator
        if config.discriminator.kind == "plain" or self.features is None:
            self.discriminator = PlainDiscriminator(size, config.discriminator.channels, classes)
        else:
            self.discriminator = ProjectedDiscriminator(
                self.features.channels, config.discriminator.channels, classes
            )
        module: Any
        for module in (self.generator, self.discriminator, self.features):
            if module is not None:
                module.to(device, memory_format=torch.channels_last)  # twice as fast on a CPU
        self.probe = LinearProbe(POOLED, classes).to(device) if config.loss.classify else None
        self.average = deepcopy(self.generator).requires_grad_(False)
        half = config.log.weights == "fp16"
        self.finished = checkpoints.Finished(
            self.average, config.log.calibrate_samples, config.train.seed, half=half
        )
        rates = config.optimizer
        betas = (rates.beta1, rates.beta2)
        self.optimizer_g = torch.optim.Adam(
            self.generator.parameters(), rates.lr_generator, betas, fused=True
        )
        self.optimizer_d = torch.optim.Adam(
            self.discriminator.parameters(), rates.lr_discriminator, betas, fused=True
        )
        self.state = State(
            {
                "model": self.finished,
                "average": self.average,
                "generator": self.generator,
                "discriminator": self.discriminator,
                "mixing": None if self.features is None else self.features.mixing,
                "probe": self.probe,
                "optimizer_g": self.optimizer_g,
                "optimizer_d": self.optimizer_d,
                "random": GeneratorState(self.random),
            },
            {"losses": torch.zeros(len(TERMS), dtype=torch.float64), "batches": 0},  # since the last scalars
        )

    def see(self, images: Tensor) -> tuple[Tensor, Seen]:
        """Augmented pictures, and what the frozen network makes of them."""
        images = augment(images, self.config.augment, self.random)
        if self.features is None:
            return images, Seen([], images.new_empty(len(images), 0))
        return images, self.features(images)

    @torch.no_grad()
    def train_probe(self, log: TextIO) -> None:
        """Train the classifier of `loss.classify` on augmented photos."""
        probe, config = self.probe, self.config.probe
        if probe is None:
            return
        photos = self.batches.spread(config.samples, self.random)
        seen = []
        with progress_bar(config.samples, 0, "classifier") as progress:
            for start in range(0, config.samples, _PROBE_BATCH):
                part = self.batches.read(photos, slice(start, start + _PROBE_BATCH))
                seen.append(self.see(part.images)[1].pooled)
                progress.update(len(part.labels))
        right = probe.fit(
            torch.cat(seen),
            photos.labels.to(self.device),
            steps=config.steps,
            lr=config.lr,
            generator=self.random,
        )
        say(f"classifier: {100 * right:.1f} % of {config.samples:,} augmented photos right", log)

    def step(self) -> dict[str, Tensor]:
        """A step of the discriminator, and one of the generator with the same pictures."""
        config, random = self.config, self.random
        self._set_learning_rates()
        photos = self.batches.draw(config.train.batch, random)
        noise = truncated_normal(len(photos.labels), config.generator.z_dim, random).to(self.device)
        table, ones = self.generator.embedding_table, torch.ones(len(noise), 1, device=self.device)
        pictures, seen = self.see(self.generator(noise, table[photos.labels], ones))
        with torch.no_grad():
            photos_seen = self.see(photos.images)
        losses = {
            "discriminator": self._step_discriminator(
                photos.labels, photos_seen, (pictures.detach(), seen.detach())
            )
        }
        losses |= self._step_generator(photos.labels, pictures, seen, photos_seen[1])
        update_average(self.average, self.generator, self.state.step, config.train.ema)
        self.state.step += 1
        self.state.values["batches"] += 1
        return losses

    def _step_discriminator(
        self, labels: Tensor, real: tuple[Tensor, Seen], fake: tuple[Tensor, Seen]
    ) -> Tensor:
        self.discriminator.requires_grad_(True)
        n = len(labels)
        maps = [torch.cat(pair) for pair in zip(real[1].maps, fake[1].maps, strict=True)]
        both = Seen(maps, torch.cat([real[1].pooled, fake[1].pooled]))
        scores = self.discriminator(torch.cat([real[0], fake[0]]), both, labels.repeat(2))
        loss = discriminator_loss([s[:n] for s in scores], [s[n:] for s in scores])
        self.optimizer_d.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer_d.step()
        return loss

    def _step_generator(
        self, labels: Tensor, pictures: Tensor, seen: Seen, photos_seen: Seen
    ) -> dict[str, Tensor]:
        weights = self.config.loss
        self.discriminator.requires_grad_(False)
        losses = {"generator": generator_loss(self.discriminator(pictures, seen, labels))}
        total = losses["generator"]
        if self.probe is not None:
            losses["classify"] = F.cross_entropy(self.probe(seen.pooled), labels)
            total = total + weights.classify * losses["classify"]
        if weights.diversity:
            losses["diversity"] = diversity_loss(seen.maps[:_DIVERSE_MAPS], photos_seen.maps[:_DIVERSE_MAPS])
            total = total + weights.diversity * losses["diversity"]
        self.optimizer_g.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        self.optimizer_g.step()
        return losses

    def _set_learning_rates(self) -> None:
        """At their start until the run's last share, then down in a line."""
        config, left = self.config.optimizer, 1 - self.state.step / self.config.steps
        falling = config.final + (1 - config.final) * left / config.decay if left < config.decay else 1.0
        self.optimizer_g.param_groups[0]["lr"] = config.lr_generator * falling
        self.optimizer_d.param_groups[0]["lr"] = config.lr_discriminator * falling

    def add(self, losses: Mapping[str, float]) -> None:
        """Keep a step's losses for the next scalars."""
        self.state.values["losses"] += torch.tensor(
            [losses.get(name, 0.0) for name in TERMS], dtype=torch.float64
        )

    def means(self) -> dict[str, float]:
        """Of the losses since the last scalars, which then begin anew."""
        values = self.state.values
        found = dict(zip(TERMS, (values["losses"] / max(1, values["batches"])).tolist(), strict=True))
        values["losses"].zero_()
        values["batches"] = 0
        weights = {"classify": self.config.loss.classify, "diversity": self.config.loss.diversity}
        return {name: value for name, value in found.items() if weights.get(name, 1)}


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
    if state.step == 0:
        run.train_probe(log)
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
                _draw_sheet(run, output)
            folder.add_scalars(state.step, values, board)
            if checkpoint:
                folder.save(state, about, "cgan.pt")
    return output / "cgan.pt"


def _draw_sheet(run: Run, output: Path) -> None:
    log = run.config.log
    picture = sheet(
        run.finished.model, log.sheet_samples, seed=run.config.train.seed, truncation=log.sheet_truncation
    )
    images = run.state.step * run.config.train.batch
    save_png(picture, output / "samples" / f"images-{images:08d}.png", zoom=1)
