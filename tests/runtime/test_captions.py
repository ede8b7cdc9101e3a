"""Captions of sheets in scripts beyond Latin: no boxes, whatever fonts the system has."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from cgnrt.sheets import fonts
from cgnrt.sheets.fonts import Captions, find_font, has_glyph, readable
from cgnrt.sheets.layout import fit, picture_grid

SHIPPED = ["Слон", "ελέφαντας", "פיל", "فيل", "Փիղ", "სპილო", "słoń", "vợn", "café", "ñandú", "Ærø", "½ ≈ ∞"]
PLAIN = ImageFont.load_default(16)


@pytest.fixture(autouse=True)
def _forget() -> Any:
    yield
    find_font.cache_clear()


@pytest.fixture
def no_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container without fonts."""
    monkeypatch.setattr(fonts, "_candidates", lambda character: iter(()))
    find_font.cache_clear()


def drawn(text: str, captions: Captions) -> np.ndarray:
    image = Image.new("L", (400, 40), 255)
    captions.draw(ImageDraw.Draw(image.convert("RGB")), 5, 5, text, (0, 0, 0))
    picture = image.convert("RGB")
    captions.draw(ImageDraw.Draw(picture), 5, 5, text, (0, 0, 0))
    return np.asarray(picture)[:, :, 0]


@pytest.mark.usefixtures("no_system")
@pytest.mark.parametrize("text", SHIPPED)
def test_what_comes_with_the_package(text: str) -> None:
    captions = Captions(16)
    assert readable(text, captions) == text
    assert fit(text, 1000, captions) == text
    shipped = fonts.files("cgnrt.sheets").joinpath("DejaVuSans.ttf")
    font = ImageFont.truetype(str(shipped), 16)
    assert all(has_glyph(PLAIN, c) or has_glyph(font, c) for c in text)
    box = drawn("\U0010ffff" * len(text), captions)
    assert not np.array_equal(drawn(text, captions), box)
    assert (drawn(text, captions) < 128).sum() > 30


@pytest.mark.usefixtures("no_system")
def test_what_no_font_has_is_readable_nevertheless() -> None:
    captions = Captions(16)
    assert readable("猫", captions) == r"\u732b"
    assert readable("a 猫 and 🐘", captions) == r"a \u732b and \U0001f418"
    assert readable("\uff43\uff41\uff54", captions) == "cat"  # of full width
    assert fit("猫" * 100, 50, captions).endswith("…")


def test_latin_is_drawn_as_ever() -> None:
    """By Pillow's font, to the last pixel."""
    captions = Captions(16)
    picture = Image.new("RGB", (400, 40), "white")
    ImageDraw.Draw(picture).text((5, 5), "Indian elephant (bird)", (0, 0, 0), PLAIN)
    np.testing.assert_array_equal(drawn("Indian elephant (bird)", captions), np.asarray(picture)[:, :, 0])
    assert captions.getlength("Indian elephant") == PLAIN.getlength("Indian elephant")


def test_scripts_in_one_caption_follow_each_other() -> None:
    captions = Captions(16)
    whole = captions.getlength("cat Слон dog")
    assert whole == pytest.approx(sum(map(captions.getlength, ("cat ", "Слон", " dog"))), abs=1)
    columns = np.flatnonzero((drawn("cat Слон dog", captions) < 128).any(axis=0))
    assert columns[0] >= 5
    assert columns[-1] <= 5 + whole + 1


def test_accents_that_are_written_apart() -> None:
    captions = Captions(16)
    assert readable("cafe\u0301", captions) == "café"
    assert readable("x\u030c", captions) == "x\u030c"
    assert readable("cafe\u0301", PLAIN) == "cafe"


def test_fonts_of_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A font that only the system has, under a name that only fontconfig knows."""
    shipped = Path(str(fonts.files("cgnrt.sheets").joinpath("DejaVuSans.ttf")))
    own = tmp_path / "own.ttf"
    own.write_bytes(shipped.read_bytes())
    program = tmp_path / "fc-match"
    program.write_text(f"#!/bin/sh\nprintf '%s\\n%s' '{own}' 65536\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    find_font.cache_clear()
    assert find_font("Ж") == (str(own), 0)
    assert find_font("猫") is None  # fontconfig names its best guess even where no font has the character
    monkeypatch.setattr(fonts, "_SHIPPED", "missing.ttf")
    for broken in ("exit 1", "echo nonsense", f"printf '%s\\n0' '{program}'"):
        program.write_text(f"#!/bin/sh\n{broken}\n")
        find_font.cache_clear()
        assert find_font("猫") is None


def test_known_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = str(fonts.files("cgnrt.sheets").joinpath("DejaVuSans.ttf"))
    monkeypatch.setattr(fonts.shutil, "which", lambda name: None)
    monkeypatch.setattr(fonts, "_KNOWN", (str(tmp_path / "nothing.ttf"), shipped))
    find_font.cache_clear()
    assert find_font("Ж") == (shipped, 0)
    assert find_font("猫") is None


def test_fontconfig_is_asked_once_for_a_character(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def run(command: list[str], **_: Any) -> Any:
        asked.append(command[1])
        raise subprocess.TimeoutExpired(command, 10)

    monkeypatch.setattr(fonts.shutil, "which", lambda name: "/bin/fc-match")
    monkeypatch.setattr(fonts.subprocess, "run", run)
    find_font.cache_clear()
    for _ in range(3):
        assert readable("猫猫", Captions(16)) == r"\u732b\u732b"
    assert asked == ["sans-serif:charset=732b"]


def test_a_sheet_has_names_of_any_script() -> None:
    tile = [[np.zeros((8, 8, 3), np.uint8)] * 2]
    sheets = [
        np.asarray(picture_grid(tile, [side], 96, head=[[head], ["cat"]], title=[title]))
        for side, head, title in (
            ("Слон", "فيل", "ελέφαντας"),
            ("Слон", "ليف", "ελέφαντας"),
            ("猫", "猫", "猫"),
        )
    ]
    assert not np.array_equal(sheets[0], sheets[1])  # boxes would look the same
    assert sheets[2].shape[1] > sheets[2].shape[0] / 2  # the side has room for its caption


def test_the_licence_of_the_font_lies_beside_it() -> None:
    text = fonts.files("cgnrt.sheets").joinpath("LICENSE_DEJAVU").read_text("utf-8")
    assert "Bitstream Vera" in text
    assert "Permission is hereby granted, free of charge" in text
