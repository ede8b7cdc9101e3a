"""All settings of a cGAN's training, on one page, with their sources.

The generator is BigGAN-deep (Brock et al., 2019), as narrow as two cores can train; the discriminator looks at the
features of a frozen network (Projected GAN, arXiv 2111.01007), its pictures are augmented (DiffAugment, arXiv
2006.10738). Where no source is named, the value is ours. `--set section.key=value` changes it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ..settings import check, check_numbers


@dataclass(frozen=True)
class GeneratorConfig:
    """BigGAN-deep's size; its resolution and classes are the photos'."""

    width: int = 16  # channels of the last block: 1.2 M parameters at 64 px, 32: 3.0 M; BigGAN: 128
    z_dim: int = 64  # length of noise and class embedding; BigGAN: 128
    embedding_std: float = 0.7  # of the class embedding at the start; about the noise's own


@dataclass(frozen=True)
class FeaturesConfig:
    """The frozen network that discriminator, classifier and diversity loss look through."""

    size: int = 96  # pixels to which pictures are scaled for it; Projected GAN: the network's own, 224
    precision: Literal["fp32", "bf16"] = "fp32"  # bf16 pays on a GPU, and on a CPU with AMX


@dataclass(frozen=True)
class DiscriminatorConfig:
    """A head for each of four feature maps, or a network of its own on the pixels."""

    kind: Literal["projected", "plain"] = "projected"
    # Of the maps, by fixed random convolutions: across channels, and then also across scales (Projected GAN, Sec. 3.2).
    mixing: Literal["none", "channels", "scales"] = "scales"
    channels: int = (
        64  # of mixed maps and heads, or of the plain network's first layer; Projected GAN: 64 in its heads
    )


@dataclass(frozen=True)
class AugmentConfig:
    """DiffAugment of real and generated pictures, for the frozen network alike; 0 leaves one out."""

    brightness: float = 0.8  # shift by up to half of it, pictures in [-1, 1]; DiffAugment: 1
    saturation: float = 1.5  # factor within 1 -+ half of it; DiffAugment: 2
    contrast: float = 0.8  # factor within 1 -+ half of it; DiffAugment: 1
    translation: float = (
        0.125  # by up to this share of the side, reflected at the edge; DiffAugment: the same, zeros
    )
    cutout: float = 0.375  # side of the square that is greyed, as a share; DiffAugment: 0.5
    cutout_share: float = 0.5  # of the pictures that have it; DiffAugment: 1


@dataclass(frozen=True)
class EncoderConfig:
    """Noise that comes from photos (VAE-GAN, arXiv 1512.09300), without which one picture a class is enough."""

    share: float = 0.5  # of a batch that is drawn from its photos' codes; 0 leaves the encoder out
    width: int = 256  # of its two hidden layers
    lr: float = 3e-4
    beta1: float = 0.5


@dataclass(frozen=True)
class LossConfig:
    """Weights of the generator's losses; 0 leaves one out, and does not compute it."""

    adversarial: float = 1.0  # hinge loss, summed over heads; BigGAN
    classify: float = 3.0  # cross-entropy of a linear classifier on the frozen features
    perceptual: float = 60.0  # of pictures from codes to their photos: in the frozen network's maps
    thumbnail: float = 600.0  # the same at a quarter of the size: mean absolute difference
    divergence: float = 0.2  # of the codes' distribution from the noise's, in nats
    diversity: float = (
        12.0  # two samples of a class must differ as much as two photos of it do, in three mixed maps
    )


@dataclass(frozen=True)
class RampConfig:
    """How losses come to their whole weight: its share at first, then from where to where in the run it grows."""

    # Weak at first: else it drowns the codes before they mean something.
    adversarial: tuple[float, float, float] = (0.25, 0.0, 0.03)
    # Of perceptual and thumbnail: less at first, so that classes can be told apart sooner.
    reconstruction: tuple[float, float, float] = (0.17, 0.3, 0.5)
    diversity: tuple[float, float, float] = (0.0, 0.5, 0.65)  # when classes can be told apart


