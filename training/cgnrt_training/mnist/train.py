"""Train a CGN on an MNIST variant: the whole loop, from top to bottom."""

from __future__ import annotations

import sys
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor, nn

from cgnrt._support.terminal import say

from ..runs.folder import RunFolder
from ..runs.loop import check_losses, cosine, progress_bar, update_average
from ..runs.state import State, random_parts
from ..settings import to_dict
from . import checkpoints
from .batches import Batches
from .config import MAY_CHANGE, N_CLASSES, Config
from .data import VariantMnist
from .discriminators import DiscConv, DiscLin, DiscStrided
from .fill_judge import FillJudge, Seen, one_of_label
from .fills import FillTeacher, where_seen
from .losses import StyleLoss, adversarial, mask_losses
from .mask_judge import MaskTeacher
from .measures import measure_textures
from .models import CGN, Parts, compose, cyclic_shift
from .sheet import sheet
from .surroundings import behind, match_borders, surroundings
from .teacher import ShapeTeacher

COLLAPSED = (0.02, 0.7)  # a mean mask (mu_mask, Sec. 4.2) outside of this holds no digits


@dataclass(frozen=True)
class Drawn:
    """What the generator draws in one step, and what is known about the real images beside it."""

    labels: Tensor  # (n,), of the parts
    parts: Parts
    masks: Tensor  # all that were drawn: those of the parts, then those of the real images' noise
    foregrounds: Tensor  # of the parts, then those of some real images' noise, all rolled
    backgrounds: Tensor  # likewise
    fill_labels: Tensor
    found: Tensor | None  # (n, 1, h, w) masks of the real images, from when they are found
    known_real: Tensor  # (n,) whether they are to be trusted
    known: Tensor  # (n,) likewise of the labels
    losses: dict[str, Tensor]  # of what was drawn from the real images' noise


