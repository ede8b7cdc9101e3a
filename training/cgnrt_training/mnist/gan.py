"""The baseline "Original + GAN" of Table 2: a conditional GAN that draws the whole picture at once.

It has no mechanisms and so nothing to intervene on: shape, texture and background all come from one noise vector
and one label. Its samples follow the training distribution, cues included (Sec. 4.3, App. A.1).
"""

from __future__ import annotations

import sys
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cgnrt.errors import CheckpointError

from .. import checkpoints
from ..runs.folder import RunFolder
from ..runs.loop import check_losses, cosine, print_losses, progress_bar, update_average
from ..runs.pictures import Sheet, save_png
from ..runs.state import State, random_parts
from ..settings import check, check_one_of, check_positive, to_dict
from .batches import Batches, check_domain
from .config import VARIANTS
from .data import N_CLASSES, VariantMnist
from .discriminators import DiscStrided
from .losses import adversarial
from .models import initialise, upsample_conv

FORMAT = "cgnrt-mnist-gan"
FORMAT_VERSION = 1
SHEET_ROWS = 10


@dataclass(frozen=True)
class GanConfig:
    """All settings. Losses, optimizer and discriminator are the CGN's, and the generator has its size."""

    variant: str
    noise_size: int = 128
    channels: int = 64  # 609,000 parameters; the CGN has 660,000
    disc_width: int = 32  # of the discriminator's first layer
    steps: int = 1500
    batch_size: int = 64
    lr_generator: float = 1e-3
    lr_discriminator: float = 4e-4
    beta1: float = 0.5
    beta2: float = 0.999
    final_lr: float = 0.05  # fraction of the learning rates left at the last step (cosine)
    ema: float = 0.995  # decay of the averaged weights, which are what is saved
    seed: int = 0
    checkpoint_every: int = 250

    def __post_init__(self) -> None:
        check_one_of("variant", self.variant, VARIANTS)
        check_positive(
            self, "noise_size", "channels", "disc_width", "steps", "batch_size", "checkpoint_every"
        )
        check_positive(self, "lr_generator", "lr_discriminator")
        check("batch_size", self.batch_size, self.batch_size >= 2, ">= 2 (batch norm)")


class Generator(nn.Module):
    """Noise and label -> picture: a linear layer to 8 x 8, up-sampling, and a sub-pixel convolution.

    The last convolution draws the 2 x 2 pixels of each place at once (Shi et al., 2016), which saves the feature
    maps of 32 x 32 pixels that would be most of the work.
    """

    def __init__(self, noise_size: int, channels: int) -> None:
        super().__init__()
        self.noise_size = noise_size
        self.channels = channels
        self.label_embedding = nn.Embedding(N_CLASSES, N_CLASSES)
        self.start = nn.Linear(noise_size + N_CLASSES, channels * 64, bias=False)
        self.norm_start = nn.BatchNorm2d(channels)
        self.up = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm_up = nn.BatchNorm2d(channels)
        self.end = nn.Conv2d(channels, 12, 3, padding=1)
        initialise(self, "normal", 0.02)

    def forward(self, noise: Tensor, labels: Tensor) -> Tensor:
        """(n, noise_size) and (n,) int64 -> (n, 3, 32, 32) in [-1, 1]."""
        x = self.start(torch.cat([noise, self.label_embedding(labels)], dim=1))
        x = F.leaky_relu(self.norm_start(x.reshape(len(x), self.channels, 8, 8)), 0.2)
        x = F.leaky_relu(self.norm_up(upsample_conv(x, self.up.weight)), 0.2)
        pictures: Tensor = torch.tanh(F.pixel_shuffle(self.end(x), 2))
        return pictures


@dataclass(frozen=True)
class Gan:
    """A trained GAN; `generator` is in evaluation mode."""

    generator: Generator
    config: GanConfig
    step: int

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw n pictures of uniformly random classes.

        Args:
          n: how many, >= 0.
          generator: where labels and noise are drawn from; torch's global one if left out.
        Returns:
          images (n, 3, 32, 32) float32 in [-1, 1] and labels (n,) int64, where the generator is.
        Raises:
          ValueError: n is negative.
        """
        if n < 0:
            raise ValueError(f"sample gan: n is {n}, expected >= 0.")
        device = self.generator.label_embedding.weight.device
        where = device if generator is None else generator.device
        labels = torch.randint(N_CLASSES, (n,), generator=generator, device=where).to(device)
        noise = torch.randn(n, self.config.noise_size, generator=generator, device=where).to(device)
        if n == 0:
            return torch.empty(0, 3, 32, 32, device=device), labels
        return self.generator(noise, labels), labels


class _Run:
    """The networks and their optimizers; `state` is what a checkpoint holds of them."""

    def __init__(self, config: GanConfig, device: torch.device | None) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.device = device or torch.device("cpu")
        self.generator = Generator(config.noise_size, config.channels).to(self.device)
        self.average = deepcopy(self.generator)
        # Projection and contrast as for our CGNs: shapes follow their label, on every pair of colours.
        self.discriminator = DiscStrided(N_CLASSES, config.disc_width, projection=True, contrast=True)
        self.discriminator.to(self.device)
        betas = (config.beta1, config.beta2)
        self.optimizer_g = torch.optim.Adam(
            self.generator.parameters(), config.lr_generator, betas, fused=True
        )
        self.optimizer_d = torch.optim.Adam(
            self.discriminator.parameters(), config.lr_discriminator, betas, fused=True
        )
        self.state = State(
            {
                "model": self.average,
                "generator": self.generator,
                "discriminator": self.discriminator,
                "optimizer_g": self.optimizer_g,
                "optimizer_d": self.optimizer_d,
                **random_parts(self.device),
            }
        )

    def judge(self, real: Tensor, y_real: Tensor, fake: Tensor, y_fake: Tensor) -> tuple[Tensor, Tensor]:
        """The discriminator's scores of real and fake images."""
        scores: Tensor = self.discriminator(torch.cat([real, fake]), torch.cat([y_real, y_fake]))
        return scores[: len(real)], scores[len(real) :]

    def set_learning_rates(self) -> None:
        c = self.config
        factor = cosine(self.state.step, c.steps, c.final_lr)
        self.optimizer_g.param_groups[0]["lr"] = c.lr_generator * factor
        self.optimizer_d.param_groups[0]["lr"] = c.lr_discriminator * factor


