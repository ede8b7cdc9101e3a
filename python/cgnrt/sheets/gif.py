"""Animated GIFs."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from PIL import Image

# GIF counts hundredths of a second in 16 bits; browsers show frames of less than 20 ms for 100 ms.
MIN_MS, MAX_MS = 20, 655_350


def write_gif(
    path: str | os.PathLike[str],
    frames: Sequence[Image.Image],
    *,
    frame_ms: int = 80,
    there_and_back: bool = False,
) -> None:
    """Write frames of one size as a GIF that repeats endlessly.

    Args:
      frames: RGB, at least one.
      frame_ms: how long each frame is shown, `MIN_MS` to `MAX_MS`; rounded to 10 ms.
      there_and_back: after the last frame show the others in reverse order.
    """
    # One palette for all frames: with a palette for each, colours would flicker where nothing moves.
    strip = Image.fromarray(np.concatenate([np.asarray(frame) for frame in frames]))
    palette = strip.quantize(256, Image.Quantize.MEDIANCUT)
    shown = [frame.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG) for frame in frames]
    if there_and_back:
        shown += shown[-2:0:-1]
    shown[0].save(
        path,
        "GIF",
        save_all=True,
        append_images=shown[1:],
        duration=10 * round(frame_ms / 10),
        loop=0,
        optimize=False,
    )