class Run:
    """The networks and their optimizers; `state` is what a checkpoint holds of them."""

    def __init__(self, config: Config, data: VariantMnist, device: torch.device | None = None) -> None:
        torch.manual_seed(config.train.seed)
        self.device = device or torch.device("cpu")
        model, disc = config.model, config.discriminator
        self.config = config
        self.cgn = CGN(
            N_CLASSES,
            model.noise_size,
            model.channels,
            init=model.init,
            gain=model.gain,
            texture_padding=model.texture_padding,
        )
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
        loss = config.loss
        self.background_judge, self.object_judge = (
            FillJudge(config, name, weight, self.device) if weight else None
            for name, weight in (("surroundings", loss.surroundings), ("objects", loss.objects))
        )
        self.fill_teacher = FillTeacher(config, self.device) if config.loss.fills else None
        judged = config.loss.mask_judge or config.loss.mask_label
        self.mask_teacher = MaskTeacher(config, self.device) if judged else None
        self.average = deepcopy(self.cgn) if config.train.ema else self.cgn  # what is saved and shown
        betas = (config.optimizer.beta1, config.optimizer.beta2)
        rates = config.optimizer
        # Batch norm before tanh: how far colours reach. Adam moves a scale by its rate a step, however wrong it is.
        reach = [*self.cgn.f_text1[-2].parameters(), *self.cgn.f_text2[-2].parameters()]
        rest = [p for p in self.cgn.parameters() if all(p is not q for q in reach)]
        rest += self.teacher.encoder.parameters() if self.teacher else ()
        rest += self.fill_teacher.parameters() if self.fill_teacher else ()
        groups = [
            {"params": rest, "lr": rates.lr_generator},
            {"params": reach, "lr": rates.lr_generator * rates.reach_factor},
        ]
        self.optimizer_g = torch.optim.Adam(groups, betas=betas, fused=True)
        self.optimizer_d = torch.optim.Adam(
            self.discriminator.parameters(), rates.lr_discriminator, betas, fused=True
        )
        self.state = State(
            {
                "model": self.average,
                "cgn": self.cgn,
                "discriminator": self.discriminator,
                "teacher": self.teacher.parts() if self.teacher else None,
                "background_judge": self.background_judge.parts() if self.background_judge else None,
                "object_judge": self.object_judge.parts() if self.object_judge else None,
                "fill_teacher": self.fill_teacher,
                "mask_teacher": self.mask_teacher.parts() if self.mask_teacher else None,
                "optimizer_g": self.optimizer_g,
                "optimizer_d": self.optimizer_d,
                **random_parts(self.device),
            }
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
        factor = cosine(self.state.step, self.config.train.steps, c.final_lr)
        for group, faster in zip(self.optimizer_g.param_groups, (1.0, c.reach_factor), strict=True):
            group["lr"] = c.lr_generator * faster * factor
        self.optimizer_d.param_groups[0]["lr"] = c.lr_discriminator * factor
        for helper in (self.teacher, self.background_judge, self.object_judge, self.mask_teacher):
            if helper is not None:
                helper.set_learning_rate(factor)

    def draw(self, real: Tensor, y_real: Tensor) -> Drawn:
        """Draw composites, and the masks, objects and backgrounds of real images again.

        All of a mechanism at once, so that one batch norm sees them.
        """
        train, size = self.config.train, self.config.model.noise_size
        n, reuse = train.batch_size, train.texture_reuse
        # Labels take turns from a random start, so that every class has its share of each batch.
        start = torch.randint(N_CLASSES, (), device=self.device)
        turns = torch.arange(n // reuse, device=self.device) + start
        labels = (turns % N_CLASSES).repeat_interleave(reuse)
        noise = torch.randn(n, 3, size, device=self.device)
        found = None
        losses: dict[str, Tensor] = {}
        u_masks, y_masks = noise[:, 0], labels
        kl = None
        if self.teacher is not None:
            u_real, kl = self.teacher.encode(real, y_real)
            u_masks, y_masks = torch.cat([u_masks, u_real]), torch.cat([labels, y_real])
            found = self.teacher.find(real, y_real)
        masks = self.cgn.draw_masks(u_masks, y_masks)
        if self.teacher is not None and kl is not None and found is not None:
            losses |= self.teacher.losses(masks[n:], kl, found)
        known_real, known = (
            torch.zeros_like(y_real, dtype=torch.bool),
            torch.zeros_like(labels, dtype=torch.bool),
        )
        if self.teacher is not None and self.finds_masks:
            known_real, known = self.teacher.knows(y_real), self.teacher.knows(labels)
        else:
            found = None

        some = n // reuse
        sources = [(noise[::reuse, k], labels[::reuse]) for k in (1, 2)]
        fill_kl = None
        if self.fill_teacher is not None and found is not None:
            u_fills, fill_kl = self.fill_teacher.encode(real[:some], y_real[:some], found[:some])
            sources = [
                (torch.cat([u, u_real]), torch.cat([y, y_real[:some]]))
                for (u, y), u_real in zip(sources, u_fills, strict=True)
            ]
        foregrounds, backgrounds = self.cgn.draw_fills(sources[0], sources[1])
        fills = foregrounds[:some], backgrounds[:some]
        parts = self.cgn(labels, noise=noise, texture_reuse=reuse, masks=masks[:n], fills=fills)
        behind_all, before_all, y_every = parts.background, parts.foreground, labels
        if self.fill_teacher is not None and found is not None and fill_kl is not None:
            again = foregrounds[some:], backgrounds[some:]
            losses |= self.fill_teacher.losses(again, fill_kl, real[:some], found[:some], known_real[:some])
            shifts = torch.randint(self.cgn.resolution, (some, 2), device=self.device)
            behind_all = torch.cat([behind_all, cyclic_shift(again[1], shifts)])
            before_all = torch.cat([before_all, cyclic_shift(again[0], shifts)])
            y_every = torch.cat([labels, y_real[:some]])
        return Drawn(labels, parts, masks, before_all, behind_all, y_every, found, known_real, known, losses)

    def seen_behind(self, drawn: Drawn, real: Tensor) -> Tensor:
        """Where real images and composites show background; with rows for all of `drawn.backgrounds`."""
        if drawn.found is None:
            return surroundings(real)
        known = drawn.known_real[:, None, None, None]
        seen = torch.where(known, behind(drawn.found, drawn.parts.mask), surroundings(real))
        return torch.cat([seen, seen[: len(drawn.backgrounds) - len(seen)]])

    def objects(self, drawn: Drawn, real: Tensor, y_real: Tensor) -> tuple[Seen, Seen] | None:
        """Objects of real images, and drawn foregrounds seen through their masks: pictures, labels and what is seen.

        A foreground is seen through the mask of a real image with its label, whose form so tells nothing. None where no
        such mask is known.
        """
        if drawn.found is None or not drawn.known_real.any():
            return None
        known = drawn.known_real
        seen, y_known = where_seen(drawn.found)[0][known], y_real[known]
        some, places = one_of_label(y_known, drawn.fill_labels)
        if not some.any():
            return None
        return (real[known], y_known, seen), (drawn.foregrounds[some], drawn.fill_labels[some], seen[places])

    def helpers_losses(self, drawn: Drawn, real: Tensor, y_real: Tensor) -> dict[str, Tensor]:
        """The generator's losses beside the adversarial one."""
        losses = mask_losses(drawn.masks, self.config.loss) | drawn.losses
        if self.background_judge is not None:
            seen = self.seen_behind(drawn, real)
            losses |= self.background_judge.losses(drawn.backgrounds, drawn.fill_labels, seen)
        if self.object_judge is not None and (objects := self.objects(drawn, real, y_real)) is not None:
            losses |= self.object_judge.losses(*objects[1])
        if self.mask_teacher is not None and drawn.found is not None:
            losses |= self.mask_teacher.losses(drawn.parts.mask[drawn.known], drawn.labels[drawn.known])
        return losses

    def helpers_learn(self, drawn: Drawn, fake: Tensor, real: Tensor, y_real: Tensor) -> dict[str, Tensor]:
        """A step of every helper on what was drawn."""
        losses: dict[str, Tensor] = {}
        if self.teacher is not None:
            losses |= self.teacher.learn(fake, drawn.parts.mask, drawn.labels)
        if self.background_judge is not None:
            seen = self.seen_behind(drawn, real)
            losses |= self.background_judge.learn(
                (real, y_real, seen[: len(real)]), (drawn.backgrounds, drawn.fill_labels, seen)
            )
        if self.object_judge is not None and (objects := self.objects(drawn, real, y_real)) is not None:
            losses |= self.object_judge.learn(*objects)
        if self.mask_teacher is not None and drawn.found is not None:
            real_masks = drawn.found[drawn.known_real], y_real[drawn.known_real]
            losses |= self.mask_teacher.learn(
                *real_masks, drawn.parts.mask[drawn.known], drawn.labels[drawn.known]
            )
        return losses

    @property
    def finds_masks(self) -> bool:
        """Whether the teacher knows by now where the objects of real images are."""
        return self.teacher is not None and self.state.step >= self.config.train.teach_from

    def weaken_mask_gradient(self, parts: Parts) -> Parts:
        """The same parts; once the teacher knows masks, the discriminator has less say in them."""
        share = self.config.loss.mask_gradient
        if share == 1 or not self.finds_masks:
            return parts
        return parts._replace(mask=share * parts.mask + (1 - share) * parts.mask.detach())

    def about(self, data: VariantMnist) -> dict[str, Any]:
        """What a checkpoint says of itself, beside the weights."""
        return {
            "format": checkpoints.FORMAT,
            "format_version": checkpoints.FORMAT_VERSION,
            "config": to_dict(self.config),
            "variant": self.config.variant,
            "class_names": data.class_names,
            "training_data": f"{data.variant} MNIST, made from {len(data)} of MNIST's training digits"
            + (" and the pictures that the texture and background classes name" if data.textures else ""),
        }


def train(
    config: Config,
    data: VariantMnist,
    output: Path,
    *,
    perceptual_weights: Path | None = None,
    resume: bool = False,
    force: bool = False,
    log: TextIO | None = None,
    device: torch.device | None = None,
) -> Path:
    """Train until `config.train.steps` and leave `cgn.pt`, `resume.pt`, sheets and logs in `output`.

    A run that is stopped at any moment and resumed gives the same bits as one that was not (on one machine's CPU,
    with one number of threads).

    Args:
      perceptual_weights: SqueezeNet 1.1 for the perceptual loss; without it that loss is off.
      resume: go on from `output/resume.pt`, whatever device it was trained on.
      force: start anew over the run in `output`.
      device: what to train on; None is the CPU. Weights start alike everywhere, noise is the device's own.
    Returns:
      The path of the light checkpoint.
    Raises:
      LossError: a loss is not finite; the last checkpoint stays.
      ValueError: `output` holds a run (of other settings, on resume).
      CheckpointError: a checkpoint cannot be read or written.
    """
    log = log or sys.stderr
    run = Run(config, data, device)
    state = run.state
    style = None
    if any(config.loss.perceptual):
        if perceptual_weights is None:
            say("perceptual loss: off, no weights given (--perceptual-weights SQUEEZENET.pth)", log)
        else:
            style = StyleLoss(perceptual_weights, config.loss.perceptual).to(run.device)
    folder = RunFolder.open(output, config, resume=resume, force=force, may_change=MAY_CHANGE)
    folder.restore(state, log)
    run.cgn.train()
    run.discriminator.train()
    steps = config.train.steps
    batches = Batches(data, config.train.batch_size, config.train.seed, run.device)
    with (
        folder.tensorboard(state, log) as board,
        progress_bar(steps, state.step, config.variant) as progress,
    ):
        while state.step < steps:
            run.set_learning_rates()
            real, y_real = batches(state.step)

            # Generator: its composites should pass as real.
            run.discriminator.requires_grad_(False)
            drawn = run.draw(real, y_real)
            fake = compose(run.weaken_mask_gradient(drawn.parts))
            losses = {"adversarial": adversarial(run.discriminator(fake, drawn.labels), real=True)}
            losses |= run.helpers_losses(drawn, real, y_real)
            if style is not None:
                losses["perceptual"] = style(fake, real)
            run.optimizer_g.zero_grad(set_to_none=True)
            torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
            run.optimizer_g.step()

            # Discriminator: tell them apart.
            run.discriminator.requires_grad_(True)
            scores_real, scores_fake = run.judge(real, y_real, fake.detach(), drawn.labels)
            losses["d_real"] = adversarial(scores_real, real=True)
            losses["d_fake"] = adversarial(scores_fake, real=False)
            run.optimizer_d.zero_grad(set_to_none=True)
            ((losses["d_real"] + losses["d_fake"]) / 2).backward()  # type: ignore[no-untyped-call]
            run.optimizer_d.step()
            losses |= run.helpers_learn(drawn, fake, real, y_real)

            if run.average is not run.cgn:
                update_average(run.average, run.cgn, state.step, config.train.ema)
            values = check_losses(losses, state.step, output)
            state.step += 1
            progress.update()
            shows = state.step % config.log.samples_every == 0 or state.step == steps
            if shows:
                values |= measure_textures(run.average, data, None if style is None else style.features)
            if shows or state.step % config.log.scalars_every == 0:
                if run.teacher is not None:
                    values["doubt"] = float(run.teacher.doubt.max())
                values["mean_mask"] = _checked_mean_mask(drawn.parts.mask, state.step, log)
                folder.add_scalars(state.step, values, board)
                adversarial_loss, mean_mask = (f"{values[name]:.2f}" for name in ("adversarial", "mean_mask"))
                progress.set_postfix(adv=adversarial_loss, mask=mean_mask, refresh=False)
            if shows:
                shown = sheet(run.average)
                folder.add_sheet(state.step, shown)
                if board is not None:
                    board.add_image("samples", shown.picture, state.step)
            if state.step % config.log.checkpoint_every == 0 or state.step == steps:
                folder.save(state, run.about(data), "cgn.pt")
    return output / "cgn.pt"


def _checked_mean_mask(mask: Tensor, step: int, log: TextIO) -> float:
    """The mean mask; a note where the masks have collapsed."""
    mean = mask.detach().mean().item()
    low, high = COLLAPSED
    if not low < mean < high:
        say(
            f"step {step}: mean mask is {mean:.3f}, expected {low}..{high}: the masks have collapsed. "
            f"Start anew with another seed, or with loss.mask > 0.",
            log,
        )
    return mean
