"""A beta-VAE on an MNIST variant (Higgins et al., 2017; App. A.1), which does not disentangle: Fig. 6."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import checkpoints
from ..runs.folder import RunFolder
from ..runs.loop import check_losses, cosine, print_losses, progress_bar
from ..runs.state import State, random_parts
from ..settings import check_one_of, check_positive, to_dict
from .batches import Batches, check_domain
from .config import VARIANTS
from .data import VariantMnist

FORMAT = "cgnrt-mnist-vae"
FORMAT_VERSION = 1
PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class VaeConfig:
    """All settings. The paper gives the number of latents alone."""

    variant: str = "colored"
    latents: int = 2  # App. A.1
    beta: float = 4.0  # weight of the KL term; 4 is the beta of Higgins et al. for small pictures
    hidden: int = 400  # width of the two layers on each side
    steps: int = 3000
    batch_size: int = 128
    lr: float = 1e-3
    final_lr: float = 0.05  # fraction of the learning rate left at the last step (cosine)
    seed: int = 0
    checkpoint_every: int = 500

    def __post_init__(self) -> None:
        check_one_of("variant", self.variant, VARIANTS)
        check_positive(self, "latents", "beta", "hidden", "steps", "batch_size", "lr", "checkpoint_every")


class Vae(nn.Module):
    """Fully connected encoder and decoder; the latent posterior is a normal with diagonal covariance."""

    def __init__(self, latents: int, hidden: int) -> None:
        super().__init__()
        self.latents = latents
        self.encoder = nn.Sequential(
            nn.Linear(PIXELS, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, 2 * latents),
        )
        self.decoder = nn.Sequential(
            nn.Linear(latents, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, PIXELS),
        )

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(n, 3, 32, 32) in [-1, 1] -> mean and log variance of the latents, (n, latents) each."""
        mean, log_variance = self.encoder(images.flatten(1)).chunk(2, dim=1)
        return mean, log_variance

    def decode_logits(self, codes: Tensor) -> Tensor:
        """(n, latents) -> (n, 3072): pixels in [0, 1] before the sigmoid."""
        logits: Tensor = self.decoder(codes)
        return logits

    def decode(self, codes: Tensor) -> Tensor:
        """(n, latents) -> (n, 3, 32, 32) in [-1, 1]."""
        return self.decode_logits(codes).sigmoid().reshape(-1, 3, 32, 32) * 2 - 1


def kl_by_latent(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL divergence of the posterior from N(0, 1), in nats: (n, latents) -> (latents,), the mean over n."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean(0)


def train_vae(
    config: VaeConfig,
    data: VariantMnist,
    output: Path,
    *,
    resume: bool = False,
    force: bool = False,
    log: TextIO | None = None,
    device: torch.device | None = None,
) -> Path:
    """Train until `config.steps`; leave `vae.pt`, which is also what is resumed from, and `config.json` in `output`.

    Args:
      data: the train domain of `config.variant`.
      resume: go on from `output/vae.pt`, bit for bit as if the run had not been stopped.
      force: start anew over the run in `output`.
      device: what to train on; None is the CPU.
    Returns:
      The path of `vae.pt`.
    Raises:
      LossError: a loss is not finite; the last checkpoint stays.
      ValueError: `output` holds a run (of other settings, on resume), or `data` is of another variant or domain.
      CheckpointError: a checkpoint cannot be read or written.
    """
    check_domain(data, config.variant)
    log = log or sys.stderr
    torch.manual_seed(config.seed)
    device = device or torch.device("cpu")
    vae = Vae(config.latents, config.hidden).to(device)
    optimizer = torch.optim.Adam(vae.parameters(), config.lr, fused=True)
    state = State({"model": vae, "optimizer": optimizer, **random_parts(device)})
    folder = RunFolder.open(output, config, resume=resume, force=force, state_file="vae.pt")
    folder.restore(state, log)
    about = {"format": FORMAT, "format_version": FORMAT_VERSION, "config": to_dict(config)}
    batches = Batches(data, config.batch_size, config.seed, device)
    with progress_bar(config.steps, state.step, "vae") as progress:
        while state.step < config.steps:
            optimizer.param_groups[0]["lr"] = config.lr * cosine(state.step, config.steps, config.final_lr)
            images, _ = batches(state.step)
            mean, log_variance = vae.encode(images)
            codes = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
            pixels = images.flatten(1) / 2 + 0.5
            logits = vae.decode_logits(codes)
            losses = {
                "reconstruction": F.binary_cross_entropy_with_logits(logits, pixels, reduction="sum")
                / len(images),
                "kl": config.beta * kl_by_latent(mean, log_variance).sum(),
            }
            values = check_losses(losses, state.step, output)
            optimizer.zero_grad(set_to_none=True)
            (losses["reconstruction"] + losses["kl"]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            state.step += 1
            progress.update()
            if state.step % config.checkpoint_every == 0 or state.step == config.steps:
                folder.add_scalars(state.step, values)
                print_losses(state.step, values, log)
                folder.save(state, about)
    return output / "vae.pt"


def load_vae(path: str | Path) -> tuple[Vae, VaeConfig]:
    """Load `vae.pt`, in evaluation mode.

    Raises:
      CheckpointError: the file is unreadable, damaged or of another kind, or its weights do not fit.
    """
    content = checkpoints.load_own(path, FORMAT, FORMAT_VERSION)
    config = checkpoints.settings_in(content, VaeConfig, str(path))
    vae = Vae(config.latents, config.hidden)
    checkpoints.load_state(vae, content.get("model"), str(path))
    return vae.eval(), config
