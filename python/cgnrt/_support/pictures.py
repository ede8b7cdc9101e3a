"""Reads every picture that a user gives: photos, masks, textures.

A picture is read as viewers show it: upright (EXIF), the first one of several, 16 bits and floats scaled to 8 bits,
and transparent parts over a plain colour, so that colours which are not visible do not appear.
"""

from __future__ import annotations

import errno
import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from cgnrt._support.reading import open_file

# Known by the content. Pillow knows more, among them EPS, for which it starts another program.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")

# What shows behind transparent pixels: white, as viewers have it; black for masks, where it means no object.
_BEHIND = {"RGB": (255, 255, 255), "L": (0, 0, 0)}

_MOST_PIXELS = 178_956_970  # as Pillow has it: 512 MiB as RGB
_WITH_ALPHA = ("RGBA", "RGBa", "LA", "La", "PA")
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF
_BEGINNINGS = {
    b"\x00\x05\x16\x07": "macOS's notes on another file",
    b"%!PS": "PostScript",
    b"%PDF": "PDF",
    b"version https://git-lfs": "a pointer of Git LFS",
    b"<": "HTML or SVG",
}
# What Pillow raises for it.
_DAMAGED_EXIF = (SyntaxError, ValueError, TypeError, LookupError, OSError, EOFError, struct.error)
_BRANDS = {b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIF", b"avif": "AVIF"}


class PictureError(ValueError):
    """A file is not a picture that can be read. The message says why, and leaves the file's name to the caller."""


@dataclass(frozen=True)
class Picture:
    """A picture as it is shown.

    Attributes:
      image: of mode "RGB" or "L", upright.
      orientation: by which EXIF says that the file has it turned or mirrored; 1 if it does not.
    """

    image: Image.Image
    orientation: int


def has_suffix(path: Path) -> bool:
    """Whether a file is called like a picture, in upper or lower case."""
    return path.suffix.lower() in SUFFIXES


def read_picture(path: Path, mode: Literal["RGB", "L"]) -> Picture:
    """A picture as it is shown.

    Args:
      mode: "RGB", or "L" for masks.
    Raises:
      PictureError: the file is missing, empty, cut short, damaged, too large, of an unknown format or not a file.
    """
    try:
        file = open_file(path)
    except FileNotFoundError:
        raise PictureError("file is missing, expected a picture. Check the path.") from None
    except OSError as error:
        named = "it is a folder" if error.errno == errno.EISDIR else error.strerror or str(error)
        raise PictureError(f"file cannot be opened ({named}), expected a picture.") from error
    with file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow about large pictures, odd EXIF and palettes
        try:
            head = file.read(32)
            if not head:
                raise PictureError("file is empty, expected a picture. Get it again.")
            file.seek(0)
            return _read(file, mode)
        except (PictureError, MemoryError):
            raise
        except UnidentifiedImageError as error:
            kind = _kind(head)
            reason = f"cannot identify image file{f': it is {kind}' if kind else ''}"
            raise PictureError(f"file is unreadable ({reason}), expected a picture.") from error
        except Exception as error:  # decoders raise of every type, some without a text
            raise PictureError(
                f"file is unreadable ({str(error) or type(error).__name__}), expected a picture. Get it again."
            ) from error


def _read(file: Any, mode: Literal["RGB", "L"]) -> Picture:
    with Image.open(file, formats=FORMATS) as image:
        width, height = image.size
        if width * height > _MOST_PIXELS:
            raise PictureError(
                f"picture has {width} x {height} pixels, expected at most {_MOST_PIXELS:,} in all. Scale it down."
            )
        orientation = _orientation(image)  # asked before `load`, which turns a TIFF
        image.load()  # the first of several pictures
        upright: Image.Image = image if _orientation(image) == 1 else ImageOps.exif_transpose(image)
        if upright.mode == "F" or upright.mode.startswith("I"):
            upright = _eight_bits(upright, getattr(image, "tag_v2", {}))
        return Picture(_without_alpha(upright, _BEHIND[mode]).convert(mode), orientation)


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation; 1 (upright) if EXIF is missing or damaged."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except _DAMAGED_EXIF:  # viewers show such a picture as it is stored
        return 1
    return found if found in range(2, 9) else 1


def _eight_bits(image: Image.Image, tags: Mapping[int, Any]) -> Image.Image:
    """A grey picture of 16 bits, of integers or of floats as "L" or, where it has a transparent value, "LA"."""
    values = np.asarray(image).astype(np.float64)
    white = _white(image, values, tags)
    grey = np.rint(values * (255 / white)).astype(np.uint8)
    if tags.get(_PHOTOMETRIC) == 0:  # black is the largest value
        grey = 255 - grey
    scaled = Image.fromarray(grey)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        scaled.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return scaled


def _white(image: Image.Image, values: np.ndarray, tags: Mapping[int, Any]) -> int:
    """The value that means white in a grey picture of more than 8 bits.

    What the file declares decides. Where 32 bits or floats leave it open, the largest value does.
    """
    if not (values >= 0).all():  # or NaN
        raise PictureError(
            "pixels are negative or NaN, expected grey values from 0. Save it with 8 or 16 bits."
        )
    bits = 16
    if tags:
        bits = tags.get(_BITS, (16,))[0]
        bits -= tags.get(_SAMPLE_FORMAT, (1,))[0] == 2  # signed
    if image.mode != "F" and bits <= 16:
        return int(2**bits - 1)
    largest = values.max()
    if largest <= 1 and image.mode == "F":
        return 1
    for white in (255, 65535):
        if largest <= white:
            return white
    raise PictureError(
        f"largest pixel is {largest:g}, expected 0..1 of floats, 0..255 or 0..65535. Save it with 8 or 16 bits."
    )


def _without_alpha(image: Image.Image, behind: tuple[int, int, int]) -> Image.Image:
    """The picture over a plain colour, if it has transparency of any kind."""
    transparent = image.info.get("transparency")
    if image.mode not in _WITH_ALPHA and transparent is None:
        return image
    # The colour has 16 bits; Pillow has read the upper 8 of the pixels.
    if isinstance(transparent, tuple) and max(transparent) > 255:
        image.info["transparency"] = tuple(value >> 8 for value in transparent)
    shown = Image.new("RGBA", image.size, behind)
    layer = image.convert("LA") if image.mode == "La" else image
    shown.alpha_composite(layer.convert("RGBA"))
    return shown


def _kind(head: bytes) -> str | None:
    """What a file that is not a picture is, as far as its beginning tells."""
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12])
    return next((name for start, name in _BEGINNINGS.items() if head.startswith(start)), None)
