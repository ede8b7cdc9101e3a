"""All settings of the training of a saliency head, on one page."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..settings import check, check_numbers


@dataclass(frozen=True)
class LossConfig:
    """Weights of the losses."""

    binary: float = 1.0  # mean cross-entropy of the pixels
    overlap: float = 1.0  # 1 - intersection over union of the soft masks; small objects count in it as well


@dataclass(frozen=True)
class AugmentConfig:
    """How photos are changed; drawn anew for each photo in each epoch. 0 leaves a change out."""

    flip: float = 0.5  # share of photos that are mirrored
    scale: float = 0.25  # enlarged or shrunk by up to 2 to this power
    shift: float = 0.1  # moved by up to this share of the picture, each way
    colour: float = 0.3  # brightness, contrast, saturation and each channel times 1 - this to 1 + this
    blur: float = 0.2  # share of photos that are blurred
    blur_pixels: float = 1.2  # at most: the blur's standard deviation
    noise: float = 0.2  # share of photos that get noise
    noise_deviation: float = 0.15  # at most, of values in [-1, 1]


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW; the rate falls to 0 by a cosine."""

    lr: float = 4e-3
    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 1e-3


@dataclass(frozen=True)
class TrainConfig:
    """The loop and the network."""

    width: int = 8  # channels at the full resolution: 31 million multiply-adds at 64 px
    steps: int = 6000  # 20 epochs of 9,500 photos
    batch_size: int = 32
    ema: float = 0.998  # decay of averaged weights, which are what is saved
    seed: int = 0


@dataclass(frozen=True)
class LogConfig:
    """What a run leaves behind."""

    scalars_every: int = 50  # steps
    checkpoint_every: int = 500  # steps; the network is judged then, too
    judged_photos: int = 500  # at most, at a checkpoint; the last step judges by all
    sheet_photos: int = 12  # columns of the sheet


@dataclass(frozen=True)
class SaliencyConfig:
    """A whole run."""

    loss: LossConfig = field(default_factory=LossConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    log: LogConfig = field(default_factory=LogConfig)

    def __post_init__(self) -> None:
        check_numbers(self, positive={"lr"}, fractions=_FRACTIONS, within=_WITHIN)
        check("train.batch_size", self.train.batch_size, self.train.batch_size >= 2, ">= 2 (batch norm)")
        weights = vars(self.loss)
        check("loss", weights, any(weights.values()), "a weight > 0")


MAY_CHANGE = ("train.steps", "log.")  # when a run is resumed

_FRACTIONS = {"colour", "beta1", "beta2", "ema", "shift"}  # in [0, 1)
_WITHIN = {
    "flip": (0, 1),
    "blur": (0, 1),
    "noise": (0, 1),
    "blur_pixels": (0, 8),
    "width": (1, 256),
    "seed": (0, 2**63 - 1),
}
