"""Sheets: labelled pictures of samples, of each mechanism's outputs (App. D.1), of interpolations (App. D.2)."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cgnrt import ops
from cgnrt.batch import Batch
from cgnrt.render.pixels import PixelFormat
from cgnrt.sampling import MECHANISMS

MOVES = (*MECHANISMS, "all")

_ROWS = ("pre_mask", "mask", "foreground", "background", "composite")
# How App. D.1 names them.
_PAPER_ROWS = {"pre_mask": "pre-mask", "foreground": "texture"}
_GAP = 6
_INK, _PAPER = (32, 32, 32), (255, 255, 255)
_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
_Rows = Sequence[Sequence[np.ndarray]]


def contact_sheet(
    batch: Batch,
    classes: Mapping[str, Sequence[str]],
    *,
    source: tuple[float, float] = (-1.0, 1.0),
    tile: int = 96,
) -> Image.Image:
    """A column for each sample: class names, pre-mask where there is one, mask, foreground, background, composite.

    Args:
      batch: with `parts=True`, images uint8 NHWC.
      classes: names of each mechanism, `generator.classes`.
      source: value range of foreground and background.
      tile: width of a picture on the sheet, in pixels.
    """
    names = _rows_of(batch)
    return picture_grid(
        _pictures(batch, names, source), names, tile, head=_labels(batch, classes), corner=MECHANISMS
    )


def mechanism_sheet(
    batches: Sequence[Batch],
    classes: Mapping[str, Sequence[str]],
    *,
    source: tuple[float, float] = (-1.0, 1.0),
    tile: int = 96,
    across: int = 2,
) -> Image.Image:
    """What each mechanism gives for one class after the other, as Figures 8 to 19 show it (App. D.1).

    A block for each batch, `across` in a line: class name; pre-masks, masks, textures, backgrounds, composites from
    top to bottom; a column for each sample.

    Args:
      batches: at least one; all labels of a batch are of one class; otherwise as for `contact_sheet`, as are the
        other arguments.
    """
    blocks = []
    for batch in batches:
        names = _rows_of(batch)
        found = dict.fromkeys(classes[m][int(batch.labels[k][0])] for k, m in enumerate(MECHANISMS))
        side = [_PAPER_ROWS.get(name, name) for name in names]
        blocks.append(picture_grid(_pictures(batch, names, source), side, tile, title=[" / ".join(found)]))
    return _tiled(blocks, across)


def interpolation_sheet(
    paths: Sequence[Batch],
    classes: Mapping[str, Sequence[str]],
    *,
    moves: Sequence[str] = MOVES,
    source: tuple[float, float] = (-1.0, 1.0),
    tile: int = 96,
) -> Image.Image:
    """Paths between samples, a column for each frame (App. D.2, Figures 20 to 22).

    A block for each path. Its rows are what one mechanism does on its way while the others stay at the first end,
    and what all do together.

    Args:
      paths: at least one, each from `generator.interpolate(..., mechanisms="all", parts=True)`.
      moves: which rows: some of "shape", "texture", "background", "all".
    """
    blocks = []
    for path in paths:
        title = []
        for column, mechanism in enumerate(MECHANISMS):
            first, last = (classes[mechanism][int(path.labels[column][end])] for end in (0, -1))
            moving = first != last and bool({mechanism, "all"} & set(moves))
            title.append(f"{mechanism}: {first} to {last}" if moving else f"{mechanism}: {first}")
        blocks.append(picture_grid(_moving(path, moves, source), moves, tile, title=title))
    return _tiled(blocks, 1)


def interpolation_frames(
    path: Batch,
    *,
    moves: Sequence[str] = ("all",),
    source: tuple[float, float] = (-1.0, 1.0),
    tile: int = 96,
) -> list[Image.Image]:
    """The frames of a path one by one, for `animation.write_gif`; several `moves` side by side, their names above.

    Arguments as for `interpolation_sheet`.
    """
    rows = _moving(path, moves, source)
    if len(rows) == 1:
        return [_resized(picture, tile) for picture in rows[0]]
    head = [[move] for move in moves]
    return [picture_grid([[row[t] for row in rows]], (), tile, head=head) for t in range(len(path))]


def truncation_sheet(
    batches: Sequence[Batch],
    truncations: Sequence[float],
    classes: Mapping[str, Sequence[str]],
    *,
    tile: int = 96,
) -> Image.Image:
    """The same samples, a row of composites for each truncation of their noise.

    Args:
      batches: one for each truncation, images uint8 NHWC.
    """
    rows = [list(batch.images) for batch in batches]
    side = [f"truncation {value:g}" for value in truncations]
    return picture_grid(rows, side, tile, head=_labels(batches[0], classes), corner=MECHANISMS)


# Pictures.


def _rows_of(batch: Batch) -> list[str]:
    return [name for name in _ROWS if name == "composite" or getattr(batch, name) is not None]


def _pictures(batch: Batch, names: Sequence[str], source: tuple[float, float]) -> _Rows:
    return [[_pixels(batch, name, i, source) for i in range(len(batch))] for name in names]


def _pixels(batch: Batch, name: str, i: int, source: tuple[float, float]) -> np.ndarray:
    if name == "composite":
        image: np.ndarray = batch.images[i]
        return image
    picture = getattr(batch, name)[i].transpose(1, 2, 0)
    low, high = (0.0, 1.0) if name == "mask" else source
    scaled = np.clip((picture - low) / (high - low) * 255 + 0.5, 0, 255).astype(np.uint8)
    return np.repeat(scaled, 3, axis=2) if scaled.shape[2] == 1 else scaled


def _moving(path: Batch, moves: Sequence[str], source: tuple[float, float]) -> _Rows:
    """A row of composites for each move, all from the parts of one path: mechanisms do not depend on each other."""
    pixels = PixelFormat.make(dtype="uint8", layout="NHWC", range=None, normalize=None, source=source)
    rows = []
    for move in moves:
        index = np.zeros((len(path), 3), np.int32)
        columns = range(3) if move == "all" else (MECHANISMS.index(move),)
        index[:, columns] = np.arange(len(path))[:, None]
        rows.append(
            ops.compose(
                path.mask,
                path.foreground,
                path.background,
                index,
                dtype="uint8",
                layout="NHWC",
                scale=pixels.scale,
                bias=pixels.bias,
                clamp=source,
            )
        )
    return rows


def _resized(picture: np.ndarray, tile: int) -> Image.Image:
    """A picture `tile` px wide: enlarged pixels stay squares, shrunk ones are averaged."""
    height, width = picture.shape[:2]
    method = Image.Resampling.NEAREST if tile >= width else Image.Resampling.LANCZOS
    return Image.fromarray(picture).resize((tile, max(1, round(tile * height / width))), method)


# Layout.


def picture_grid(
    rows: _Rows,
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
      side: what stands left of each row.
      head: lines above each column, cut to its width; `corner`: what stands left of these lines.
      title: lines above it all, cut to its width.
    """
    font = ImageFont.load_default(min(18, max(10, tile // 8)))
    line = int(font.getbbox("Ag")[3]) + 3
    lines = len(head[0]) if len(head) else 0
    top = _GAP + (len(title) + lines) * line
    left = _GAP + max((int(font.getlength(text)) + _GAP for text in (*side, *corner)), default=0)
    height = max(1, round(tile * rows[0][0].shape[0] / rows[0][0].shape[1]))
    size = (left + len(rows[0]) * (tile + _GAP), top + len(rows) * (height + _GAP))
    sheet = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(sheet)

    def write(x: int, y: int, text: str, width: int) -> None:
        draw.text((x, y), _fit(text, width, font), _INK, font)

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
            sheet.paste(_resized(picture, tile), (left + i * (tile + _GAP), y))
    return sheet


def _tiled(blocks: Sequence[Image.Image], across: int) -> Image.Image:
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


def _labels(batch: Batch, classes: Mapping[str, Sequence[str]]) -> list[list[str]]:
    return [
        [classes[mechanism][int(batch.labels[k][i])] for k, mechanism in enumerate(MECHANISMS)]
        for i in range(len(batch))
    ]


def _fit(text: str, width: int, font: _Font) -> str:
    """The text as the font can write it, cut with an ellipsis to a width in pixels."""
    # The font has no accented letters: those without their accents stay readable.
    text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"
