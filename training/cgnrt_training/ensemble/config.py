"""All settings of a natural-image classifier's training, on one page, with their places in the paper.

The defaults are the paper's values; where it says nothing they are those of the authors' code ("ref.") or, where noted,
ours. The recipe `authors-code` (`configs/`) sets what that code does otherwise, and `small` is for small pictures on a
CPU. A TOML file or recipe and `--set section.key=value` change them, in this order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ..settings import check, check_numbers, check_one_of

# What each classifier is trained on. All rows take the same number of images in a step.
ROWS: dict[str, str] = {
    "original": "photos alone",
    "original+cgn": "photos and counterfactuals of a plan, with three heads",
    "original+swaps": "photos, and photos with exchanged textures and backgrounds (cgnrt.real): three heads, no CGN",
    "random-erasing": "photos, half of them with a random rectangle of noise (Zhong et al., 2020)",
    "mixed-rand": "photos' objects on backgrounds of other photos alone (Xiao et al., 2020)",
}
WITH_HEADS = ("original+cgn", "original+swaps")  # three heads; the others have one
NEEDS_PLAN = ("original+cgn",)
NEEDS_MASKS = ("original+swaps", "mixed-rand")


@dataclass(frozen=True)
class ModelConfig:
    """The backbone."""

    backbone: str = "resnet50"  # Sec. 4.3
    pretrained: bool = True  # App. C.4: begins with ImageNet's weights
    freeze_norm: bool = True  # ref.: batch norm keeps the statistics of these weights
    input_size: int = 0  # side that pictures are scaled to before the backbone; 0 leaves them as they are


@dataclass(frozen=True)
class AugmentConfig:
    """How photos and counterfactuals are changed alike, drawn anew for each image; ours."""

    flip: float = 0.5  # share of images that are mirrored
    shift: float = 0.1  # moved by up to this share of the picture, each way; the edge is mirrored


@dataclass(frozen=True)
class OptimizerConfig:
    """Stochastic gradient descent."""

    lr: float = 0.1  # App. C.4; ref. 0.001
    momentum: float = 0.9  # App. C.4
    weight_decay: float = 1e-4  # App. C.4
    schedule: Literal["steps", "cosine"] = "steps"
    factor: float = 0.001  # App. C.4: of the rate, at each of `drops`; ref. 0.1
    drops: tuple[float, float] = (30.0, 60.0)  # epochs, App. C.4; ref. 15 and 30
    warmup: float = 0.0  # share of the steps over which the rate rises from 0; ours
    clip: float = 0.0  # longest gradient of all weights; longer ones are shortened; 0 leaves them; ours


@dataclass(frozen=True)
class TrainConfig:
    """The loop."""

    row: str = "original+cgn"  # a key of ROWS
    epochs: float = 70.0  # App. C.4, passes over the photos; ref. 45
    batch_size: int = 512  # App. C.4, half of it real; ref. 64
    real_share: float = 0.5  # App. C.4
    reuse: int = 1  # counterfactuals that are composed for each run of a mechanism
    truncation: float = 0.0  # of the counterfactuals' noise; 0 is the plan's default; ref. 0.5
    seed: int = 0  # of weights, order, changes and counterfactuals


@dataclass(frozen=True)
class LogConfig:
    """What a run leaves behind."""

    scalars_every: int = 50  # steps
    checkpoint_every: int = 500  # steps; the photos of val judge then, too
    judged_photos: int = 1000  # at most, at a checkpoint; the last step judges by all


@dataclass(frozen=True)
class EnsembleConfig:
    """A whole run.

    Raises:
      ValueError: a value is not allowed; the message names it.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    log: LogConfig = field(default_factory=LogConfig)

    def __post_init__(self) -> None:
        check_numbers(self, positive={"lr", "epochs", "factor"}, fractions=_FRACTIONS, within=_WITHIN)
        check_one_of("train.row", self.train.row, tuple(ROWS))
        check("train.batch_size", self.train.batch_size, self.train.batch_size >= 2, ">= 2")
        share = self.train.real_share
        check(
            "train.real_share", share, 0 < self.real < self.train.batch_size, "photos and others in a batch"
        )

    @property
    def real(self) -> int:
        """Photos in a batch of a row that has others beside them."""
        return round(self.train.batch_size * self.train.real_share)

    def steps(self, photos: int) -> int:
        """Steps of a run on so many photos: every row sees each photo equally often (App. C.4), so that a row with
        other images in its batches takes more steps."""
        in_step = self.real if self.train.row in WITH_HEADS else self.train.batch_size
        return max(1, round(self.train.epochs * photos / in_step))


MAY_CHANGE = ("train.epochs", "log.")  # when a run is resumed
RECIPES = "cgnrt_training.ensemble"  # the package whose `configs/` has the recipes

_FRACTIONS = {"momentum", "warmup", "shift", "real_share"}  # in [0, 1)
_WITHIN = {
    "flip": (0, 1),
    "input_size": (0, 1024),
    "truncation": (0, 1),
    "reuse": (1, 4096),
    "seed": (0, 2**63 - 1),
}
