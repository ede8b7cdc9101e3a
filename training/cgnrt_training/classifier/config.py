"""All settings of a classifier's training. One recipe for every row of Table 2, except for what makes the row."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from ..mnist.config import VARIANTS
from ..settings import check, check_one_of

Row = Literal[
    "original",
    "irm-2",
    "irm-5",
    "lntl",
    "original+gan",
    "original+cgn",
    "oracle",
    "colour-jitter",
    "background-mix",
    "pooled-5",
    "cgn-only",
]
Label = Literal["shape", "texture", "background"]

# Each row's training data and loss; the first six are the paper's, the others ours.
ROWS: dict[str, str] = {
    "original": "the train domain alone",
    "irm-2": "invariant risk minimisation on 2 environments (90, 100 % correlation)",
    "irm-5": "invariant risk minimisation on 5 environments (90, 92.5, 95, 97.5, 100 %)",
    "lntl": "learning not to learn: features that do not tell the colours",
    "original+gan": "the train domain and a conditional GAN's samples",
    "original+cgn": "the train domain and counterfactuals",
    "oracle": "train digits with random cues, which no method may see: the bound",
    "colour-jitter": "the train domain under random hue rotation, gain, offset and channel order",
    "background-mix": "the train domain blended with other train images",
    "pooled-5": "the five environments of irm-5 as one set, plain loss",
    "cgn-only": "counterfactuals alone",
}
ENVIRONMENTS: dict[str, tuple[float, ...]] = {
    "irm-2": (0.9, 1.0),
    "irm-5": (0.9, 0.925, 0.95, 0.975, 1.0),
    "pooled-5": (0.9, 0.925, 0.95, 0.975, 1.0),
}
NEEDS_PLAN = ("original+cgn", "cgn-only")
NEEDS_GAN = ("original+gan",)
N_REAL = 50_000  # images of the train domain, against which `counterfactuals` is weighed


@dataclass(frozen=True)
class ClassifierConfig:
    """One classifier.

    Raises:
      ValueError: a value is not allowed; the message names it.
    """

    row: str
    variant: str
    steps: int = 2400  # 6 epochs of the 50,000 real images
    batch_size: int = 128
    lr: float = 5e-3  # Adam's peak: up linearly over `warmup`, then down on a cosine
    warmup: float = 0.2  # share of the steps
    seed: int = 0  # of weights, data order, cues and counterfactuals
    # Generated data (rows with +gan, +cgn, cgn-only).
    counterfactuals: int = 200_000  # beside 50,000 real images, which is also their share of a batch
    per_noise: int = 1  # counterfactuals that share a shape and its noise (App. A.3)
    reuse: int = 1  # images composed for each run of a mechanism; 1 means without a pool
    label: str = "shape"  # which mechanism's label is learnt; App. H takes the others
    joint_cues: bool = True  # in the environments, both cues of an image follow its label or neither does
    # IRM (App. C.4): the penalty's weight is 0, then rises linearly to `irm_weight` at the last step.
    irm_weight: float = 1.0  # chosen by held-out counterfactuals; at 100 less of the shape is learnt
    irm_start: float = 0.1  # share of the steps with weight 0
    irm_divide: bool = True  # a weight above 1 divides the whole loss, so that steps keep their size
    # LNTL (Kim et al., 2019).
    lntl_weight: float = 10.0  # on the colour predictor's reversed gradient; of 0.1, 1, 10 by counterfactuals
    lntl_entropy: float = 0.01  # on the predictor's negative entropy; as in the LNTL authors' code
    checkpoint_every: int = 300  # steps

    def __post_init__(self) -> None:
        check_one_of("row", self.row, tuple(ROWS))
        check_one_of("variant", self.variant, VARIANTS)
        check_one_of("label", self.label, get_args(Label))
        for name in ("steps", "batch_size", "counterfactuals", "per_noise", "reuse", "checkpoint_every"):
            check(name, getattr(self, name), getattr(self, name) >= 1, "a whole number of at least 1")
        check("lr", self.lr, 0 < self.lr < math.inf, "> 0")
        check("seed", self.seed, 0 <= self.seed < 2**31, "in 0..2^31-1")
        for name in ("warmup", "irm_start"):
            check(name, getattr(self, name), 0 <= getattr(self, name) < 1, "in [0, 1)")
        for name in ("irm_weight", "lntl_weight", "lntl_entropy"):
            check(name, getattr(self, name), 0 <= getattr(self, name) < math.inf, "a finite number >= 0")
        parts = len(ENVIRONMENTS.get(self.row, ())) or 2
        check("batch_size", self.batch_size, self.batch_size >= parts, f">= {parts} for row {self.row}")
        both = self.per_noise > 1 and self.reuse > 1
        check("reuse", self.reuse, not both, "1 beside per_noise > 1: a pool's parts meet at random")

    @property
    def generated_share(self) -> int:
        """Generated images in a batch: as many of it as there are of all images, real and generated."""
        if self.row == "cgn-only":
            return self.batch_size
        if self.row not in (*NEEDS_PLAN, *NEEDS_GAN):
            return 0
        return round(self.batch_size * self.counterfactuals / (self.counterfactuals + N_REAL))
