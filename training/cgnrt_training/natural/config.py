"""All settings of a natural-image CGN's training, on one page, with their places in the paper.

The defaults are the paper's values; where it says nothing they are those of the authors' code ("ref.") or, where noted,
ours. The recipe `authors-code` (`configs/`) sets what that code does otherwise. A TOML file or recipe and
`--set section.key=value` change them, in this order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from ..settings import check, check_numbers


@dataclass(frozen=True)
class LossConfig:
    """Weights of the losses; 0 leaves one out, and does not compute it."""

    l1: float = 100.0  # lambda 1 of Eq. 4: mean absolute difference of the composite to the cGAN's picture
    perceptual: float = 5.0  # lambda 2: style of the same pair
    binary: float = 300.0  # lambda 3: mean entropy of the mask's pixels in bits, Eq. 3
    mask: float = 500.0  # lambda 4: mask interval, Eq. 3
    tau: float = 0.1  # App. C.1: a mask covers tau to 1 - tau
    texture: float = 5.0  # lambda 5: style of the foreground to the patch grid, App. C.2
    background: float = 2000.0  # lambda 6: mean saliency of the background
    residue: float = 0.0  # mean saliency of the background within the mask; ours, against Fig. 31's residues


@dataclass(frozen=True)
class PerceptualConfig:
    """The style loss (App. C.3): Gram matrices of a frozen network's features."""

    taps: Literal["pools", "relus"] = "pools"  # of VGG16: the first four poolings; ref. the ReLUs before them
    normalise: bool = True  # as the features were trained; ref. feeds [-1, 1] as it is
    distance: Literal["squared", "absolute"] = (
        "squared"  # sum of squares (Johnson et al.); ref. mean absolute
    )
    reconstruction: tuple[float, float, float, float] = (
        1.0,
        1.0,
        1.0,
        1.0,
    )  # of the four maps, shallow to deep
    texture: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)  # ref. the middle two


@dataclass(frozen=True)
class PatchConfig:
    """The patch grid (App. C.2)."""

    source: Literal["composite", "teacher"] = "composite"  # Sec. 3.1; ref. takes the cGAN's picture
    resolution: int = 128  # to which mask and picture are scaled before windows are cut; ref.
    patch: int = 15  # App. C.2
    grid: int = 6  # App. C.2
    top: int = 100  # windows with the highest mean mask that are drawn from; ref.
    by_object: bool = False  # App. F: a smaller object gets smaller patches, and more of them
    object_share: float = 0.3  # a mask that covers so much gets the full patch; ours, for by_object
    smallest: int = 5  # the smallest patch; ours, for by_object


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam, with a learning rate for each mechanism."""

    lr_shape: float = 8e-6  # App. C.3
    lr_texture: float = 1e-5  # App. C.3; ref. 3e-5
    lr_background: float = 1e-5  # App. C.3
    lr_refine: float = 1e-4  # of the refinement network; ours
    beta1: float = 0.9  # ref.
    beta2: float = 0.999  # ref.


@dataclass(frozen=True)
class TrainConfig:
    """The loop."""

    updates: int = 300  # ref.
    pseudo_batch: int = 4000  # samples whose gradients are summed for an update; App. C.3
    micro_batch: int = 1  # samples drawn at a time; App. C.3. Results depend on it only by rounding
    truncation: float = 1.0  # of the noise and of BigGAN's stored statistics; App. C.3
    # When spectral norm's power iteration runs. Ours once an update, so that a sample's gradient depends neither on the
    # micro-batch nor on the samples before it; ref. before every micro-batch.
    power_iteration: Literal["update", "micro-batch", "off"] = "update"
    train_embeddings: bool = True  # each mechanism's class embeddings train too; ref.
    refine: bool = False  # App. F: a shallow network after the composer
    refine_width: int = 32  # its channels; ours
    ema: float = 0.0  # decay of averaged weights, which are then what is saved; 0 is off, as in ref.
    precision: Literal["fp32", "bf16"] = "fp32"  # bf16: networks by autocast, losses in fp32; ref. fp32
    channels_last: bool = False  # memory format of the networks; ours, not measured on a GPU yet
    seed: int = 0


@dataclass(frozen=True)
class LogConfig:
    """What a run leaves behind."""

    checkpoint_every: int = 500  # samples, and after every update
    samples_every: int = 1  # updates between two sheets
    sheet_samples: int = 6  # columns of a sheet
    sheet_truncation: float = 0.5  # App. D.1
    training_data: str = ""  # what the cGAN was trained on, in words; goes into the plan


@dataclass(frozen=True)
class Config:
    """A whole run."""

    loss: LossConfig = field(default_factory=LossConfig)
    perceptual: PerceptualConfig = field(default_factory=PerceptualConfig)
    patches: PatchConfig = field(default_factory=PatchConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    log: LogConfig = field(default_factory=LogConfig)

    def __post_init__(self) -> None:
        check_numbers(self, positive={"object_share"}, fractions=_FRACTIONS, within=_WITHIN)
        weights = {key: value for key, value in vars(self.loss).items() if key != "tau"}
        check("loss", weights, any(weights.values()), "a weight > 0")
        text = self.log.training_data
        check("log.training_data", text, len(text) <= 4096, "at most 4096 characters")
        check("loss.tau", self.loss.tau, self.loss.tau < 0.5, "below 0.5")
        patches = self.patches
        rule = f"at most patches.resolution {patches.resolution}"
        check("patches.patch", patches.patch, patches.patch <= patches.resolution, rule)
        windows = (patches.resolution - patches.patch + 1) ** 2
        check("patches.top", patches.top, patches.top <= windows, f"at most the {windows} windows")
        rule = f"at most patches.patch {patches.patch}"
        check("patches.smallest", patches.smallest, patches.smallest <= patches.patch, rule)

    def without(self, group: str) -> Config:
        """The same with a group of losses off, as in Table 1: a key of `GROUPS`."""
        return replace(self, loss=replace(self.loss, **dict.fromkeys(GROUPS[group], 0.0)))


GROUPS: Mapping[str, tuple[str, ...]] = {  # Eq. 4
    "shape": ("binary", "mask"),
    "texture": ("texture",),
    "background": ("background", "residue"),
    "reconstruction": ("l1", "perceptual"),
}
MAY_CHANGE = ("train.updates", "log.")  # when a run is resumed
RECIPES = "cgnrt_training.natural"  # the package whose `configs/` has the recipes

_FRACTIONS = {"beta1", "beta2", "ema"}  # in [0, 1)
_WITHIN = {
    "truncation": (0.02, 1),  # as in plans
    "sheet_truncation": (0.02, 1),
    "patch": (1, 255),  # here and below the limits of `cgnrt.ops.patch_grid`
    "grid": (1, 64),
    "resolution": (1, 4096),
    "seed": (0, 2**63 - 1),
}
