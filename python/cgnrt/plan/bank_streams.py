"""Pictures of a bank that are stored as streams of WebP or JPEG: where each lies, and what it is before it is decoded.

A decoder takes memory for the size that a stream's header has. So the header is read here first, and a stream of
another size, or of any form but the plainest, never reaches the decoder.
"""

from __future__ import annotations

import re
import struct
from typing import Final

import numpy as np

from cgnrt.errors import refuse

STREAMS: Final = ("webp", "jpeg")  # the kinds of `store` beside "raw"

_STEP = 1 << 20  # numbers of an index that are looked at together
_ANYWAY_BYTES = 1 << 16  # room for headers and tables of a stream

_START, _END = b"\xff\xd8", b"\xff\xd9"
_TABLES = {0xE0, 0xDB, 0xC4, 0xDD}  # JFIF's header, quantization, Huffman codes, restart interval
_FRAME, _SCAN = 0xC0, 0xDA  # baseline
_OTHER_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7]")  # within a scan


def longest_stream(picture_bytes: int) -> int:
    """The most bytes that a picture of so many raw bytes may take as a stream."""
    return 4 * picture_bytes + _ANYWAY_BYTES


def check_index(index: np.ndarray, size: int, picture_bytes: int) -> None:
    """Refuse an index, uint64 (count + 1,), whose streams are not one after the other and of possible lengths.

    It takes no memory for all of them.

    Args:
      size: of the member with the streams.
    """
    longest = longest_stream(picture_bytes)
    if int(index[0]) != 0 or int(index[-1]) != size:
        found = f"{int(index[0])} .. {int(index[-1])}"
        raise refuse("index", found, f"0 .. {size}, the bytes of the streams")
    for first in range(0, index.size - 1, _STEP):
        part = index[first : first + _STEP + 1]
        if (part > size).any() or (part[1:] <= part[:-1]).any():
            raise refuse(
                "index", "a list that does not rise", "one that rises: each stream follows the one before"
            )
        if (lengths := np.diff(part)).max() > longest:
            at = first + int(lengths.argmax())
            raise refuse(f"length of picture {at}", f"{int(lengths.max())} bytes", f"1..{longest}")


def decode_stream(stream: bytes, store: str, shape: tuple[int, ...]) -> np.ndarray:
    """The picture of a stream, uint8 (c, h, w): a view of what the decoder made.

    Args:
      shape: (c, h, w), which it must have. A mask's WebP has three equal channels, of which the first is taken.
    Raises:
      PlanError: the stream has another size or form, or cannot be decoded.
    """
    channels, height, width = shape
    found = _webp_size(stream) if store == "webp" else _jpeg_size(stream, channels)
    if found != (height, width):
        raise refuse("size", f"{found[0]} x {found[1]}", f"{height} x {width}, the plan's resolution")
    from cgnrt._support.encode import decode  # programs that decode nothing start faster

    try:
        picture = decode(stream, store)
    except ValueError as error:
        raise refuse("stream", str(error), f"one that decodes as {store}") from error
    picture = picture.transpose(2, 0, 1)[:channels] if picture.ndim == 3 else picture[None]
    if picture.shape != shape:
        raise refuse("decoded picture", str(picture.shape), str(shape))
    return picture


def _webp_size(stream: bytes) -> tuple[int, int]:
    """(height, width) of a WebP file of one chunk: no animation, no alpha channel, no metadata."""
    if len(stream) < 25 or stream[:4] != b"RIFF" or stream[8:12] != b"WEBP":
        raise refuse("stream", repr(stream[:12]), "a WebP file")
    kind, size = stream[12:16], struct.unpack_from("<I", stream, 16)[0]
    if struct.unpack_from("<I", stream, 4)[0] != len(stream) - 8 or 20 + size + size % 2 != len(stream):
        raise refuse("stream", "a WebP file of another length", "one chunk of picture, and nothing else")
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", stream, 21)
        if stream[20] != 0x2F or bits >> 28:
            raise refuse("stream", "lossless WebP of another form", "one without an alpha channel")
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    if kind == b"VP8 " and len(stream) >= 30:
        width, height = struct.unpack_from("<HH", stream, 26)
        if stream[20] & 1 or stream[23:26] != b"\x9d\x01\x2a" or (width | height) >> 14:
            raise refuse("stream", "lossy WebP of another form", "a key frame that is not scaled")
        return height, width
    raise refuse("stream", f"WebP with a chunk {kind!r}", "'VP8 ' or 'VP8L' alone")


def _jpeg_size(stream: bytes, channels: int) -> tuple[int, int]:
    """(height, width) of a baseline JPEG file of one scan, with nothing behind it and no metadata but JFIF's."""
    if stream[:2] != _START or stream[-2:] != _END:
        raise refuse("stream", repr(stream[:2] + stream[-2:]), "a JPEG file from its beginning to its end")
    size: tuple[int, int] | None = None
    at = 2
    while True:
        if at + 4 > len(stream) or stream[at] != 0xFF:
            raise refuse("stream", f"JPEG without a marker at byte {at}", "segments one after the other")
        marker, length = stream[at + 1], struct.unpack_from(">H", stream, at + 2)[0]
        if length < 2 or at + 2 + length > len(stream):
            raise refuse(
                "stream", f"JPEG with a segment of {length} bytes at byte {at}", "segments within the file"
            )
        if marker == _FRAME and size is None and length >= 8:
            bits, height, width, components = struct.unpack_from(">BHHB", stream, at + 4)
            if (bits, components) != (8, channels):
                found = f"{components} components of {bits} bits"
                raise refuse("stream", f"JPEG of {found}", f"{channels} of 8 bits")
            size = height, width
        elif marker == _SCAN:
            break
        elif marker not in _TABLES:
            raise refuse(
                "stream", f"JPEG with marker 0x{marker:02X}", "baseline, with no metadata except JFIF's"
            )
        at += 2 + length
    if size is None:
        raise refuse("stream", "JPEG without a frame header", "one before the scan")
    found_marker = _OTHER_MARKER.search(stream, at + 2 + length)
    if found_marker is None or found_marker.start() != len(stream) - 2:
        raise refuse("stream", "JPEG of several scans", "one scan, and nothing behind it")
    return size


def encode_stream(picture: np.ndarray, store: str, quality: int | None) -> bytes:
    """One picture, uint8 (c, h, w), as a stream; quality None is lossless, of JPEG its default."""
    from cgnrt._support.encode import DEFAULT_QUALITY, encode

    pixels = np.ascontiguousarray(picture.transpose(1, 2, 0))
    if pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    return encode(pixels, store, DEFAULT_QUALITY[store] if quality is None else quality)
