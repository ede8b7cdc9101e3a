"""Train a CGN on an MNIST variant: the whole loop, from top to bottom."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor, nn
from tqdm import tqdm

from cgnrt.errors import CheckpointError

from .. import checkpoints
from ..config import N_CLASSES, Config
from ..device import random_state, set_random_state
from ..loops import Batches, check_losses, cosine, update_average
from .data import VariantMnist
from .discriminators import DiscConv, DiscLin, DiscStrided
from .losses import StyleLoss, adversarial, mask_losses
from .models import CGN, Parts, compose
from .sheet import save_png, sheet
from .surroundings import BackgroundTeacher, match_borders
from .teacher import ShapeTeacher

_RESUME_KEYS = (
    "cgn",
    "discriminator",
    "teacher",
    "background_teacher",
    "optimizer_g",
    "optimizer_d",
    "rng",
)  # beside the light checkpoint's
COLLAPSED = (0.02, 0.7)  # a mean mask (mu_mask, Sec. 4.2) outside of this holds no digits


class Run:
    """Everything that training changes, and so everything that a checkpoint holds."""

    def __init__(self, config: Config, data: VariantMnist, device: torch.device | None = None) -> None:
        torch.manual_seed(config.train.seed)
        self.device = device or torch.device("cpu")
        model, disc = config.model, config.discriminator
        self.config = config
        self.step = 0
        self.cgn = CGN(N_CLASSES, model.noise_size, model.channels, init=model.init, gain=model.gain)
        self.cgn.fused = True
        if model.match_borders:
            match_borders(self.cgn, torch.from_numpy(data.batch(range(min(512, len(data)))).images))
        self.discriminator: nn.Module
        if disc.kind == "conv":
            self.discriminator = DiscConv(N_CLASSES, disc.width, disc.projection, disc.contrast)
        else:
            kind = DiscLin if disc.kind == "linear" else DiscStrided
            self.discriminator = kind(N_CLASSES, disc.width, 32, disc.dropout, disc.projection, disc.contrast)
        # Weights start on the CPU, the same for every device.
        self.cgn.to(self.device)
        self.discriminator.to(self.device)
        self.teacher = ShapeTeacher(config, self.device) if config.loss.reconstruction else None
        self.background_teacher = BackgroundTeacher(config, self.device) if config.loss.surroundings else None
        self.average = deepcopy(self.cgn) if config.train.ema else self.cgn  # what is saved and shown
        betas = (config.optimizer.beta1, config.optimizer.beta2)
        rates = config.optimizer
        # Batch norm before tanh: how far colours reach. Adam moves a scale by its rate a step, however wrong it is.
        reach = [*self.cgn.f_text1[-2].parameters(), *self.cgn.f_text2[-2].parameters()]
        rest = [p for p in self.cgn.parameters() if all(p is not q for q in reach)]
        rest += self.teacher.encoder.parameters() if self.teacher else ()
        groups = [
            {"params": rest, "lr": rates.lr_generator},
            {"params": reach, "lr": rates.lr_generator * rates.reach_factor},
        ]
        self.optimizer_g = torch.optim.Adam(groups, betas=betas, fused=True)
        self.optimizer_d = torch.optim.Adam(
            self.discriminator.parameters(), rates.lr_discriminator, betas, fused=True
        )

    def judge(self, real: Tensor, y_real: Tensor, fake: Tensor, y_fake: Tensor) -> tuple[Tensor, Tensor]:
        """The discriminator's scores of real and fake images."""
        if isinstance(self.discriminator, DiscConv):  # its batch norm should not see both at once
            return self.discriminator(real, y_real), self.discriminator(fake, y_fake)
        scores: Tensor = self.discriminator(torch.cat([real, fake]), torch.cat([y_real, y_fake]))
        return scores[: len(real)], scores[len(real) :]

    def set_learning_rates(self) -> None:
        """Cosine from the configured rates to `final_lr` of them at the last step."""
        c = self.config.optimizer
        factor = cosine(self.step, self.config.train.steps, c.final_lr)
        for group, faster in zip(self.optimizer_g.param_groups, (1.0, c.reach_factor), strict=True):
            group["lr"] = c.lr_generator * faster * factor
        self.optimizer_d.param_groups[0]["lr"] = c.lr_discriminator * factor
        for helper in (self.teacher, self.background_teacher):
            if helper is not None:
                helper.set_learning_rate(factor)

    def weaken_mask_gradient(self, parts: Parts) -> Parts:
        """The same parts; once the teacher knows masks, the discriminator has less say in them."""
        share = self.config.loss.mask_gradient
        if self.teacher is None or share == 1 or self.step < self.config.train.teach_from:
            return parts
        return parts._replace(mask=share * parts.mask + (1 - share) * parts.mask.detach())

    def light(self, data: VariantMnist) -> dict[str, Any]:
        """`cgn.pt`: what export reads."""
        return {
            "format": checkpoints.FORMAT,
            "format_version": checkpoints.FORMAT_VERSION,
            "model": self.average.state_dict(),
            "config": self.config.to_dict(),
            "step": self.step,
            "variant": self.config.variant,
            "class_names": data.class_names,
            "training_data": f"{data.variant} MNIST, made from {len(data)} of MNIST's training digits"
            + (" and the pictures that the texture and background classes name" if data.textures else ""),
        }

    def resume_state(self, data: VariantMnist) -> dict[str, Any]:
        """`resume.pt`: the light checkpoint and all else that the next step depends on."""
        return self.light(data) | {
            "cgn": self.cgn.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "teacher": self.teacher.state() if self.teacher else None,
            "background_teacher": self.background_teacher.state() if self.background_teacher else None,
            "optimizer_g": self.optimizer_g.state_dict(),
            "optimizer_d": self.optimizer_d.state_dict(),
            **random_state(self.device),
        }

    def restore(self, path: Path) -> None:
        """Take up the state of `resume.pt`.

        Raises:
          CheckpointError: it is missing, damaged or of another kind.
        """
        state = checkpoints.load_tensors(path)
        needed = (*_RESUME_KEYS, "model", "step")
        if not isinstance(state, dict) or any(key not in state for key in needed):
            raise CheckpointError(
                f"resume '{path}': content is no resume state, expected the keys {', '.join(needed)}. "
                f"Start anew with --force."
            )
        step = checkpoints.step_of(state, str(path))
        checkpoints.load_state(self.average, state["model"], str(path))
        checkpoints.load_state(self.cgn, state["cgn"], str(path))
        checkpoints.load_state(self.discriminator, state["discriminator"], str(path))
        for name, helper in (("teacher", self.teacher), ("background_teacher", self.background_teacher)):
            if helper is not None:
                helper.restore(state[name], str(path))
        with checkpoints.fitting(str(path)):
            self.optimizer_g.load_state_dict(state["optimizer_g"])
            self.optimizer_d.load_state_dict(state["optimizer_d"])
            set_random_state(state, self.device)
        self.step = step


