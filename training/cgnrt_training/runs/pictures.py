"""Pictures that a run leaves behind."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from cgnrt._support.files import written_beside
from cgnrt.sheets.fonts import Captions
from cgnrt.sheets.layout import fit

_MARGIN = 6  # pixels around captions
_INK, _PAPER = 32, 255


@dataclass(frozen=True)
class Sheet:
    """Pictures of one size in rows and columns, with captions.

    Attributes:
      blocks: (3, h, w) in [0, 1] each, side by side: often one column each.
      side: the caption of each row; none where it is empty.
      head: the caption of each block; none where it is empty.
      gap: pixels between blocks.
    """

    blocks: Sequence[Tensor]
    side: Sequence[str] = ()
    head: Sequence[str] = ()
    gap: int = 0

    @property
    def picture(self) -> Tensor:
        """The blocks without captions, (3, height, width) in [0, 1]."""
        strip = torch.ones(3, self.blocks[0].shape[1], self.gap)
        parts = [part for block in self.blocks for part in (strip, block)]
        return torch.cat(parts[1:], dim=2)

    def drawn(self, zoom: int) -> NDArray[np.uint8]:
        """With captions, (height, width, 3). The pictures are right and below, enlarged; pixels stay square."""
        pixels = (self.picture * 255).round().byte().permute(1, 2, 0).numpy()
        pixels = np.repeat(np.repeat(pixels, zoom, 0), zoom, 1)
        row = pixels.shape[0] // len(self.side) if self.side else pixels.shape[0]
        font = Captions(12 if min(row, zoom * self.blocks[0].shape[2]) >= 48 else 9)
        left = 0
        if self.side:
            left = 3 * _MARGIN + max(int(font.getlength(text)) for text in self.side)
        top = font.height + _MARGIN if self.head else 0
        sheet = Image.new("RGB", (left + pixels.shape[1], top + pixels.shape[0]), (_PAPER,) * 3)
        sheet.paste(Image.fromarray(pixels), (left, top))
        draw = ImageDraw.Draw(sheet)

        def write(x: int, y: int, text: str, width: int) -> None:
            font.draw(draw, x, y, fit(text, width, font), (_INK,) * 3)

        for k, text in enumerate(self.side):
            write(_MARGIN, top + k * row + (row - font.height) // 2, text, left - 2 * _MARGIN)
        at = left
        for text, block in zip(self.head, self.blocks, strict=bool(self.head)):
            width = zoom * block.shape[2]
            write(at + 1, _MARGIN // 2, text, width - 2)
            at += width + zoom * self.gap
        return np.asarray(sheet)


def save_png(sheet: Sheet, path: str | os.PathLike[str], zoom: int = 2) -> None:
    """Write a sheet; `path` is never half-written."""
    drawn = sheet.drawn(zoom)
    with written_beside(Path(path), force=True) as beside:
        Image.fromarray(drawn).save(beside, format="PNG")