@dataclass(frozen=True)
class ProbeConfig:
    """The linear classifier, which is trained on the photos before all else."""

    samples: int = 20000  # augmented photos
    steps: int = 1000  # of 256 samples
    lr: float = 1e-3


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam for both players."""

    lr_generator: float = 1.2e-3
    lr_discriminator: float = 1e-4
    beta1: float = 0.0  # BigGAN, Projected GAN
    beta2: float = 0.99  # Projected GAN
    decay: float = 0.3  # the last share of the run, in which the learning rates fall in a line
    final: float = 0.05  # of the learning rates that is left at the end


@dataclass(frozen=True)
class TrainConfig:
    """The loop."""

    images: int = 165000  # that the discriminator sees
    batch: int = 32  # an even number: it is made of pairs of one class
    ema: float = 0.998  # decay of the averaged weights, which are what is saved
    seed: int = 0


@dataclass(frozen=True)
class LogConfig:
    """What a run leaves behind."""

    checkpoint_every: int = 10000  # images
    scalars_every: int = 3200  # images
    calibrate_samples: int = 256  # that the batch norms' stored statistics are from
    sheet_samples: int = 10  # columns of a sheet
    sheet_truncation: float = 1.0
    score_samples: int = 300  # that a judge looks at
    weights: Literal["fp32", "fp16"] = "fp32"  # in which cgan.pt has them; fp16 halves the file


@dataclass(frozen=True)
class Config:
    """A whole run."""

    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    features: FeaturesConfig = field(default_factory=FeaturesConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    ramp: RampConfig = field(default_factory=RampConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    log: LogConfig = field(default_factory=LogConfig)

    def __post_init__(self) -> None:
        check_numbers(self, positive=set(), fractions=_FRACTIONS, within=_WITHIN)
        check("generator.width", self.generator.width, self.generator.width % 4 == 0, "a multiple of 4")
        check("loss.adversarial", self.loss.adversarial, self.loss.adversarial > 0, "> 0")
        for name, ramp in vars(self.ramp).items():
            well = all(0 <= share <= 1 for share in ramp) and ramp[1] <= ramp[2]
            check(f"ramp.{name}", ramp, well, "shares in 0..1, the last not below the second")
        check("train.batch", self.train.batch, self.train.batch % 2 == 0, "an even number")
        check("train.images", self.train.images, self.train.images >= self.train.batch, ">= train.batch")

    @property
    def steps(self) -> int:
        """Of a batch each."""
        return self.train.images // self.train.batch

    def every(self, images: int) -> int:
        """So many images as steps, at least one."""
        return max(1, images // self.train.batch)

    @property
    def needs_features(self) -> bool:
        """Whether anything looks through the frozen network."""
        others = (self.encoder.share, self.loss.classify, self.loss.diversity)
        return self.discriminator.kind == "projected" or any(others)

    @property
    def encoded(self) -> int:
        """How many samples of a batch are drawn from their photos' codes."""
        return round(self.encoder.share * self.train.batch)


# When a run is resumed: how long it is, and what one turns when the pictures are not as wished.
MAY_CHANGE = (
    "train.images",
    "train.ema",
    "loss.",
    "ramp.",
    "augment.",
    "optimizer.lr_",
    "optimizer.decay",
    "log.",
)

_FRACTIONS = {"beta1", "beta2", "ema"}  # in [0, 1)
_SHARES = ("share", "translation", "cutout", "cutout_share", "decay", "final")
_WITHIN = {
    **dict.fromkeys(_SHARES, (0, 1)),
    "sheet_truncation": (0.02, 1),  # as in plans
    "lr": (1e-9, 1),
    "size": (1, 1024),
    "width": (4, 4096),
    "z_dim": (1, 4096),
    "batch": (2, 2**20),
    "seed": (0, 2**63 - 1),
}
