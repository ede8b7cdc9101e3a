"""The networks of a cGAN's training, and a step of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, NamedTuple, TextIO

import torch
import torch.nn.functional as F
from torch import Tensor

from cgnrt._support.terminal import say

from ..features.efficientnet_lite import POOLED, EfficientNetLite
from ..features.probe import LinearProbe
from ..imagenet.biggan import BigGAN, BigGANConfig
from ..imagenet.calibrate import truncated_normal
from ..photos.pack import Photos
from ..runs.loop import progress_bar, update_average
from ..runs.sources import Sources
from ..runs.state import GeneratorState, State
from .augment import augment, draw_strengths
from .batches import Batches, Choice
from .checkpoints import Finished, new_generator
from .config import Config
from .discriminator import (
    Discriminator,
    PlainDiscriminator,
    ProjectedDiscriminator,
    discriminator_loss,
    diversity_loss,
    generator_loss,
)
from .encoder import Encoder, Looks, divergence, perceptual_loss, thumbnail_loss
from .features import FrozenFeatures, Seen

TERMS = ("discriminator", "generator", "classify", "perceptual", "thumbnail", "divergence", "diversity")
_DIVERSE_MAPS = 3  # the shallow ones: the deepest is of a few places
_PROBE_BATCH = 100
_TWICE = 2  # pictures of a pair are augmented alike where they are compared

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


class _Noise(NamedTuple):
    values: Tensor  # (n, z)
    divergence: Tensor | None  # of the part that comes from codes


class Run:
    """The networks and their optimizers; `state` is what a checkpoint holds of them.

    Raises:
      ValueError: there is no BigGAN-deep of the photos' size, a class has fewer than two photos, or a network is
        needed and missing.
    """

    def __init__(self, config: Config, inputs: Inputs, device: torch.device) -> None:
        if config.needs_features and inputs.network is None:
            raise ValueError(
                "train cgan: --features is missing, expected an EfficientNet-Lite. Give one, or set "
                "discriminator.kind=plain, encoder.share=0, loss.classify=0 and loss.diversity=0."
            )
        torch.manual_seed(config.train.seed)
        self.random = torch.Generator().manual_seed(config.train.seed)
        self.config, self.device = config, device
        self.batches = Batches(inputs.photos, device)
        self.features: FrozenFeatures | None = None
        if config.needs_features and inputs.network is not None:
            self.features = FrozenFeatures(inputs.network, config)
        size = _size(config, inputs.photos)
        classes = size.num_classes
        self.generator = new_generator(size, config.generator.embedding_std)
        self.discriminator = _discriminator(config, size, self.features)
        self.encoder: Encoder | None = None
        if self.features is not None and config.encoded:
            length = Looks.length(self.features)
            self.encoder = Encoder(length, config.encoder.width, size.z_dim).to(device)
        self.looks: Looks | None = None  # `prepare` makes them
        self.probe = LinearProbe(POOLED, classes).to(device) if config.loss.classify else None
        module: Any
        for module in (self.generator, self.discriminator, self.features):
            if module is not None:
                module.to(device, memory_format=torch.channels_last)  # nearly twice as fast, on a CPU too
        self.average = deepcopy(self.generator).requires_grad_(False)
        self.finished = Finished(self.average, config.log, config.train.seed)
        rates, beta2 = config.optimizer, config.optimizer.beta2
        betas = (rates.beta1, beta2)
        self.optimizers = {
            "generator": _adam(self.generator, rates.lr_generator, betas),
            "discriminator": _adam(self.discriminator, rates.lr_discriminator, betas),
        }
        if self.encoder is not None:
            self.optimizers["encoder"] = _adam(self.encoder, config.encoder.lr, (config.encoder.beta1, beta2))
        self._rates = {name: optimizer.param_groups[0]["lr"] for name, optimizer in self.optimizers.items()}
        self.state = State(
            {
                "model": self.finished,
                "average": self.average,
                "generator": self.generator,
                "discriminator": self.discriminator,
                "encoder": self.encoder,
                "mixing": None if self.features is None else self.features.mixing,
                "probe": self.probe,
                "optimizers": self.optimizers,
                "random": GeneratorState(self.random),
            },
            {"losses": torch.zeros(len(TERMS), dtype=torch.float64), "batches": 0},  # since the last scalars
        )

    def prepare(self, log: TextIO) -> None:
        """Before the first step, also of a resumed run: look at all photos; train the classifier of a new run."""
        if self.features is None:
            return
        new = self.state.step == 0
        if self.encoder is not None:
            self.looks = Looks(self.batches, self.features)
            if new:
                self.looks.scale(self.encoder)
        if self.probe is not None and new:
            self._train_probe(self.probe, self.features, log)

    @torch.no_grad()
    def _train_probe(self, probe: LinearProbe, features: FrozenFeatures, log: TextIO) -> None:
        config = self.config.probe
        chosen = self.batches.spread(config.samples, self.random)
        pooled = []
        with progress_bar(config.samples, 0, "classifier") as progress:
            for start in range(0, config.samples, _PROBE_BATCH):
                rows, flips, _ = (tensor[start : start + _PROBE_BATCH] for tensor in chosen)
                strengths = draw_strengths(len(rows), self.random)
                images = augment(self.batches.read(rows, flips), strengths, self.config.augment)
                pooled.append(features(images, pooled=True).pooled)
                progress.update(len(rows))
        labels = chosen.labels.to(self.device)
        right = probe.fit(torch.cat(pooled), labels, steps=config.steps, lr=config.lr, generator=self.random)
        say(f"classifier: {100 * right:.1f} % of {config.samples:,} augmented photos right", log)

    def step(self) -> dict[str, Tensor]:
        """A step of the discriminator, and one of generator and encoder with the same pictures."""
        config, n = self.config, self.config.train.batch
        self.set_learning_rates()
        weights = self.weights()
        chosen = self.batches.draw(n, self.random)
        labels = chosen.labels.to(self.device)
        photos = self.batches.read(chosen.rows, chosen.flips)
        noise = self._noise(chosen)
        ones = torch.ones(n, 1, device=self.device)
        drawn = self.generator(noise.values, self.generator.embedding_table[labels], ones)
        if weights["diversity"]:
            strengths = draw_strengths(n // _TWICE, self.random).repeat_interleave(_TWICE, 1)
        else:
            strengths = draw_strengths(n, self.random)
        # Pictures from codes are compared with their photos: both are augmented alike.
        drawn_seen = self._see(
            augmented := augment(drawn, strengths, config.augment), pooled=self.probe is not None
        )
        with torch.no_grad():
            photos_seen = self._see(
                photos_augmented := augment(photos, strengths, config.augment), pooled=False
            )
        images = torch.cat([photos_augmented, augmented.detach()])
        maps = [torch.cat([r, f.detach()]) for r, f in zip(photos_seen.maps, drawn_seen.maps, strict=True)]
        losses = {"discriminator": self._step_discriminator(images, maps, labels)}

        losses["generator"] = self._fool(augmented, drawn_seen.maps, labels)
        losses |= self._reconstruction(drawn, drawn_seen, photos, photos_seen)
        if noise.divergence is not None:
            losses["divergence"] = noise.divergence
        if self.probe is not None:
            losses["classify"] = F.cross_entropy(self.probe(drawn_seen.pooled), labels)
        if weights["diversity"]:
            losses["diversity"] = diversity_loss(
                drawn_seen.maps[:_DIVERSE_MAPS], photos_seen.maps[:_DIVERSE_MAPS]
            )
        self._step_generator(losses, weights)
        update_average(self.average, self.generator, self.state.step, config.train.ema)
        self.state.step += 1
        return losses

    def _see(self, images: Tensor, *, pooled: bool) -> Seen:
        if self.features is None:
            return Seen([], [], images.new_empty(len(images), 0))
        seen: Seen = self.features(images, pooled=pooled)
        return seen

    def _noise(self, chosen: Choice) -> _Noise:
        """From the codes of the first photos, then from the prior."""
        n, z_dim, coded = len(chosen.rows), self.config.generator.z_dim, self.config.encoded
        if self.encoder is None or self.looks is None:
            return _Noise(truncated_normal(n, z_dim, self.random).to(self.device), None)
        mean, log_std = self.encoder(self.looks.of(chosen.rows[:coded], chosen.flips[:coded]).to(self.device))
        jitter = torch.randn(coded, z_dim, generator=self.random).to(self.device)
        prior = truncated_normal(n - coded, z_dim, self.random).to(self.device)
        return _Noise(torch.cat([mean + log_std.exp() * jitter, prior]), divergence(mean, log_std))

    def _step_discriminator(self, images: Tensor, maps: list[Tensor], labels: Tensor) -> Tensor:
        """Photos first, then as many pictures of the same labels."""
        n = len(labels)
        self.discriminator.requires_grad_(True)
        scores = self.discriminator(images, maps, labels.repeat(2))
        loss = discriminator_loss([s[:n] for s in scores], [s[n:] for s in scores])
        self.optimizers["discriminator"].zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizers["discriminator"].step()
        return loss

    def _fool(self, images: Tensor, maps: list[Tensor], labels: Tensor) -> Tensor:
        self.discriminator.requires_grad_(False)
        return generator_loss(self.discriminator(images, maps, labels))

    def _reconstruction(
        self, drawn: Tensor, drawn_seen: Seen, photos: Tensor, photos_seen: Seen
    ) -> dict[str, Tensor]:
        """Of the pictures that come from codes."""
        if self.encoder is None:
            return {}
        losses, n = {}, self.config.encoded
        if self.config.loss.perceptual:
            ours, theirs = ([m[:n] for m in seen.raw] for seen in (drawn_seen, photos_seen))
            losses["perceptual"] = perceptual_loss(ours, theirs)
        if self.config.loss.thumbnail:
            losses["thumbnail"] = thumbnail_loss(drawn[:n], photos[:n])
        return losses

    def _step_generator(self, losses: Mapping[str, Tensor], weights: Mapping[str, float]) -> None:
        terms = [weights[name] * loss for name, loss in losses.items() if weights.get(name)]
        total = torch.stack(terms).sum()
        players = [self.optimizers[name] for name in ("generator", "encoder") if name in self.optimizers]
        for optimizer in players:
            optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        for optimizer in players:
            optimizer.step()

    @torch.no_grad()
    def reconstruct(self, label: int, n: int) -> tuple[Tensor, Tensor]:
        """The first n photos of a class, and what the finished generator draws from their codes; (n, 3, h, w) each."""
        chosen = self.batches.first(label, n)
        photos, model = self.batches.read(chosen.rows, chosen.flips), self.finished.model
        if self.encoder is None or self.looks is None:
            return photos[:0], photos[:0]
        codes, _ = self.encoder(self.looks.of(chosen.rows, chosen.flips).to(self.device))
        ones = torch.ones(len(codes), 1, device=self.device)
        return photos, model(codes, model.embedding_table[chosen.labels.to(self.device)], ones)

    def set_learning_rates(self) -> None:
        """At their start until the run's last share, then down in a line."""
        config, left = self.config.optimizer, 1 - self.state.step / self.config.steps
        falling = config.final + (1 - config.final) * left / config.decay if left < config.decay else 1.0
        for name, optimizer in self.optimizers.items():
            optimizer.param_groups[0]["lr"] = self._rates[name] * falling

    def weights(self) -> dict[str, float]:
        """Of the generator's losses at the present step."""
        loss, ramp, done = self.config.loss, self.config.ramp, self.state.step / self.config.steps
        reconstruction = _grown(done, ramp.reconstruction)
        return {
            "generator": loss.adversarial * _grown(done, ramp.adversarial),
            "classify": loss.classify,
            "perceptual": loss.perceptual * reconstruction,
            "thumbnail": loss.thumbnail * reconstruction,
            "divergence": loss.divergence,
            "diversity": loss.diversity * _grown(done, ramp.diversity),
        }

    def add(self, losses: Mapping[str, float]) -> None:
        """Keep a step's losses for the next scalars."""
        values = self.state.values
        values["losses"] += torch.tensor([losses.get(name, 0.0) for name in TERMS], dtype=torch.float64)
        values["batches"] += 1

    def means(self) -> dict[str, float]:
        """Of the losses since the last scalars, which then begin anew."""
        values = self.state.values
        found = dict(zip(TERMS, (values["losses"] / max(1, values["batches"])).tolist(), strict=True))
        values["losses"].zero_()
        values["batches"] = 0
        coded = self.encoder is not None
        weights = self.weights()
        return {
            name: value
            for name, value in found.items()
            if weights.get(name, 1) and (coded or name not in ("perceptual", "thumbnail", "divergence"))
        }


def _grown(done: float, ramp: tuple[float, float, float]) -> float:
    """The share of its weight that a loss has; `done` is the share of the run."""
    first, start, end = ramp
    if done >= end:
        return 1.0
    return first if done <= start else first + (1 - first) * (done - start) / (end - start)


def _size(config: Config, photos: Photos) -> BigGANConfig:
    return BigGANConfig.of_resolution(
        photos.size,
        channel_width=config.generator.width,
        z_dim=config.generator.z_dim,
        num_classes=len(photos.classes),
        class_names=tuple(photos.classes),
    )


def _discriminator(config: Config, size: BigGANConfig, features: FrozenFeatures | None) -> Discriminator:
    width = config.discriminator.channels
    if config.discriminator.kind == "plain" or features is None:
        return PlainDiscriminator(size.resolution, width, size.num_classes)
    return ProjectedDiscriminator(features.channels, width, size.num_classes)


def _adam(module: torch.nn.Module, rate: float, betas: tuple[float, float]) -> torch.optim.Adam:
    return torch.optim.Adam(module.parameters(), rate, betas, fused=True)
