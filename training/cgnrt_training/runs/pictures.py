"""Pictures that a run leaves behind."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from cgnrt._support.files import written_beside


def save_png(picture: Tensor, path: str | os.PathLike[str], zoom: int = 2) -> None:
    """Write a (3, height, width) picture in [0, 1], enlarged; `path` is never half-written."""
    pixels = (picture * 255).round().byte().permute(1, 2, 0).numpy()
    with written_beside(Path(path), force=True) as beside:
        Image.fromarray(np.repeat(np.repeat(pixels, zoom, 0), zoom, 1)).save(beside, format="PNG")
