"""All settings of the training of a saliency head, on one page."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from ..settings import check, flat


@dataclass(frozen=True)
class LossConfig:
    """Weights of the losses."""

    binary: float = 1.0  # mean cross-entropy of the pixels
    overlap: float = (
        1.0  # 1 - intersection over union of the soft masks, which small objects count in as well
    )


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
        for key, value in flat(self).items():
            _check_setting(key, value)
        weights = vars(self.loss)
        check("loss", weights, any(weights.values()), "a weight > 0")


MAY_CHANGE = ("train.steps", "log.")  # when a run is resumed

_POSITIVE = {"lr", "width", "steps", "scalars_every", "checkpoint_every", "judged_photos", "sheet_photos"}
_BELOW_ONE = {"colour", "beta1", "beta2", "ema", "shift"}
_SHARES = {"flip", "blur", "noise"}


def _check_setting(key: str, value: Any) -> None:
    name = key.rpartition(".")[2]
    check(key, value, math.isfinite(value) and value >= 0, "finite and >= 0")
    check(key, value, name not in _POSITIVE or value > 0, "> 0")
    check(key, value, name not in _BELOW_ONE or value < 1, "in [0, 1)")
    check(key, value, name not in _SHARES or value <= 1, "in [0, 1]")
    check(key, value, name != "batch_size" or value >= 2, ">= 2 (batch norm)")
    check(key, value, name != "blur_pixels" or value <= 8, "at most 8")
    check(key, value, name != "width" or value <= 256, "at most 256")
    check(key, value, name != "seed" or value < 2**63, "in 0..2^63-1")