def train(
    config: Config,
    data: VariantMnist,
    output: Path,
    *,
    perceptual_weights: Path | None = None,
    resume: bool = False,
    log: TextIO | None = None,
    device: torch.device | None = None,
) -> Path:
    """Train until `config.train.steps` and leave `cgn.pt`, `resume.pt`, sheets and logs in `output`.

    A run that is stopped at any moment and resumed gives the same bits as one that was not (on one machine's CPU,
    with one number of threads).

    Args:
      perceptual_weights: SqueezeNet 1.1 for the perceptual loss; without it that loss is off.
      resume: go on from `output/resume.pt`, whatever device it was trained on.
      device: what to train on; None is the CPU. Weights start alike everywhere, noise is the device's own.
    Returns:
      The path of the light checkpoint.
    Raises:
      LossError: a loss is not finite; the last checkpoint stays.
      CheckpointError: a checkpoint cannot be read or written.
    """
    log = log or sys.stderr
    output.mkdir(parents=True, exist_ok=True)
    (output / "samples").mkdir(exist_ok=True)
    run = Run(config, data, device)
    if resume:
        run.restore(output / "resume.pt")
        print(f"resume '{output}' at step {run.step}", file=log)
    style = None
    if any(config.loss.perceptual):
        if perceptual_weights is None:
            print("perceptual loss: off, no weights given (--perceptual-weights SQUEEZENET.pth)", file=log)
        else:
            style = StyleLoss(perceptual_weights, config.loss.perceptual).to(run.device)
    _trim(output / "scalars.jsonl", run.step)
    run.cgn.train()
    run.discriminator.train()
    teacher, background_teacher = run.teacher, run.background_teacher

    batch_size, steps, reuse = config.train.batch_size, config.train.steps, config.train.texture_reuse
    batches = Batches(data, batch_size, config.train.seed, run.device)
    silent = not sys.stderr.isatty()
    with (
        _board(output, run.step, log) as board,
        tqdm(total=steps, initial=run.step, disable=silent, desc=config.variant, file=sys.stderr) as progress,
    ):
        while run.step < steps:
            run.set_learning_rates()
            real, y_real = batches(run.step)

            # Generator: its composites should pass as real.
            run.discriminator.requires_grad_(False)
            # Labels take turns from a random start, so that every class has its share of each batch.
            start = torch.randint(N_CLASSES, (), device=run.device)
            turns = torch.arange(batch_size // reuse, device=run.device) + start
            y_gen = (turns % N_CLASSES).repeat_interleave(reuse)
            noise = torch.randn(batch_size, 3, config.model.noise_size, device=run.device)
            u_shape, y_shape = noise[:, 0], y_gen
            if teacher is not None:  # masks of real images, through the same batch norm
                u_real, kl = teacher.encode(real, y_real)
                u_shape, y_shape = torch.cat([u_shape, u_real]), torch.cat([y_gen, y_real])
            masks = run.cgn.draw_masks(u_shape, y_shape)
            parts = run.cgn(y_gen, noise=noise, texture_reuse=reuse, masks=masks[:batch_size])
            fake = compose(run.weaken_mask_gradient(parts))
            losses = {"adversarial": adversarial(run.discriminator(fake, y_gen), real=True)}
            losses |= mask_losses(masks, config.loss)
            if teacher is not None:
                losses |= teacher.losses(masks[batch_size:], kl, real, y_real)
            if background_teacher is not None:
                losses |= background_teacher.losses(parts.background, y_gen)
            if style is not None:
                losses["perceptual"] = style(fake, real)
            run.optimizer_g.zero_grad(set_to_none=True)
            torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
            run.optimizer_g.step()

            # Discriminator: tell them apart.
            run.discriminator.requires_grad_(True)
            scores_real, scores_fake = run.judge(real, y_real, fake.detach(), y_gen)
            losses["d_real"] = adversarial(scores_real, real=True)
            losses["d_fake"] = adversarial(scores_fake, real=False)
            run.optimizer_d.zero_grad(set_to_none=True)
            ((losses["d_real"] + losses["d_fake"]) / 2).backward()  # type: ignore[no-untyped-call]
            run.optimizer_d.step()

            if teacher is not None:
                losses |= teacher.learn(fake, parts.mask, y_gen)
            if background_teacher is not None:
                losses |= background_teacher.learn(real, y_real, parts.background, y_gen)

            if run.average is not run.cgn:
                update_average(run.average, run.cgn, run.step, config.train.ema)
            values = check_losses(losses, run.step, output)
            run.step += 1
            progress.update()
            _report(run, parts.mask.detach(), values, output, board, data, log, progress)
    checkpoints.save(run.resume_state(data), output / "resume.pt")
    checkpoints.save(run.light(data), output / "cgn.pt")
    return output / "cgn.pt"


def _report(
    run: Run,
    mask: Tensor,
    values: dict[str, float],
    output: Path,
    board: Any,
    data: VariantMnist,
    log: TextIO,
    progress: Any,
) -> None:
    """Scalars, sheets and checkpoints that are due at this step."""
    every = run.config.log
    if run.step % every.scalars_every == 0:
        values |= {"mean_mask": mask.mean().item()}
        low, high = COLLAPSED
        if not low < values["mean_mask"] < high:
            print(
                f"step {run.step}: mean mask is {values['mean_mask']:.3f}, expected {low}..{high}: the "
                f"masks have collapsed. Start anew with another seed, or with loss.mask > 0.",
                file=log,
            )
        with (output / "scalars.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": run.step} | {k: round(v, 6) for k, v in values.items()}) + "\n")
        if board is not None:
            for name, value in values.items():
                board.add_scalar(name, value, run.step)
        progress.set_postfix(
            adv=f"{values['adversarial']:.2f}", mask=f"{values['mean_mask']:.2f}", refresh=False
        )
    if run.step % every.samples_every == 0 or run.step == run.config.train.steps:
        picture = sheet(run.average)
        save_png(picture, output / "samples" / f"step-{run.step:06d}.png")
        if board is not None:
            board.add_image("samples", picture, run.step)
    if run.step % every.checkpoint_every == 0:
        checkpoints.save(run.resume_state(data), output / "resume.pt")
        checkpoints.save(run.light(data), output / "cgn.pt")


@contextmanager
def _board(output: Path, step: int, log: TextIO) -> Iterator[Any]:
    """A TensorBoard writer, or None where tensorboard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "tensorboard":
            raise
        print("TensorBoard: off, not installed. Run: pip install 'cgnrt[train]'", file=log)
        yield None
        return
    # A resumed run does the steps after its checkpoint again: TensorBoard drops what it had of them.
    with SummaryWriter(str(output / "tensorboard"), purge_step=step + 1 if step else 0) as writer:
        yield writer


def _trim(path: Path, step: int) -> None:
    """Drop the scalars of steps that are about to be done again."""
    if path.exists():
        lines = [line for line in path.read_text("utf-8").splitlines() if line.endswith("}")]
        kept = [line for line in lines if json.loads(line)["step"] <= step]
        path.write_text("".join(f"{line}\n" for line in kept), "utf-8")
