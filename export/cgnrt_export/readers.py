"""Known checkpoints as mechanisms. What a file is, is told from its content."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from cgnrt._support.reading import open_file
from cgnrt._support.suggest import did_you_mean
from cgnrt.errors import CheckpointError
from cgnrt_export.imagenet import (
    BARE_NOTE,
    FAMILY,
    NOISE_MODE,
    Heads,
    imagenet_mechanisms,
    read_cgn,
    start_cgn,
    truncation,
)
from cgnrt_export.mechanism import MechanismModule
from cgnrt_training.checkpoints import load_weights
from cgnrt_training.imagenet.checkpoints import describe, identify
from cgnrt_training.imagenet.config_json import CONFIG, WEIGHTS
from cgnrt_training.mnist.checkpoints import build_cgn
from cgnrt_training.mnist.config import VARIANTS
from cgnrt_training.mnist.data import COLORED, PALETTE
from cgnrt_training.mnist.models import CGN, MASK_RANGE
from cgnrt_training.natural.checkpoints import FORMAT as NATURAL
from cgnrt_training.natural.checkpoints import build_natural


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint, ready for `export_plan`."""

    family: str
    mechanisms: dict[str, MechanismModule]
    sources: tuple[dict[str, str], ...]
    training_data: str | None
    note: str | None  # what a user should know, or None
    noise_mode: Literal["independent", "shared"] = "independent"
    truncation: dict[str, float] | None = None


class MnistMechanism(nn.Module):
    """One mechanism of the MNIST CGN, from separate noise and class embedding, before the texture shuffle.

    Args:
      network: of `CGN`: noise and class embedding side by side (n, z + e) -> picture.
      limits: what the mask is clamped to; None for the textures.
    """

    def __init__(self, network: nn.Module, limits: tuple[float, float] | None = None) -> None:
        super().__init__()
        self.network = network
        self.limits = limits

    def forward(self, noise: Tensor, class_embedding: Tensor) -> Tensor:
        picture: Tensor = self.network(torch.cat([noise, class_embedding], dim=1))
        return picture if self.limits is None else picture.clamp(*self.limits)


def read_checkpoint(
    path: str | os.PathLike[str],
    *,
    variant: str | None = None,
    u2net: str | os.PathLike[str] | None = None,
    u2netp: str | os.PathLike[str] | None = None,
    resolution: int | None = None,
) -> Checkpoint:
    """Read a CGN's checkpoint; what it is, is told from its content.

    An MNIST CGN: one that `cgnrt-train` wrote, or the authors' `ckp.pth`. An ImageNet CGN: one that `cgnrt-train`
    wrote, or the authors' `cgn.pth`.
    Or a BigGAN-deep, from Hugging Face's folder or the file of its weights: with a head for the shape it is
    the ImageNet CGN as its training begins.

    Args:
      path: the file or folder. Nothing in it is executed.
      variant: "colored", "double-colored" or "wildlife": names the classes of an MNIST checkpoint that does not.
      u2net, u2netp: file of a U2-Net or of a U2-Net-p, one of them, for an ImageNet checkpoint without its own. What
        `cgnrt-train saliency` wrote is given as u2net.
      resolution: refuse an ImageNet checkpoint of another.
    Raises:
      CheckpointError: a file is missing, damaged, of another model or resolution (the message names keys), or holds
        code.
      ValueError: an argument is unknown or does not go with this checkpoint.
    """
    if variant is not None and variant not in VARIANTS:
        raise ValueError(
            f"load '{path}': variant is {variant!r}, expected one of {', '.join(VARIANTS)}."
            f"{did_you_mean(variant, VARIANTS)}"
        )
    if u2net is not None and u2netp is not None:
        raise ValueError(f"load '{path}': u2net and u2netp are given, expected one of them.")
    heads: Heads = {}
    if u2net is not None:
        heads["u2net"] = u2net
    if u2netp is not None:
        heads["u2netp"] = u2netp
    folder = _is_model_folder(path)
    content = None if folder else load_weights(path)
    if isinstance(content, Mapping) and content.get("format") == NATURAL:
        for option, value in (*heads.items(), ("variant", variant)):
            if value is not None:
                raise ValueError(
                    f"load '{path}': {option} is given, but the checkpoint is a whole CGN. Leave it out."
                )
        return _read_natural(path, content, resolution)
    kind = "biggan" if folder else identify(content)
    if kind in ("u2net", "saliency"):
        raise CheckpointError(
            f"load '{path}': content is {describe(content)}, expected a CGN or a BigGAN-deep. Give it as --u2net or "
            "--u2netp beside a BigGAN-deep."
        )
    if kind is None:
        if heads or resolution is not None:
            given = [*heads, *(["resolution"] if resolution is not None else [])]
            raise ValueError(
                f"load '{path}': {given[0]} is given, expected it with an ImageNet checkpoint, not with "
                f"{describe(content)}. Leave it out."
            )
        return _read_mnist(path, content, variant)
    if variant is not None:
        raise ValueError(
            f"load '{path}': variant is {variant!r}, but this is an ImageNet checkpoint. Leave it out."
        )
    if kind == "biggan":
        model = start_cgn(path, content, heads, resolution)
    else:
        model = read_cgn(content, os.fspath(path), heads, resolution)
    return Checkpoint(
        FAMILY,
        imagenet_mechanisms(model),
        sources=tuple(
            {"name": Path(file).name, "sha256": _sha256(file)} for file in (*_files(path), *heads.values())
        ),
        training_data=None,
        note=BARE_NOTE if kind == "biggan" else None,
        noise_mode=NOISE_MODE,
        truncation=truncation(),
    )


