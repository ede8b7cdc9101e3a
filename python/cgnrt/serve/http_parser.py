"""HTTP/1.1 as RFC 9112 has it, read strictly: what two readers could understand in two ways is refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

MOST_HEADER_BYTES = 1 << 16  # of a head, and of the trailers behind a body in chunks
MOST_HEADERS = 128

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])")
_FIELD = re.compile(rb"(" + _TOKEN + rb"):([\t\x20-\x7e\x80-\xff]*)")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]{0,200})?\r\n")
_LONGEST_CHUNK_LINE = 256
# Fields of which a message has one; more than one is refused, also where all are the same.
_SINGLE = frozenset(
    (
        "authorization",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "inference-header-content-length",
        "origin",
        "transfer-encoding",
    )
)


class HttpError(Exception):
    """What came is not a request. The connection cannot go on, because nobody knows where the next one begins."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Head:
    """The head of a request.

    Attributes:
      path: decoded, without the query.
      headers: by name in lower case. The values of a name that comes several times are joined by commas.
      length: bytes of the body; None if it comes in chunks.
      keeps: whether the connection stays open after the answer.
      continues: whether the client waits for "100 Continue" before it sends the body.
      old: whether it is HTTP/1.0, where nothing may be sent before the answer.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    length: int | None = 0
    keeps: bool = True
    continues: bool = False
    old: bool = False


def read_head(data: bytes) -> Head:
    """Read a head, from its first line to the line before the empty one.

    Raises:
      HttpError: it is not one, is ambiguous, or asks for what this server does not do.
    """
    lines = data.split(b"\r\n")
    if len(lines) > MOST_HEADERS + 1:
        raise HttpError(431, f"read headers: they are {len(lines) - 1}, expected at most {MOST_HEADERS}.")
    first = _REQUEST_LINE.fullmatch(lines[0])
    if first is None:
        raise HttpError(400, f"read request: it begins with {lines[0][:60]!r}, expected a line of HTTP/1.1.")
    if first[3] != b"1":
        raise HttpError(505, f"read request: version is {int(first[3])}, expected HTTP/1.1.")
    headers: dict[str, str] = {}
    for line in lines[1:]:
        field = _FIELD.fullmatch(line)
        if field is None:
            raise HttpError(400, f"read headers: {line[:60]!r} is not a header.")
        name, value = field[1].decode("ascii").lower(), field[2].strip(b" \t").decode("latin-1")
        if name in headers:
            if name in _SINGLE:
                raise HttpError(400, f"read headers: {name} comes twice, expected once.")
            value = f"{headers[name]}, {value}"
        headers[name] = value
    old = first[4] == b"0"
    if "host" not in headers and not old:
        raise HttpError(400, "read headers: host is missing.")
    length = _body_length(headers, old=old)
    path, host = _target(first[2].decode("ascii"))
    if host is not None:
        headers["host"] = host
    asked = {word.strip().lower() for word in headers.get("connection", "").split(",")}
    expects = headers.get("expect", "").lower()
    if expects not in ("", "100-continue"):
        raise HttpError(417, f"read headers: expect is {expects[:60]!r}, expected 100-continue.")
    return Head(
        first[1].decode("ascii"),
        path,
        headers,
        length=length,
        keeps=not old and "close" not in asked,
        continues=bool(expects) and not old and length != 0,
        old=old,
    )


def _body_length(headers: Mapping[str, str], *, old: bool) -> int | None:
    coding, length = headers.get("transfer-encoding"), headers.get("content-length")
    if coding is not None:
        if length is not None or old:
            other = "content-length" if length is not None else "HTTP/1.0"
            raise HttpError(400, f"read headers: transfer-encoding comes with {other}.")
        if coding.lower() != "chunked":
            raise HttpError(
                501, f"read headers: transfer-encoding is {coding[:60]!r}, only chunked is supported."
            )
        return None
    if length is None:
        return 0
    if not (length.isascii() and length.isdecimal() and len(length) <= 15):
        raise HttpError(400, f"read headers: content-length is {length[:60]!r}, expected a number.")
    return int(length)


def _target(target: str) -> tuple[str, str | None]:
    """The path, and the host if the target names it, which is then the one that counts."""
    host = None
    if not target.startswith("/"):
        try:
            parts = urlsplit(target)
        except ValueError:
            parts = None
        if parts is None or parts.scheme not in ("http", "https") or not parts.netloc:
            raise HttpError(400, f"read request: target is {target[:60]!r}, expected a path.")
        target, host = parts.path or "/", parts.netloc
    return unquote(target.partition("?")[0].partition("#")[0]), host


class Body:
    """Finds the bytes of one body in what a connection receives.

    Attributes:
      complete: whether all of it was taken.
    """

    def __init__(self, length: int | None) -> None:
        self._left = length or 0  # of the body, or of the present chunk with the end of line behind it
        self._chunked = length is None
        self._trailer_bytes: int | None = None  # of trailers so far, once the last chunk has come
        self.complete = length == 0

    def take(self, received: bytearray) -> bytes:
        """Take what belongs to the body out of `received`.

        Raises:
          HttpError: a chunk or trailer is malformed.
        """
        if not self._chunked:
            found = bytes(received[: self._left])
            del received[: self._left]
            self._left -= len(found)
            self.complete = self._left == 0
            return found
        parts: list[bytes] = []
        at = 0
        while not self.complete:
            after = self._step(received, at, parts)
            if after == at:
                break
            at = after
        del received[:at]
        return b"".join(parts)

    def _step(self, received: bytearray, at: int, parts: list[bytes]) -> int:
        """Read a part of a chunk, the line before one, or a trailer; give where the rest begins."""
        if self._left > 2:
            parts.append(bytes(received[at : at + self._left - 2]))
            self._left -= len(parts[-1])
            return at + len(parts[-1])
        if self._left:  # the end of line behind a chunk
            if len(received) - at < 2:
                return at
            if received[at : at + 2] != b"\r\n":
                raise HttpError(400, "read body: a chunk is longer than its size.")
            self._left = 0
            return at + 2
        if self._trailer_bytes is not None:
            return self._trailer(received, at)
        line = _CHUNK.match(received, at)
        if line is None:
            if len(received) - at >= _LONGEST_CHUNK_LINE or received.find(b"\n", at) >= 0:
                raise HttpError(400, f"read body: size of a chunk is {bytes(received[at : at + 20])!r}.")
            return at
        size = int(line[1], 16)
        if size:
            self._left = size + 2
        else:
            self._trailer_bytes = 0
        return line.end()

    def _trailer(self, received: bytearray, at: int) -> int:
        """Read a trailer and forget it: it is never a header."""
        end = received.find(b"\r\n", at)
        assert self._trailer_bytes is not None
        if self._trailer_bytes + (len(received) if end < 0 else end) - at > MOST_HEADER_BYTES:
            raise HttpError(
                431, f"read trailers: they are too large, expected at most {MOST_HEADER_BYTES} bytes."
            )
        if end < 0:
            return at
        if end == at:
            self.complete = True
        elif _FIELD.fullmatch(received, at, end) is None:
            raise HttpError(
                400, f"read trailers: {bytes(received[at : min(end, at + 60)])!r} is not a header."
            )
        self._trailer_bytes += end + 2 - at
        return end + 2
