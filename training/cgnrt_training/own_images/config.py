"""The settings of all stages together. How much effort a run takes is a recipe in `configs/`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..cgan.config import Config as CganConfig
from ..natural.config import RECIPES as CGN_RECIPES
from ..natural.config import Config as CgnConfig
from ..saliency.config import SaliencyConfig
from ..settings import check, from_texts, load_toml, override

RECIPES = "cgnrt_training.own_images"  # the package whose `configs/` has the efforts
EFFORT = "full"  # where none is asked for
SIZES = (32, 64, 128)  # pixels: BigGAN-deep's forms that a folder of photos may be enough for
CGN_RECIPE = "small"  # of the CGN stage, which an effort changes


@dataclass(frozen=True)
class Config:
    """A whole run, a section for each stage."""

    size: int = 64  # side of the pictures in pixels
    saliency: SaliencyConfig = field(default_factory=SaliencyConfig)
    cgan: CganConfig = field(default_factory=CganConfig)
    cgn: CgnConfig = field(default_factory=CgnConfig)

    def __post_init__(self) -> None:
        check("size", self.size, self.size in SIZES, f"one of {', '.join(map(str, SIZES))}")


def resolve(effort: str = EFFORT, texts: Sequence[str] = ()) -> Config:
    """The settings of an effort.

    Args:
      effort: a recipe of `configs/`, or a TOML file.
      texts: further settings as `--set` takes them, like "cgan.train.images=200000".
    Raises:
      ValueError: there is no such recipe or file, or a setting is wrong.
    """
    config = override(Config(), {"cgn": load_toml(CGN_RECIPE, CGN_RECIPES)})
    return from_texts(override(config, load_toml(effort, RECIPES)), texts)
