"""Contact sheets: samples side by side, their parts one below the other, class names above (App. D.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cgnrt.batch import Batch
from cgnrt.sampling import MECHANISMS

_ROWS = ("pre_mask", "mask", "foreground", "background", "composite")
_GAP = 6
_INK, _PAPER = (32, 32, 32), (255, 255, 255)


def contact_sheet(
    batch: Batch,
    classes: Mapping[str, Sequence[str]],
    *,
    source: tuple[float, float] = (-1.0, 1.0),
    tile: int = 96,
) -> Image.Image:
    """A column for each sample: class names, mask, foreground, background, composite.

    Args:
      batch: with `parts=True`, images uint8 NHWC.
      classes: names of each mechanism, `generator.classes`.
      source: value range of foreground and background.
      tile: width of a picture on the sheet, in pixels.
    """
    rows = [name for name in _ROWS if name == "composite" or getattr(batch, name) is not None]
    font = ImageFont.load_default(max(10, tile // 8))
    line = font.getbbox("Ag")[3] + 3
    head = _GAP + len(MECHANISMS) * line
    side = _GAP + max(int(font.getlength(text)) for text in (*rows, *MECHANISMS)) + _GAP
    height, width = batch.images.shape[1:3]
    tile_height = round(tile * height / width)
    sheet = Image.new(
        "RGB", (side + len(batch) * (tile + _GAP), head + len(rows) * (tile_height + _GAP)), _PAPER
    )
    draw = ImageDraw.Draw(sheet)
    for k, mechanism in enumerate(MECHANISMS):
        draw.text((_GAP, _GAP // 2 + k * line), mechanism, _INK, font)
    for r, name in enumerate(rows):
        draw.text((_GAP, head + r * (tile_height + _GAP) + tile_height // 2 - line // 2), name, _INK, font)
    for i in range(len(batch)):
        left = side + i * (tile + _GAP)
        for k, mechanism in enumerate(MECHANISMS):
            label = classes[mechanism][int(batch.labels[k][i])]
            draw.text((left, _GAP // 2 + k * line), _fit(label, tile, font), _INK, font)
        for r, name in enumerate(rows):
            picture = Image.fromarray(_pixels(batch, name, i, source))
            top = head + r * (tile_height + _GAP)
            sheet.paste(picture.resize((tile, tile_height), Image.Resampling.NEAREST), (left, top))
    return sheet


def _pixels(batch: Batch, name: str, i: int, source: tuple[float, float]) -> np.ndarray:
    if name == "composite":
        image: np.ndarray = batch.images[i]
        return image
    picture = getattr(batch, name)[i].transpose(1, 2, 0)
    low, high = (0.0, 1.0) if name == "mask" else source
    scaled = np.clip((picture - low) / (high - low) * 255 + 0.5, 0, 255).astype(np.uint8)
    return np.repeat(scaled, 3, axis=2) if scaled.shape[2] == 1 else scaled


def _fit(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
