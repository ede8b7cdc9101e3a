"""The ImageNet CGN's mechanisms (Sec. 3.1, Fig. 2) from its weight files.

Only what inference needs comes along: the unconstrained BigGAN and the background's saliency are for training.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final, Literal

from cgnrt.errors import CheckpointError
from cgnrt_export.mechanism import MechanismModule
from cgnrt_training.imagenet.biggan import BigGAN
from cgnrt_training.imagenet.cgn import CGN, TRUNCATION, Head
from cgnrt_training.imagenet.checkpoints import U2NetKind, build_biggan, build_cgn, load_biggan, load_head
from cgnrt_training.imagenet.classes import names_of

FAMILY = "imagenet-cgn"
# As the authors' code draws it; the paper has it independent, which the runtime does on request.
NOISE_MODE: Final[Literal["shared"]] = "shared"
BARE_NOTE = (
    "all three mechanisms are this one BigGAN, as before the CGN's training: none has learnt its part yet"
)

Heads = dict[U2NetKind, str | os.PathLike[str]]


def read_head(heads: Heads) -> Head | None:
    """Load the shape's head that is given, if one is."""
    for kind, path in heads.items():
        return load_head(path, kind=kind)
    return None


def read_cgn(content: Any, subject: str, heads: Heads, resolution: int | None) -> CGN:
    """A CGN from the content of the authors' `cgn.pth`, whose own head is taken.

    Raises:
      ValueError: it has one, and another is given.
      CheckpointError: as `cgnrt_training.imagenet.checkpoints.load_cgn`.
    """
    if heads and any("u2net." in key for key in content if isinstance(key, str)):
        raise ValueError(
            f"load '{subject}': --{next(iter(heads))} is given, but the checkpoint has its own head. "
            "Leave it out."
        )
    return build_cgn(content, subject, resolution=resolution, u2net=read_head(heads))


def start_cgn(path: str | os.PathLike[str], content: Any, heads: Heads, resolution: int | None) -> CGN:
    """The CGN as its training begins: one BigGAN for all mechanisms, and a head for the shape.

    Args:
      path: Hugging Face's folder, or a file of weights, then `content` is what is in it.
    Raises:
      CheckpointError: as `cgnrt_training.imagenet.checkpoints.load_biggan` and `load_head`; or no head is given.
    """
    if Path(path).is_dir():
        biggan = load_biggan(path, resolution=resolution)
    else:
        biggan = build_biggan(content, os.fspath(path), resolution=resolution)
    head = read_head(heads)
    if head is None:
        raise CheckpointError(
            f"load '{path}': content is a BigGAN-deep-{biggan.config.resolution} alone, expected a U2-Net with it, "
            "or a saliency head, for the masks. Give its file too: --u2net FILE"
        )
    return CGN(biggan, biggan, biggan, head).eval()


def imagenet_mechanisms(model: CGN) -> dict[str, MechanismModule]:
    """The three mechanisms of an ImageNet CGN; each has its own class embedding."""
    modules = model.mechanisms()
    backbones: dict[str, BigGAN] = {
        "shape": model.f_shape,
        "texture": model.f_text,
        "background": model.f_bg,
    }
    return {
        name: MechanismModule(
            module=modules[name],
            embedding=biggan.embedding_table,
            classes=names_of(biggan.config),
            noise_size=biggan.config.z_dim,
            noise_distribution="truncated_normal",
        )
        for name, biggan in backbones.items()
    }


def truncation() -> dict[str, float]:
    """What a plan says of the truncation."""
    return dict(TRUNCATION)
