"""The sheets of a plan: samples, each mechanism's outputs, interpolations, truncations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from cgnrt import ops
from cgnrt.batch import Batch
from cgnrt.request.options import PixelFormat
from cgnrt.sampling import MECHANISMS
from cgnrt.sheets.layout import Rows, picture_grid, resized, tiled

MOVES = (*MECHANISMS, "all")

_ROWS = ("pre_mask", "mask", "foreground", "background", "composite")
_CAPTIONS = {"pre_mask": "pre-mask"}  # where they are not the names


def contact_sheet(
    batch: Batch,
    classes: Mapping[str, Sequence[str]],
    *,
    source: tuple[float, float] = (-1.0, 1.0),
    tile: int = 96,
) -> Image.Image:
    """A column for each sample: class names, pre-mask if the plan has one, mask, foreground, background, composite.

    Where objects were put elsewhere, their shift down and to the right in pixels and their size are below the names.

    Args:
      batch: made with `parts=True`; images are uint8 NHWC.
      classes: the class names of each mechanism, `generator.classes`.
      source: the value range of foreground and background.
      tile: width of a picture on the sheet, in pixels.
    """
    names = _rows_of(batch)
    return picture_grid(
        _pictures(batch, names, source),
        _captions(names),
        tile,
        head=_labels(batch, classes),
        corner=_corner(batch),
    )


def mechanism_sheet(
    batches: Sequence[Batch],
    classes: Mapping[str, Sequence[str]],
    *,
    source: tuple[float, float] = (-1.0, 1.0),
    tile: int = 96,
    across: int = 2,
) -> Image.Image:
    """The outputs of each mechanism, class by class, as in Figures 8 to 19 (App. D.1).

    A block for each batch, `across` blocks in a line. A block has the class name and a column for each sample, with
    pre-mask, mask, foreground, background and composite from top to bottom.

    Args:
      batches: at least one. All labels of a batch are of one class. The rest, and the other arguments, are as for
        `contact_sheet`.
    """
    blocks = []
    for batch in batches:
        names = _rows_of(batch)
        found = dict.fromkeys(classes[m][int(batch.labels[k][0])] for k, m in enumerate(MECHANISMS))
        pictures = _pictures(batch, names, source)
        blocks.append(picture_grid(pictures, _captions(names), tile, title=[" / ".join(found)]))
    return tiled(blocks, across)


def interpolation_sheet(
    paths: Sequence[Batch],
    classes: Mapping[str, Sequence[str]],
    *,
    moves: Sequence[str] = MOVES,
    source: tuple[float, float] = (-1.0, 1.0),
    tile: int = 96,
) -> Image.Image:
    """Paths between samples, a column for each frame (App. D.2, Figures 20 to 22).

    A block for each path. In a row one mechanism moves while the others stay at the first end; in the row "all" all
    mechanisms move.

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
    return tiled(blocks, 1)


def interpolation_frames(
    path: Batch,
    *,
    moves: Sequence[str] = ("all",),
    source: tuple[float, float] = (-1.0, 1.0),
    tile: int = 96,
) -> list[Image.Image]:
    """The frames of a path, for `write_gif`; several `moves` are side by side, with their names above.

    Arguments as for `interpolation_sheet`.
    """
    rows = _moving(path, moves, source)
    if len(rows) == 1:
        return [resized(picture, tile) for picture in rows[0]]
    head = [[move] for move in moves]
    return [picture_grid([[row[t] for row in rows]], (), tile, head=head) for t in range(len(path))]


def truncation_sheet(
    batches: Sequence[Batch],
    truncations: Sequence[float],
    classes: Mapping[str, Sequence[str]],
    *,
    tile: int = 96,
) -> Image.Image:
    """The same samples at several truncations of their noise: a row of composites for each.

    Args:
      batches: one for each truncation; images are uint8 NHWC.
    """
    rows = [list(batch.images) for batch in batches]
    side = [f"truncation {value:g}" for value in truncations]
    return picture_grid(rows, side, tile, head=_labels(batches[0], classes), corner=_corner(batches[0]))


def _rows_of(batch: Batch) -> list[str]:
    return [name for name in _ROWS if name == "composite" or getattr(batch, name) is not None]


def _captions(names: Sequence[str]) -> list[str]:
    return [_CAPTIONS.get(name, name) for name in names]


def _pictures(batch: Batch, names: Sequence[str], source: tuple[float, float]) -> Rows:
    return [[_pixels(batch, name, i, source) for i in range(len(batch))] for name in names]


def _pixels(batch: Batch, name: str, i: int, source: tuple[float, float]) -> np.ndarray:
    if name == "composite":
        image: np.ndarray = batch.images[i]
        return image
    picture = getattr(batch, name)[i].transpose(1, 2, 0)
    low, high = (0.0, 1.0) if name == "mask" else source
    scaled = np.clip((picture - low) / (high - low) * 255 + 0.5, 0, 255).astype(np.uint8)
    return np.repeat(scaled, 3, axis=2) if scaled.shape[2] == 1 else scaled


def _moving(path: Batch, moves: Sequence[str], source: tuple[float, float]) -> Rows:
    """A row of composites for each move. All use the parts of one path, since mechanisms are independent."""
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


def _labels(batch: Batch, classes: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """The lines above each column: class names, and the place where there is one."""
    named = [
        [classes[mechanism][int(batch.labels[k][i])] for k, mechanism in enumerate(MECHANISMS)]
        for i in range(len(batch))
    ]
    if batch.place is None:
        return named
    rows = zip(named, np.asarray(batch.place).tolist(), strict=True)
    return [
        [*names, f"{dy:+g}, {dx:+g}", f"{scale:.2f}{' mirrored' if flip else ''}"]
        for names, (dy, dx, scale, flip) in rows
    ]


def _corner(batch: Batch) -> tuple[str, ...]:
    """What the lines of `_labels` are."""
    return MECHANISMS if batch.place is None else (*MECHANISMS, "dy, dx", "scale")
