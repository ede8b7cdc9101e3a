"""All settings of an MNIST CGN's training, on one page, with their places in the paper.

The defaults are the values of the paper and of the authors' code ("ref."). Three layers change them, in this order: the
variant's values, a TOML file or recipe (`configs/`), and `--set section.key=value`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from ..settings import check, check_numbers, check_one_of, override

Variant = Literal["colored", "double-colored", "wildlife"]
N_CLASSES = 10
VARIANTS: tuple[Variant, ...] = get_args(Variant)


@dataclass(frozen=True)
class ModelConfig:
    """The CGN (App. B)."""

    noise_size: int = 32  # z of each mechanism; ref.
    channels: int = 32  # width of the last convolutions; ref.
    init: Literal["orthogonal", "normal"] = "orthogonal"  # ref., by variant
    gain: float = 0.1  # ref., by variant
    # circular is not in ref.: textures without a seam when they are rolled
    texture_padding: Literal["zeros", "circular"] = "zeros"
    match_borders: bool = False  # backgrounds start in the colours of the images' border; not in ref.


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Judges composites (Sec. 3.1: an adversarial loss suffices on MNIST)."""

    kind: Literal["linear", "conv", "strided"] = "linear"  # ref., by variant; strided is not in ref.
    width: int = 512  # ref., by variant: 512 linear, 32 conv
    dropout: float = 0.4  # ref.; linear and strided
    contrast: bool = False  # also look at the standardised image; not in ref., for low-contrast classes
    projection: bool = False  # each class judges by its own weights too; not in ref., learns labels faster


@dataclass(frozen=True)
class LossConfig:
    """Weights of the generator's losses."""

    binary: float = 0.1  # pixel-wise binary entropy of the mask, Eq. 3; ref., by variant
    mask: float = 0.0  # mask interval, Eq. 3; 0 in ref. on MNIST
    mask_low: float = 0.1  # tau of Eq. 3: no mask covers less
    mask_high: float = 0.9  # 1 - tau of Eq. 3: no mask covers more
    surroundings: float = 0.0  # backgrounds should look like the border of real images; not in ref.
    objects: float = 0.0  # foregrounds should look like the objects of real images; not in ref.
    border: float = 0.0  # mean mask at the picture's border; not in ref., against inverted masks
    smooth: float = 0.0  # total variation of the mask; not in ref., against speckle
    # Not in ref.; what teacher.py says. Without reconstruction there is no teacher, and the others are idle.
    reconstruction: float = 0.0  # squared error of the masks of real images, drawn again
    kl: float = 0.006  # a nat of the encoder's distance from N(0, 1)
    fills: float = (
        0.0  # absolute error of what is seen of objects and backgrounds of real images, drawn again
    )
    fills_kl: float = 0.003  # a nat of their encoders' distance from N(0, 1)
    mask_judge: float = 0.0  # masks should pass for those found in real images with their label
    mask_label: float = 0.0  # and a classifier of those should name their label
    mask_gradient: float = 1.0  # share of the adversarial gradient that reaches masks after train.teach_from
    perceptual: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)  # Gram losses, shallow to deep; ref.


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam, for both networks."""

    lr_generator: float = 2e-4  # ref.
    lr_discriminator: float = 2e-4  # ref.
    reach_factor: float = 1.0  # on the rate of the textures' last batch norm, which sets contrast; 1 in ref.
    beta1: float = 0.5  # ref.
    beta2: float = 0.999  # ref.
    final_lr: float = 1.0  # fraction of the learning rates left at the last step (cosine); ref. constant


@dataclass(frozen=True)
class TrainConfig:
    """The loop."""

    steps: int = 46_875  # 15 epochs of 50,000 images; ref.
    batch_size: int = 16  # ref.
    texture_reuse: int = 1  # shapes of one class in a row that share a texture and a background; 1 in ref.
    teach_from: int = 200  # first step of loss.mask_gradient: by then masks are found in real images
    ema: float = 0.0  # decay of averaged weights, which are then what is saved; 0 is off, as in ref.
    seed: int = 0


@dataclass(frozen=True)
class LogConfig:
    """What a run leaves behind, in steps between two."""

    scalars_every: int = 50
    samples_every: int = 1000
    checkpoint_every: int = 1000


@dataclass(frozen=True)
class Config:
    """A whole run."""

    variant: Variant
    model: ModelConfig = field(default_factory=ModelConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    log: LogConfig = field(default_factory=LogConfig)

    def __post_init__(self) -> None:
        check_one_of("variant", self.variant, VARIANTS)
        check_numbers(self, positive={"reach_factor"}, fractions=_FRACTIONS, within=_WITHIN)
        loss, train = self.loss, self.train
        for name in ("fills", "mask_judge", "mask_label"):
            weight = getattr(loss, name)
            check(
                f"loss.{name}", weight, not weight or loss.reconstruction > 0, "0 without loss.reconstruction"
            )
        check("loss.mask_high", loss.mask_high, loss.mask_low < loss.mask_high <= 1, "in (loss.mask_low, 1]")
        check(
            "train.batch_size",
            train.batch_size,
            train.batch_size % train.texture_reuse == 0,
            f"a multiple of train.texture_reuse {train.texture_reuse}",
        )


MAY_CHANGE = ("train.steps", "log.")  # when a run is resumed
RECIPES = "cgnrt_training.mnist"  # the package whose `configs/` has the recipes

# What the authors' code sets for each variant, by section (their cfg.yaml files).
_REFERENCE: dict[Variant, dict[str, dict[str, Any]]] = {
    "colored": {
        "loss": {"binary": 0.1, "perceptual": [0.05, 0.1, 0.01, 0.0]},
        "model": {"init": "orthogonal", "gain": 0.1},
    },
    "double-colored": {
        "loss": {"binary": 0.3, "perceptual": [0.0, 0.05, 0.0, 0.05]},
        "model": {"init": "orthogonal", "gain": 0.2},
    },
    "wildlife": {
        "loss": {"binary": 0.3, "perceptual": [0.01, 0.05, 0.0, 0.01]},
        "model": {"init": "normal", "gain": 0.03},
        "discriminator": {"kind": "conv", "width": 32},
    },
}

_FRACTIONS = {"mask_low", "dropout", "ema", "beta1", "beta2"}  # in [0, 1)
_WITHIN = {"final_lr": (0, 1), "teach_from": (0, 2**63 - 1), "seed": (0, 2**63 - 1)}


def reference(variant: str) -> Config:
    """The paper's and the authors' values for "colored", "double-colored" or "wildlife".

    Raises:
      ValueError: an unknown variant; the message names the close ones.
    """
    config = Config(variant)  # type: ignore[arg-type]
    return override(config, _REFERENCE[config.variant])
