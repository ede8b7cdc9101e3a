"""The layout of a sheet: pictures in rows and columns with captions, and blocks side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from cgnrt.sheets.fonts import Captions, PillowFont, readable

Rows = Sequence[Sequence[np.ndarray]]

_GAP = 6
_SIDE_GAP = 16  # between the captions on the left and what is beside them
_INK, _PAPER = (32, 32, 32), (255, 255, 255)


def picture_grid(
    rows: Rows,
    side: Sequence[str],
    tile: int,
    *,
    head: Sequence[Sequence[str]] = (),
    corner: Sequence[str] = (),
    title: Sequence[str] = (),
) -> Image.Image:
    """Pictures in rows and columns.

    Args:
      rows: uint8 (h, w, 3) each.
      side: the caption left of each row.
      head: lines above each column, cut to its width.
      corner: the captions left of these lines.
      title: lines above the whole, cut to its width.
    """
    font = Captions(min(18, max(10, tile // 8)))
    side, corner, title = ([readable(text, font) for text in texts] for texts in (side, corner, title))
    line = font.height + 3
    lines = len(head[0]) if len(head) else 0
    top = _GAP + (len(title) + lines) * line
    captions = max((int(font.getlength(text)) for text in (*side, *corner)), default=0)
    left = _GAP + captions + (_SIDE_GAP if captions else 0)
    height = max(1, round(tile * rows[0][0].shape[0] / rows[0][0].shape[1]))
    size = (left + len(rows[0]) * (tile + _GAP), top + len(rows) * (height + _GAP))
    sheet = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(sheet)

    def write(x: int, y: int, text: str, width: int) -> None:
        font.draw(draw, x, y, fit(text, width, font), _INK)

    for k, text in enumerate(title):
        write(_GAP, _GAP // 2 + k * line, text, size[0] - 2 * _GAP)
    above = _GAP // 2 + len(title) * line
    for k, text in enumerate(corner):
        write(_GAP, above + k * line, text, left)
    for i, texts in enumerate(head):
        for k, text in enumerate(texts):
            write(left + i * (tile + _GAP), above + k * line, text, tile)
    for r, row in enumerate(rows):
        y = top + r * (height + _GAP)
        if len(side):
            write(_GAP, y + height // 2 - line // 2, side[r], left)
        for i, picture in enumerate(row):
            sheet.paste(resized(picture, tile), (left + i * (tile + _GAP), y))
    return sheet


def tiled(blocks: Sequence[Image.Image], across: int) -> Image.Image:
    """Blocks of one size, `across` in a line."""
    if len(blocks) == 1:
        return blocks[0]
    across = min(across, len(blocks))
    width, height = (max(size) for size in zip(*(block.size for block in blocks), strict=True))
    down = -(-len(blocks) // across)
    sheet = Image.new("RGB", (across * (width + 2 * _GAP), down * (height + 2 * _GAP)), _PAPER)
    for i, block in enumerate(blocks):
        sheet.paste(block, (i % across * (width + 2 * _GAP), i // across * (height + 2 * _GAP)))
    return sheet


def resized(picture: np.ndarray, tile: int) -> Image.Image:
    """A picture `tile` px wide. Enlarged pixels stay square; when the picture shrinks, pixels are averaged."""
    height, width = picture.shape[:2]
    method = Image.Resampling.NEAREST if tile >= width else Image.Resampling.LANCZOS
    return Image.fromarray(picture).resize((tile, max(1, round(tile * height / width))), method)


def fit(text: str, width: int, font: Captions | PillowFont) -> str:
    """The text in characters that the font has, cut with an ellipsis to a width in pixels."""
    text = readable(text, font)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"
