"""Weight files of networks that find objects, from which plans of kind "saliency" are made."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cgnrt._support.reading import open_file
from cgnrt_export.saliency import RESOLUTION, SaliencyReport, export_saliency
from cgnrt_training.checkpoints import load_weights
from cgnrt_training.imagenet.checkpoints import build_u2net, identify
from cgnrt_training.imagenet.u2net import SMALL
from cgnrt_training.saliency.files import build_saliency, is_saliency, training_size


def finds_objects(path: Path) -> bool:
    """Whether a file has the weights of a U2-Net or of a saliency head alone.

    Raises:
      CheckpointError: it is not a readable checkpoint.
    """
    return path.is_file() and identify(load_weights(path)) in ("u2net", "saliency")


def export_finder(
    path: Path,
    target: Path,
    *,
    precision: str = "auto",
    store: str = "fp32",
    seed: int = 0,
    force: bool = False,
    progress: Callable[[str], None] = lambda message: None,
) -> SaliencyReport:
    """Export a network that finds objects: what it is, is told from the file's content.

    A U2-Net: official weights (`u2net.pth`, `u2netp.pth`), with batch norms or with these folded. A saliency head: what
    `cgnrt-train saliency` made, for photos of the size that it was trained on.

    Arguments and errors are those of `export_saliency`, and CheckpointError for a file of neither.
    """
    content, subject = load_weights(path), str(path)
    given: dict[str, Any]
    if is_saliency(content):
        size = training_size(content, subject)
        model: Any = build_saliency(content, subject)
        given = {
            "family": "saliency-head",
            "resolution": (size, size),
            "divide_by": "range",
            "stretch": False,
        }
        given |= {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}  # from [0, 1] to [-1, 1]
    else:
        model = build_u2net(content, subject)
        small = model.config.encoder == SMALL.encoder and model.config.decoder == SMALL.decoder
        given = {"family": "u2netp" if small else "u2net", "resolution": RESOLUTION}
    with open_file(path) as file:
        source = {"name": path.name, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    return export_saliency(
        target,
        model,
        **given,
        precision=precision,
        store=store,
        sources=[source],
        seed=seed,
        force=force,
        progress=progress,
    )