def _is_model_folder(path: str | os.PathLike[str]) -> bool:
    """Whether it is a folder that means to be a BigGAN's; any other is refused as what it is, no file."""
    return any((Path(path) / name).exists() for name in (CONFIG, WEIGHTS))


def _files(path: str | os.PathLike[str]) -> list[Path]:
    return [Path(path) / name for name in (CONFIG, WEIGHTS)] if Path(path).is_dir() else [Path(path)]


def _read_natural(
    path: str | os.PathLike[str], content: Mapping[str, Any], resolution: int | None
) -> Checkpoint:
    loaded = build_natural(content, os.fspath(path))
    if loaded.model.refiner is not None:
        raise CheckpointError(
            f"load '{path}': a refinement network is not supported in a plan. Train without train.refine."
        )
    if resolution not in (None, loaded.model.resolution):
        raise CheckpointError(
            f"load '{path}': resolution is {loaded.model.resolution}, expected {resolution}. Give another checkpoint."
        )
    made_from = ({"name": source["name"], "sha256": source["sha256"]} for source in loaded.sources.values())
    cgan = loaded.sources.get("biggan", {}).get("name", "a cGAN")
    return Checkpoint(
        FAMILY,
        imagenet_mechanisms(loaded.model),
        sources=(
            {"name": Path(path).name, "sha256": _sha256(path), "step": str(loaded.step)},
            *made_from,
        ),
        training_data=loaded.config.log.training_data or f"no pictures: what {cgan} draws",
        note=None if loaded.step else BARE_NOTE,
        noise_mode=NOISE_MODE,
        truncation=truncation(),
    )


def _read_mnist(path: str | os.PathLike[str], content: Any, variant: str | None) -> Checkpoint:
    loaded = build_cgn(content, os.fspath(path))
    if variant is not None and loaded.variant is not None and variant != loaded.variant:
        raise ValueError(
            f"load '{path}': variant is {variant!r}, expected {loaded.variant!r}, as the checkpoint says. "
            "Leave --variant out."
        )
    variant = variant or loaded.variant
    model = loaded.model
    names = loaded.class_names
    note = None
    if names is None:
        names = _class_names(variant, model.n_classes)
        if variant is None:
            note = "the checkpoint does not name its classes; they are called by number. --variant names them"
    source = {"name": Path(path).name, "sha256": _sha256(path)}
    if variant is not None:
        source["variant"] = variant
    if loaded.step is not None:
        source["step"] = str(loaded.step)
    return Checkpoint("mnist-cgn", mnist_mechanisms(model, names), (source,), loaded.training_data, note)


def mnist_mechanisms(model: CGN, class_names: dict[str, list[str]]) -> dict[str, MechanismModule]:
    """The three mechanisms of an MNIST CGN (App. B); the runtime does the texture shuffle (Sec. 3.1)."""
    modules = {
        "shape": MnistMechanism(model.f_shape, MASK_RANGE),
        "texture": MnistMechanism(model.f_text1),
        "background": MnistMechanism(model.f_text2),
    }
    return {
        name: MechanismModule(
            module=module,
            embedding=model.label_emb,
            classes=class_names[name],
            noise_size=model.noise_size,
            roll=name != "shape",
        )
        for name, module in modules.items()
    }


def _class_names(variant: str | None, n_classes: int) -> dict[str, list[str]]:
    numbers = [str(k) for k in range(n_classes)]
    names = {"shape": numbers, "texture": numbers, "background": numbers}
    if variant == "colored" and n_classes == len(COLORED):
        return names | {"texture": list(COLORED), "background": [f"black {k}" for k in numbers]}
    if variant == "double-colored" and n_classes == len(PALETTE):
        colours = list(PALETTE)
        return names | {"texture": [colours[k - 6] for k in range(n_classes)], "background": colours}
    return names


def _sha256(path: str | os.PathLike[str]) -> str:
    try:
        with open_file(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(
            f"load '{path}': {error.strerror or error}, expected a readable file."
        ) from error
