"""The networks of others that training starts from: the cGAN, the saliency head, the features of the style losses.

Every file is checked key by key before any work.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TextIO

from cgnrt._support.reading import open_file, read_text
from cgnrt._support.terminal import say
from cgnrt.errors import CheckpointError

from ..features.files import load_features
from ..features.maps import FeatureMaps, depth_of
from ..imagenet.biggan import BigGAN
from ..imagenet.checkpoints import load_biggan, load_u2net
from ..imagenet.config_json import CONFIG, WEIGHTS
from ..imagenet.u2net import U2Net
from ..runs.folder import write_text
from .config import Config

SOURCES = "sources.json"


@dataclass(frozen=True)
class Files:
    """What the user names.

    Attributes:
      biggan: Hugging Face's folder of a BigGAN-deep, or the file of its weights.
      u2net: a U2-Net or U2-Net-p.
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
    saliency: U2Net
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
    saliency = load_u2net(files.u2net, align_corners=True)
    features = None
    if style and path is not None:
        features = load_features(
            path,
            kind="vgg16" if files.vgg else None,
            taps=config.perceptual.taps,
            depth=style,
            normalise=config.perceptual.normalise,
        )
    sources = {option: source_of(named) for option, named in files.named().items()}
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


def source_of(path: Path) -> dict[str, str]:
    """Name, sha256 and path of a file, or of a BigGAN's folder.

    Raises:
      CheckpointError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        for part in [path / CONFIG, path / WEIGHTS] if path.is_dir() else [path]:
            with open_file(part) as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    except OSError as error:
        raise CheckpointError(
            f"load '{path}': {error.strerror or error}, expected a readable file."
        ) from error
    return {"name": path.name, "sha256": digest.hexdigest(), "path": str(path.resolve())}


def keep_sources(folder: Path, sources: Mapping[str, Mapping[str, str]], *, resume: bool) -> None:
    """Write into a run's folder what files it is from, or check on resume that they are the same.

    Raises:
      ValueError: a file is another one.
      CheckpointError: on resume, what the folder says cannot be read.
    """
    if not resume:
        write_text(folder / SOURCES, json.dumps(sources, indent=2) + "\n")
        return
    stored = _stored(folder)
    changed = [
        f"--{option} '{source['name']}'"
        for option, source in sources.items()
        if stored.get(option, {}).get("sha256") != source["sha256"]
    ]
    if changed:
        raise ValueError(
            f"resume '{folder}': {', '.join(changed)} is another file, expected the one that the run began with. "
            "Give that one, or start anew in another folder."
        )


def stored_files(folder: Path) -> dict[str, Path]:
    """The files that a run began with, by option.

    Raises:
      CheckpointError: what the folder says of them cannot be read.
    """
    return {option: Path(source["path"]) for option, source in _stored(folder).items() if "path" in source}


def _stored(folder: Path) -> dict[str, dict[str, str]]:
    try:
        found = json.loads(read_text(folder / SOURCES))
        return {
            option: {key: str(value) for key, value in source.items()} for option, source in found.items()
        }
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"resume '{folder}': {SOURCES} is unreadable ({error}), expected the run's files. Start anew with --force."
        ) from error
