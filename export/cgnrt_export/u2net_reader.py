"""U2-Net's weight files, from which plans of kind "saliency" are made."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from cgnrt._support.reading import open_file
from cgnrt_export.saliency import RESOLUTION, SaliencyReport, export_saliency
from cgnrt_training.checkpoints import load_weights
from cgnrt_training.imagenet.checkpoints import build_u2net, identify
from cgnrt_training.imagenet.u2net import SMALL


def is_u2net(path: Path) -> bool:
    """Whether a file has the weights of a U2-Net alone.

    Raises:
      CheckpointError: it is no readable checkpoint.
    """
    return path.is_file() and identify(load_weights(path)) == "u2net"


def export_u2net(
    path: Path,
    target: Path,
    *,
    precision: str = "auto",
    seed: int = 0,
    force: bool = False,
    progress: Callable[[str], None] = lambda message: None,
) -> SaliencyReport:
    """Export official weights (`u2net.pth`, `u2netp.pth`), with batch norms or with these folded.

    Arguments and errors are those of `export_saliency`, and CheckpointError for a file that is no U2-Net's.
    """
    model = build_u2net(load_weights(path), str(path))
    small = model.config.encoder == SMALL.encoder and model.config.decoder == SMALL.decoder
    with open_file(path) as file:
        source = {"name": path.name, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    return export_saliency(
        target,
        model,
        family="u2netp" if small else "u2net",
        resolution=RESOLUTION,
        precision=precision,
        sources=[source],
        seed=seed,
        force=force,
        progress=progress,
    )
