"""Known checkpoints as mechanisms. What a file is, is told from its content."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from cgnrt.errors import CheckpointError
from cgnrt_export.mechanism import MechanismModule
from cgnrt_training.checkpoints import load_cgn
from cgnrt_training.config import VARIANTS
from cgnrt_training.mnist.data import COLORED, PALETTE
from cgnrt_training.mnist.models import CGN, MASK_RANGE


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint, ready for `export_plan`."""

    family: str
    mechanisms: dict[str, MechanismModule]
    sources: tuple[dict[str, str], ...]
    training_data: str | None
    note: str | None  # what a user should know, or None


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


def read_checkpoint(path: str | os.PathLike[str], *, variant: str | None = None) -> Checkpoint:
    """Read an MNIST CGN: one that `cgnrt-train` wrote, or the authors' `ckp.pth`.

    Args:
      path: the file. Nothing in it is executed.
      variant: "colored", "double-colored" or "wildlife": names the classes of a checkpoint that does not.
    Raises:
      CheckpointError: the file is missing, damaged, of another model (the message names keys), or holds code.
      ValueError: `variant` is unknown, or another than the checkpoint's own.
    """
    if variant is not None and variant not in VARIANTS:
        raise ValueError(f"load '{path}': variant is {variant!r}, expected one of {', '.join(VARIANTS)}.")
    loaded = load_cgn(path)
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
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(
            f"load '{path}': {error.strerror or error}, expected a readable file."
        ) from error
