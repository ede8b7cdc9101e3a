"""The one reader of pictures that users give: what comes out is what a viewer shows."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, PngImagePlugin

from cgnrt._support import pictures
from cgnrt._support.pictures import PictureError, has_suffix, read_picture

Array = np.ndarray[Any, Any]


def read(path: Path, mode: Any = "RGB") -> Array:
    found = read_picture(path, mode).image
    assert found.mode == mode
    return np.asarray(found)


@pytest.fixture
def colours() -> Array:
    return np.random.default_rng(0).integers(0, 256, (6, 8, 3)).astype(np.uint8)


@pytest.fixture
def ramp() -> Array:
    """Grey values of 16 bits, from black to white."""
    return np.linspace(0, 65535, 48).astype(np.uint16).reshape(6, 8)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "tiff", "webp", "gif", "PNG", "TIFF"])
def test_formats(suffix: str, colours: Array, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    picture = Image.fromarray(colours)
    if suffix == "gif":
        picture = picture.quantize(64)
        colours = np.asarray(picture.convert("RGB"))
    picture.save(path, **({"lossless": True} if suffix == "webp" else {}))
    assert has_suffix(path)
    np.testing.assert_array_equal(read(path), colours)


def test_the_content_decides_the_format(colours: Array, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(colours).save(path, format="PNG")
    np.testing.assert_array_equal(read(path), colours)


ORIENTED: dict[int, Callable[[Array], Array]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a.swapaxes(0, 1)[::-1],
}


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
@pytest.mark.parametrize("orientation", ORIENTED)
def test_orientation(suffix: str, orientation: int, colours: Array, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(colours).save(path, exif=exif, **({"lossless": True} if suffix == "webp" else {}))
    found = read_picture(path, "RGB")
    np.testing.assert_array_equal(np.asarray(found.image), ORIENTED[orientation](colours))
    assert found.orientation == orientation


def test_orientation_of_16_bits(ramp: Array, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(ramp).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read(tmp_path / "a.png", "L"), ORIENTED[6](np.rint(ramp / 257)))


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0damaged", b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03", b"Exif\0\0"]
)
def test_damaged_exif_leaves_a_picture_as_it_is(exif: bytes, colours: Array, tmp_path: Path) -> None:
    Image.fromarray(colours).save(tmp_path / "a.webp", exif=exif, lossless=True)
    np.testing.assert_array_equal(read(tmp_path / "a.webp"), colours)


def test_an_orientation_that_does_not_exist(colours: Array, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 42
    Image.fromarray(colours).save(tmp_path / "a.png", exif=exif)
    found = read_picture(tmp_path / "a.png", "RGB")
    np.testing.assert_array_equal(np.asarray(found.image), colours)
    assert found.orientation == 1


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bits(suffix: str, ramp: Array, tmp_path: Path) -> None:
    """Of the whole range; a dark picture stays dark."""
    for values in (ramp, ramp // 300):
        path = tmp_path / f"a.{suffix}"
        Image.fromarray(values).save(path)
        grey = np.rint(values / 257).astype(np.uint8)
        np.testing.assert_array_equal(read(path, "L"), grey)
        np.testing.assert_array_equal(read(path), np.repeat(grey[..., None], 3, 2))


def test_16_bits_of_either_byte_order(ramp: Array, tmp_path: Path) -> None:
    Image.frombytes("I;16B", (8, 6), ramp.astype(">u2").tobytes()).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read(tmp_path / "a.tif", "L"), np.rint(ramp / 257))


def test_colours_of_16_bits(colours: Array, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(colours.astype(">u2") * 257, 16, 2))
    np.testing.assert_array_equal(read(path), colours)


def tiff(values: Array, *, bits: int, kind: int, photometric: int = 1) -> bytes:
    """A plain TIFF of one channel; kind 1 is unsigned, 2 signed, 3 float."""
    data = values.tobytes()
    entries = [
        (256, 4, values.shape[1]),
        (257, 4, values.shape[0]),
        (258, 3, bits),
        (259, 3, 1),
        (262, 3, photometric),
        (273, 4, 8),
        (277, 3, 1),
        (278, 4, values.shape[0]),
        (279, 4, len(data)),
        (339, 3, kind),
    ]
    fields = b"".join(struct.pack("<HHII", tag, form, 1, value) for tag, form, value in entries)
    offset = 8 + len(data)
    return (
        struct.pack("<2sHI", b"II", 42, offset) + data + struct.pack("<H", len(entries)) + fields + bytes(4)
    )


@pytest.mark.parametrize(
    ("values", "options", "white"),
    [
        (np.array([[0, 32767]], "<i2"), {"bits": 16, "kind": 2}, 32767),
        (np.array([[0, 255]], "<i4"), {"bits": 32, "kind": 2}, 255),
        (np.array([[0, 65535]], "<i4"), {"bits": 32, "kind": 2}, 65535),
        (np.array([[0, 1]], "<i4"), {"bits": 32, "kind": 2}, 255),
        (np.array([[0, 1]], "<f4"), {"bits": 32, "kind": 3}, 1),
        (np.array([[0, 0.25]], "<f4"), {"bits": 32, "kind": 3}, 1),
        (np.array([[0, 255]], "<f4"), {"bits": 32, "kind": 3}, 255),
        (np.array([[0, 65535]], "<f4"), {"bits": 32, "kind": 3}, 65535),
    ],
)
def test_integers_and_floats(values: Array, options: dict[str, int], white: float, tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(tiff(values, **options))
    np.testing.assert_array_equal(read(tmp_path / "a.tif", "L"), np.rint(values * (255 / white)))


def test_black_as_the_largest_value(ramp: Array, tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(tiff(ramp, bits=16, kind=1, photometric=0))
    np.testing.assert_array_equal(read(tmp_path / "a.tif", "L"), 255 - np.rint(ramp / 257))


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (
            np.array([[-1, 5]], "<i4"),
            {"bits": 32, "kind": 2},
            "pixels are negative or NaN, expected grey values",
        ),
        (np.array([[0, np.nan]], "<f4"), {"bits": 32, "kind": 3}, "pixels are negative or NaN"),
        (
            np.array([[0, 70000]], "<i4"),
            {"bits": 32, "kind": 2},
            "largest pixel is 70000, expected 0..1 of floats",
        ),
        (np.array([[0, np.inf]], "<f4"), {"bits": 32, "kind": 3}, "largest pixel is inf"),
    ],
)
def test_ranges_that_nothing_tells(
    values: Array, options: dict[str, int], message: str, tmp_path: Path
) -> None:
    (tmp_path / "a.tif").write_bytes(tiff(values, **options))
    with pytest.raises(PictureError, match=message):
        read_picture(tmp_path / "a.tif", "L")


def png(values: Array, depth: int, kind: int, *extra: tuple[bytes, bytes], width: int = 0) -> bytes:
    """A PNG of big-endian values; kind 0 is grey, 2 colours, 3 a palette."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b"".join(b"\0" + row.tobytes() for row in values)
    head = struct.pack(">IIBBBBB", width or values.shape[1], values.shape[0], depth, kind, 0, 0, 0)
    chunks = [(b"IHDR", head), *extra, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, data) for name, data in chunks)


