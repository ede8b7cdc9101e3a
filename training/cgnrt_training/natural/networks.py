"""The networks of others that training starts from: the cGAN, the saliency head, the features of the style losses.

Every file is checked key by key before any work.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TextIO

from cgnrt._support.terminal import say

from ..features.files import load_features
from ..features.maps import FeatureMaps, depth_of
from ..imagenet.biggan import BigGAN
from ..imagenet.cgn import Head
from ..imagenet.checkpoints import load_biggan, load_head
from ..imagenet.config_json import CONFIG, WEIGHTS
from ..runs.sources import source_of
from .config import Config


@dataclass(frozen=True)
class Files:
    """What the user names.

    Attributes:
      biggan: Hugging Face's folder of a BigGAN-deep, or the file of its weights.
      u2net: a U2-Net, a U2-Net-p, or the saliency head that `cgnrt-train saliency` makes.
      vgg: a VGG16, with or without batch norm.
      features: SqueezeNet 1.1 or EfficientNet-Lite in its place.
    """

    biggan: Path
    u2net: Path
    vgg: Path | None = None
    features: Path | None = None

    def named(self) -> dict[str, Path]:
        """The files that are given, by option."""
        return {f.name: path for f in fields(self) if (path := getattr(self, f.name)) is not None}


@dataclass(frozen=True)
class Networks:
    """The networks, on the CPU and in evaluation mode.

    Attributes:
      features: None where no style loss is on.
      sources: what was taken from where: option -> {"name", "sha256", "path"}.
    """

    teacher: BigGAN
    saliency: Head
    features: FeatureMaps | None
    sources: dict[str, dict[str, str]]


def load_networks(
    files: Files, config: Config, log: TextIO | None, *, resolution: int | None = None
) -> Networks:
    """Read and check all files, and say in the log what was taken from where.

    Args:
      log: None says nothing.
      resolution: refuse a cGAN of another.
    Raises:
      CheckpointError: a file is unreadable, of another network or resolution, or a key is missing, unknown or of
        another shape; the message names it.
      ValueError: the style losses are on and no feature network is given, or two are.
    """
    if files.vgg is not None and files.features is not None:
        raise ValueError("train: --vgg and --features are given, expected one of them.")
    style = _style_depth(config)
    path = files.vgg or files.features
    if style and path is None:
        raise ValueError(
            "train: --vgg is missing, expected a VGG16 for the style losses. Give one, or a SqueezeNet 1.1 or "
            "EfficientNet-Lite as --features, or set loss.perceptual=0 and loss.texture=0."
        )
    teacher = load_biggan(files.biggan, resolution=resolution)
    saliency = load_head(files.u2net)
    features = None
    if style and path is not None:
        features = load_features(
            path,
            kind="vgg16" if files.vgg else None,
            taps=config.perceptual.taps,
            depth=style,
            normalise=config.perceptual.normalise,
        )
    sources = {option: source_of(named, (CONFIG, WEIGHTS)) for option, named in files.named().items()}
    size, classes = teacher.config.resolution, teacher.config.num_classes
    lines = {
        "biggan": f"BigGAN-deep-{size}, {classes:,} classes, {_count(teacher)}: cGAN and start of f_shape, "
        "f_text, f_bg",
        "u2net": f"{_count(saliency)}: head of f_shape and judge of f_bg, never trained",
    }
    if features is not None:
        lines["vgg" if files.vgg else "features"] = f"{features.label}, {features.depth} maps: style losses"
    for option, source in sources.items() if log else ():
        text = lines.get(option, "not used: the style losses are off")
        say(f"{option}: {text}\n    from '{files.named()[option]}', sha256 {source['sha256'][:16]}...", log)
    return Networks(teacher, saliency, features, sources)


def _style_depth(config: Config) -> int:
    """How many feature maps the style losses need; 0 where they are off."""
    depths = [0]
    if config.loss.perceptual:
        depths.append(depth_of(config.perceptual.reconstruction))
    if config.loss.texture:
        depths.append(depth_of(config.perceptual.texture))
    return max(depths)


def _count(model: Any) -> str:
    return f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters"