def train_gan(
    config: GanConfig,
    data: VariantMnist,
    output: Path,
    *,
    resume: bool = False,
    force: bool = False,
    log: TextIO | None = None,
    device: torch.device | None = None,
) -> Path:
    """Train until `config.steps`; leave `gan.pt`, `resume.pt`, `config.json` and `samples.png` in `output`.

    Args:
      data: the train domain of `config.variant`.
      resume: go on from `output/resume.pt`, bit for bit as if the run had not been stopped.
      force: start anew over the run in `output`.
      device: what to train on; None is the CPU.
    Returns:
      The path of `gan.pt`.
    Raises:
      LossError: a loss is not finite; the last checkpoint stays.
      ValueError: `output` holds a run (of other settings, on resume), or `data` is of another variant or domain.
      CheckpointError: a checkpoint cannot be read or written.
    """
    check_domain(data, config.variant)
    log = log or sys.stderr
    run = _Run(config, device)
    state = run.state
    folder = RunFolder.open(output, config, resume=resume, force=force)
    folder.restore(state, log)
    about = {"format": FORMAT, "format_version": FORMAT_VERSION, "config": to_dict(config)}
    batches = Batches(data, config.batch_size, config.seed, run.device)
    with progress_bar(config.steps, state.step, f"gan {config.variant}") as progress:
        while state.step < config.steps:
            losses = _step(run, *batches(state.step))
            values = check_losses(losses, state.step, output)
            update_average(run.average, run.generator, state.step, config.ema)
            state.step += 1
            progress.update()
            if state.step % config.checkpoint_every == 0 or state.step == config.steps:
                folder.add_scalars(state.step, values)
                print_losses(state.step, values, log)
                save_png(sheet(run.average), output / "samples.png")
                folder.save(state, about, "gan.pt")
    return output / "gan.pt"


def _step(run: _Run, real: Tensor, y_real: Tensor) -> dict[str, Tensor]:
    run.set_learning_rates()
    run.discriminator.requires_grad_(False)
    y_fake = torch.randint(N_CLASSES, (len(real),), device=run.device)
    fake = run.generator(torch.randn(len(real), run.config.noise_size, device=run.device), y_fake)
    adversarial_g = adversarial(run.discriminator(fake, y_fake), real=True)
    run.optimizer_g.zero_grad(set_to_none=True)
    adversarial_g.backward()  # type: ignore[no-untyped-call]
    run.optimizer_g.step()

    run.discriminator.requires_grad_(True)
    scores_real, scores_fake = run.judge(real, y_real, fake.detach(), y_fake)
    d_real, d_fake = adversarial(scores_real, real=True), adversarial(scores_fake, real=False)
    run.optimizer_d.zero_grad(set_to_none=True)
    ((d_real + d_fake) / 2).backward()  # type: ignore[no-untyped-call]
    run.optimizer_d.step()
    return {"adversarial": adversarial_g, "d_real": d_real, "d_fake": d_fake}


@torch.no_grad()
def sheet(generator: Generator, seed: int = 0) -> Sheet:
    """A column for each class, the same noise at every call; on the CPU."""
    was_training = generator.training
    generator.eval()
    noise = torch.randn(
        SHEET_ROWS * N_CLASSES, generator.noise_size, generator=torch.Generator().manual_seed(seed)
    )
    labels = torch.arange(N_CLASSES).repeat(SHEET_ROWS)
    device = generator.label_embedding.weight.device
    pictures = generator(noise.to(device), labels.to(device)).cpu()
    generator.train(was_training)
    columns = (
        pictures.reshape(SHEET_ROWS, N_CLASSES, 3, 32, 32).permute(1, 2, 0, 3, 4).flatten(2, 3) / 2 + 0.5
    )
    return Sheet(list(columns), head=[str(digit) for digit in range(N_CLASSES)])


def load_gan(path: str | Path) -> Gan:
    """Load `gan.pt` (or `resume.pt`).

    Raises:
      CheckpointError: the file is unreadable, damaged, of another kind or version, or its weights do not fit.
    """
    content = checkpoints.load_own(path, FORMAT, FORMAT_VERSION)
    config = checkpoints.settings_in(content, GanConfig, str(path))
    generator = Generator(config.noise_size, config.channels)
    checkpoints.load_state(generator, content.get("model"), str(path))
    generator.eval()
    step = content.get("step")
    if not isinstance(step, int):
        raise CheckpointError(f"load '{path}': step is {step!r}, expected a whole number. Train again.")
    return Gan(generator, config, step)