RED = (250, 10, 20)


def transparent_pictures() -> dict[str, bytes]:
    """Pictures of one transparent pixel, red below, and one opaque pixel of (1, 2, 3), or of 7 where it is grey."""

    def saved(picture: Image.Image, format: str = "PNG", **options: Any) -> bytes:
        file = io.BytesIO()
        picture.save(file, format=format, **options)
        return file.getvalue()

    rgba = Image.fromarray(np.array([[[*RED, 0], [1, 2, 3, 255]]], np.uint8))
    la = Image.fromarray(np.array([[[200, 0], [7, 255]]], np.uint8))
    palette = np.array([[0, 1]], np.uint8)
    colours = (b"PLTE", bytes([*RED, 1, 2, 3]))
    deep = np.array([[[64_250, 10, 20], [1 * 257, 2 * 257, 3 * 257]]], ">u2")
    return {
        "rgba": saved(rgba),
        "rgba webp": saved(rgba, "WEBP", lossless=True, exact=True),
        "rgba tiff": saved(rgba, "TIFF"),
        "la": saved(la),
        "palette": png(palette, 8, 3, colours, (b"tRNS", bytes([0, 255]))),
        "palette gif": saved(rgba, "GIF"),
        "a colour": png(np.array([[RED, (1, 2, 3)]], np.uint8), 8, 2, (b"tRNS", struct.pack(">HHH", *RED))),
        "a deep colour": png(deep, 16, 2, (b"tRNS", deep[0, 0].tobytes())),
        "a grey": png(np.array([[200, 7]], np.uint8), 8, 0, (b"tRNS", struct.pack(">H", 200))),
        "a deep grey": png(np.array([[300, 7 * 257]], ">u2"), 16, 0, (b"tRNS", struct.pack(">H", 300))),
        "one bit": png(np.array([[0b01000000]], np.uint8), 1, 0, (b"tRNS", struct.pack(">H", 0)), width=2),
    }


@pytest.mark.parametrize("name", transparent_pictures())
def test_hidden_colours_do_not_show(name: str, tmp_path: Path) -> None:
    """White is behind photos, black behind masks."""
    path = tmp_path / "a.png"
    path.write_bytes(transparent_pictures()[name])
    greys = {"la": 7, "a grey": 7, "a deep grey": 7, "one bit": 255}
    opaque = (greys[name],) * 3 if name in greys else (1, 2, 3)
    np.testing.assert_array_equal(read(path)[0], [(255, 255, 255), opaque])
    assert read(path, "L")[0].tolist() == [0, greys.get(name, 2)]


def test_half_transparent_pixels(tmp_path: Path) -> None:
    Image.fromarray(np.array([[[0, 0, 0, 51], [255, 255, 255, 128]]], np.uint8)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read(tmp_path / "a.png")[0, :, 0], [204, 255])
    np.testing.assert_array_equal(read(tmp_path / "a.png", "L")[0], [0, 128])  # alpha is the mask


