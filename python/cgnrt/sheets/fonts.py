"""Captions in any script: each character in the first font that has it.

Pillow's own font has ASCII and little else. DejaVu Sans, which lies beside this module, has Latin, Greek, Cyrillic,
Arabic, Hebrew, Armenian, Georgian and more. What it lacks, such as Chinese, Japanese or Hindi, is looked for in the
fonts of the system. A character that no font has is shown without its accents, or as its number: `\\u732b`.
"""

from __future__ import annotations

import functools
import shutil
import subprocess
import unicodedata
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import TypeAlias

from PIL import ImageDraw, ImageFont

PillowFont: TypeAlias = "ImageFont.FreeTypeFont | ImageFont.ImageFont"
Found: TypeAlias = tuple[str, int]  # a font file, and which of its fonts

_SHIPPED = "DejaVuSans.ttf"
_NO_CHARACTER = "\U0010ffff"  # is drawn as what a font has not
# Where systems without fontconfig keep fonts of many scripts.
_KNOWN = (
    "/System/Library/Fonts/PingFang.ttc",
    "/System/Library/Fonts/AppleSDGothicNeo.ttc",
    "/System/Library/Fonts/Supplemental/Arial Unicode.ttf",
    "/Library/Fonts/Arial Unicode.ttf",
    "C:/Windows/Fonts/msyh.ttc",
    "C:/Windows/Fonts/YuGothR.ttc",
    "C:/Windows/Fonts/malgun.ttf",
    "C:/Windows/Fonts/Nirmala.ttf",
    "C:/Windows/Fonts/seguisym.ttf",
    "/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc",
    "/usr/share/fonts/noto-cjk/NotoSansCJK-Regular.ttc",
    "/usr/share/fonts/truetype/wqy/wqy-zenhei.ttc",
    "/usr/share/fonts/truetype/noto/NotoSansDevanagari-Regular.ttf",
    "/usr/share/fonts/opentype/unifont/unifont.otf",
)


class Captions:
    """Text in one size. It measures and cuts like a font of Pillow, and draws itself."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._plain = ImageFont.load_default(size)
        self._fonts: list[PillowFont] = [self._plain]
        if isinstance(self._plain, ImageFont.FreeTypeFont):  # otherwise Pillow has no FreeType
            shipped = str(files("cgnrt.sheets").joinpath(_SHIPPED))
            self._fonts.append(ImageFont.truetype(shipped, size))

    @property
    def height(self) -> int:
        """Pixels from the top of a line to the lowest part of its letters."""
        return int(self._plain.getbbox("Ag")[3])

    def has(self, character: str) -> bool:
        """Whether some font has a character."""
        return self._font_of(character) is not None

    def getlength(self, text: str) -> float:
        """The width in pixels."""
        return sum(font.getlength(part) for part, font in self._parts(text))

    def draw(self, draw: ImageDraw.ImageDraw, x: int, y: int, text: str, ink: tuple[int, int, int]) -> None:
        """Draw a line whose top left corner is at (x, y)."""
        at = float(x)
        for part, font in self._parts(text):
            if font is self._plain or not isinstance(self._plain, ImageFont.FreeTypeFont):
                draw.text((at, y), part, ink, font)
            else:  # on the same base line
                draw.text((at, y + self._plain.getmetrics()[0]), part, ink, font, anchor="ls")
            at += font.getlength(part)

    def _parts(self, text: str) -> Iterator[tuple[str, PillowFont]]:
        """The text in pieces of one font each."""
        part, used = "", self._plain
        for character in text:
            font = self._font_of(character) or self._plain
            if unicodedata.combining(character) and has_glyph(used, character):
                font = used
            if part and font is not used:
                yield part, used
                part = ""
            part, used = part + character, font
        if part:
            yield part, used

    def _font_of(self, character: str) -> PillowFont | None:
        for font in self._fonts:
            if has_glyph(font, character):
                return font
        found = find_font(character) if isinstance(self._plain, ImageFont.FreeTypeFont) else None
        if found is None:
            return None
        path, index = found
        self._fonts.append(ImageFont.truetype(path, self._size, index=index))
        return self._fonts[-1]


def readable(text: str, font: Captions | PillowFont) -> str:
    """The text in characters that a font has: without accents, or as numbers, where it does not have them."""
    has = font.has if isinstance(font, Captions) else functools.partial(has_glyph, font)
    shown = ""
    for character in unicodedata.normalize("NFC", text):
        plain = "".join(c for c in unicodedata.normalize("NFKD", character) if not unicodedata.combining(c))
        if has(character):
            shown += character
        elif plain and all(map(has, plain)):
            shown += plain
        else:
            shown += character.encode("unicode_escape").decode("ascii")
    return shown


@functools.lru_cache(maxsize=10_000)
def has_glyph(font: PillowFont, character: str) -> bool:
    """Whether a font has a picture of a character, other than that of characters that it lacks."""
    if character.isspace():
        return True
    try:
        mask, missing = font.getmask(character), font.getmask(_NO_CHARACTER)
    except UnicodeEncodeError:  # Pillow's font for when it has no FreeType: Latin alone
        return character.isascii()
    return (mask.size, bytes(mask)) != (missing.size, bytes(missing))


@functools.lru_cache(maxsize=10_000)
def find_font(character: str) -> Found | None:
    """A font of this system that has a character."""
    for path, index in _candidates(character):
        try:
            font = ImageFont.truetype(path, 16, index=index)
        except (OSError, ValueError):  # not there, or a font of pictures in other sizes
            continue
        if has_glyph(font, character):
            return path, index
    return None


def _candidates(character: str) -> Iterator[Found]:
    """What fontconfig knows, then fonts that systems are known to have."""
    program = shutil.which("fc-match")
    if program is not None:
        wanted = f"sans-serif:charset={ord(character):x}"
        try:
            done = subprocess.run(
                [program, wanted, "--format", "%{file}\n%{index}"],
                capture_output=True, text=True, check=True, timeout=10,
            )  # fmt: skip
            path, _, index = done.stdout.partition("\n")
            yield path, int(index) & 0xFFFF  # above: an instance of a variable font
        except (OSError, ValueError, subprocess.SubprocessError):
            pass
    for known in _KNOWN:
        if Path(known).exists():
            yield known, 0