def test_one_bit(tmp_path: Path) -> None:
    mask = np.array([[True, False], [False, True]])
    for name in ("a.png", "a.tif", "a.bmp"):
        Image.fromarray(mask).save(tmp_path / name)
        np.testing.assert_array_equal(read(tmp_path / name, "L"), mask * 255)


def test_cmyk(tmp_path: Path) -> None:
    ink = Image.fromarray(np.array([[[0, 0, 0, 0], [0, 0, 0, 255], [0, 255, 255, 0]]], np.uint8), "CMYK")
    ink.save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read(tmp_path / "a.tif")[0], [(255,) * 3, (0,) * 3, (255, 0, 0)])
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    np.testing.assert_allclose(read(tmp_path / "a.jpg"), np.full((16, 16, 3), (255, 0, 0)), atol=2)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_the_first_of_several_pictures(suffix: str, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ((200, 0, 0), (0, 200, 0), (0, 0, 200))]
    options = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], **options)
    np.testing.assert_array_equal(read(tmp_path / f"a.{suffix}"), np.full((4, 4, 3), (200, 0, 0)))


def refused(path: Path) -> str:
    with pytest.raises(PictureError) as caught:
        read_picture(path, "RGB")
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "file is empty, expected a picture. Get it again."),
        (b"no picture", "file is unreadable (cannot identify image file), expected a picture."),
        (
            b"\0\x05\x16\x07\0\x02\0\0Mac OS X        ",
            "file is unreadable (cannot identify image file: it is macOS's notes on another file), expected",
        ),
        (b"version https://git-lfs.github.com/spec/v1\n", "it is a pointer of Git LFS"),
        (b"<!DOCTYPE html>", "it is HTML or SVG"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "it is HEIC"),
        (b"\0\0\0\x18ftypqt  \0\0\0\0", "(cannot identify image file), expected"),
    ],
)
def test_no_pictures(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "._1.jpg"
    path.write_bytes(content)
    assert message in refused(path)


def test_a_missing_file_a_folder_and_a_fifo(tmp_path: Path) -> None:
    assert refused(tmp_path / "a.jpg") == "file is missing, expected a picture. Check the path."
    assert refused(tmp_path) == "file cannot be opened (it is a folder), expected a picture."
    os.mkfifo(tmp_path / "b.jpg")
    assert refused(tmp_path / "b.jpg") == "file cannot be opened (not a regular file), expected a picture."


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "tif", "gif"])
def test_cut_short(suffix: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(noise).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert "file is unreadable (" in refused(path)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "tif", "gif"])
def test_damaged_files_give_a_picture_or_its_error(suffix: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(rng.integers(0, 256, (16, 16, 3)).astype(np.uint8)).save(path)
    content = np.frombuffer(path.read_bytes(), np.uint8)
    for _ in range(150):
        damaged = content.copy()
        places = rng.integers(0, min(200, len(content)), 3)
        damaged[places] = rng.integers(0, 256, 3)
        path.write_bytes(damaged.tobytes())
        with contextlib.suppress(PictureError):
            read_picture(path, "RGB")


def test_a_large_text_chunk(tmp_path: Path) -> None:
    notes = PngImagePlugin.PngInfo()
    notes.add_text("prompt", "x" * (2 << 20), zip=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png", pnginfo=notes)
    assert "file is unreadable (Decompressed data too large" in refused(tmp_path / "a.png")


def test_a_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what the file says of itself: nothing is decoded. Whatever the process allows Pillow otherwise."""
    path = tmp_path / "a.png"
    path.write_bytes(
        png(np.zeros((1, 1), np.uint8), 8, 0).replace(
            struct.pack(">II", 1, 1), struct.pack(">II", 60_000, 60_000), 1
        )
    )
    content = bytearray(path.read_bytes())
    content[29:33] = struct.pack(">I", zlib.crc32(bytes(content[12:29])))
    path.write_bytes(content)
    assert "exceeds limit" in refused(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert (
        refused(path)
        == "picture has 60000 x 60000 pixels, expected at most 178,956,970 in all. Scale it down."
    )


def test_a_large_photo_is_no_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow warns of pictures of half its limit; warnings are errors here."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)
    Image.new("RGB", (64, 64), RED).save(tmp_path / "a.png")
    assert read(tmp_path / "a.png")[0, 0].tolist() == list(RED)


def test_no_program_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """EPS would be handed to Ghostscript, whatever the file is called."""
    started: list[object] = []
    monkeypatch.setattr(subprocess, "check_call", lambda *a, **k: started.append(a))
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: started.append(a))
    path = tmp_path / "a.jpg"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n")
    assert "it is PostScript" in refused(path)
    assert started == []


def test_suffixes() -> None:
    for name in ("a.jpg", "a.JPG", "a.Jpeg", "a.tiff", "a.TIF", "a.gif", "a.webp", "a.bmp", "a.png"):
        assert has_suffix(Path(name))
    for name in ("a.txt", "png", "a.heic", "a.eps", "a"):
        assert not has_suffix(Path(name))
    assert {"JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"} <= set(pictures.FORMATS)
