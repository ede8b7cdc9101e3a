"""What is read as a request, and what is refused: everything that two readers could understand in two ways."""

from __future__ import annotations

from typing import Any

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cgnrt.serve.http_parser import Body, Head, HttpError, read_head

HOST = b"\r\nHost: a"


def test_a_head() -> None:
    lines = (
        b"POST /v2/models/a%20b/infer?x=/y#z HTTP/1.1",
        b"host:a:1",
        b"X-Y:  \t1 \t2 ",
        b"x-y:3",
        b"empty:",
    )
    head = read_head(b"\r\n".join(lines))
    headers = {"host": "a:1", "x-y": "1 \t2, 3", "empty": ""}
    assert head == Head("POST", "/v2/models/a b/infer", headers)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (b"Content-Length: 0012", {"length": 12}),
        (b"Transfer-Encoding: Chunked", {"length": None}),
        (b"Connection: a, Close", {"keeps": False}),
        (b"Connection: keep-alive", {"keeps": True}),
        (b"Expect: 100-Continue\r\nContent-Length: 1", {"continues": True}),
        (b"Expect: 100-continue", {"continues": False}),
        (b"Upgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 3", {"length": 3, "keeps": True}),
    ],
)
def test_what_headers_mean(lines: bytes, expected: dict[str, Any]) -> None:
    head = read_head(b"POST / HTTP/1.1" + HOST + b"\r\n" + lines)
    assert {name: getattr(head, name) for name in expected} == expected


def test_old_clients() -> None:
    head = read_head(
        b"POST / HTTP/1.0\r\nConnection: keep-alive\r\nExpect: 100-continue\r\nContent-Length: 1"
    )
    assert (head.keeps, head.continues, head.old, head.length) == (False, False, True, 1)


@pytest.mark.parametrize(
    ("target", "path", "host"),
    [
        (b"/", "/", "a"),
        (b"//b/c", "//b/c", "a"),
        (b"http://b:1/c?d", "/c", "b:1"),
        (b"https://b", "/", "b"),
        (b"/%E4%BD%A0%00", "/\u4f60\0", "a"),
    ],
)
def test_targets(target: bytes, path: str, host: str) -> None:
    head = read_head(b"GET " + target + b" HTTP/1.1" + HOST)
    assert (head.path, head.headers["host"]) == (path, host)


LINE = b"POST / HTTP/1.1" + HOST + b"\r\n"


@pytest.mark.parametrize(
    ("data", "status", "message"),
    [
        (b"", 400, "it begins with b''"),
        (b"GET /" + HOST, 400, "it begins with"),
        (b"GET  / HTTP/1.1" + HOST, 400, "it begins with"),
        (b"GET / HTTP/1.1 " + HOST, 400, "it begins with"),
        (b"GET /a b HTTP/1.1" + HOST, 400, "it begins with"),
        (b"GET /\xe4 HTTP/1.1" + HOST, 400, "it begins with"),
        (b"GET /\x00 HTTP/1.1" + HOST, 400, "it begins with"),
        (b"GET / HTTP/1.1\nHost: a", 400, "it begins with"),
        (b"GET(x) / HTTP/1.1" + HOST, 400, "it begins with"),
        (b"GET / http/1.1" + HOST, 400, "it begins with"),
        (b"PRI * HTTP/2.0" + HOST, 505, "version is 2, expected HTTP/1.1"),
        (b"GET * HTTP/1.1" + HOST, 400, "target is '*', expected a path"),
        (b"CONNECT b:1 HTTP/1.1" + HOST, 400, "target is 'b:1', expected a path"),
        (b"GET http:///c HTTP/1.1" + HOST, 400, "target is 'http:///c', expected a path"),
        (b"GET http://[/c HTTP/1.1" + HOST, 400, "expected a path"),
        (b"GET ftp://b/c HTTP/1.1" + HOST, 400, "expected a path"),
        (b"GET / HTTP/1.1", 400, "host is missing"),
        (LINE + b"Host: b", 400, "host comes twice"),
        (LINE + b"X", 400, "b'X' is not a header"),
        (LINE + b"X : y", 400, "is not a header"),
        (LINE + b" X: y", 400, "is not a header"),
        (LINE + b"X: y\r\n folded", 400, "is not a header"),
        (LINE + b"X: y\rZ: z", 400, "is not a header"),
        (LINE + b"X: y\nZ: z", 400, "is not a header"),
        (LINE + b"X: \x00", 400, "is not a header"),
        (LINE + b": y", 400, "is not a header"),
        (LINE + b"X\xe4: y", 400, "is not a header"),
        (LINE + b"Content-Length: +1", 400, "content-length is '+1'"),
        (LINE + b"Content-Length: 1_0", 400, "content-length is '1_0'"),
        (LINE + b"Content-Length: -1", 400, "content-length is '-1'"),
        (LINE + b"Content-Length: 0x1", 400, "content-length is '0x1'"),
        (LINE + b"Content-Length: \xb2", 400, "content-length is"),
        (LINE + b"Content-Length:", 400, "content-length is ''"),
        (LINE + b"Content-Length: 1, 1", 400, "content-length is '1, 1'"),
        (LINE + b"Content-Length: " + b"9" * 16, 400, "content-length is '9999999999999999'"),
        (LINE + b"Content-Length: 1\r\nContent-Length: 1", 400, "content-length comes twice"),
        (LINE + b"Content-Length: 1\r\nTransfer-Encoding: chunked", 400, "comes with content-length"),
        (LINE + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 400, "comes twice"),
        (LINE + b"Transfer-Encoding: gzip, chunked", 501, "only chunked is supported"),
        (LINE + b"Transfer-Encoding: identity", 501, "only chunked is supported"),
        (LINE + b"Transfer-Encoding: xchunked", 501, "only chunked is supported"),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked", 400, "comes with HTTP/1.0"),
        (LINE + b"Authorization: a\r\nauthorization: b", 400, "authorization comes twice"),
        (LINE + b"Expect: magic", 417, "expect is 'magic'"),
        (LINE + b"X: y\r\n" * 200 + b"X: y", 431, "expected at most 128"),
    ],
)
def test_no_head(data: bytes, status: int, message: str) -> None:
    with pytest.raises(HttpError) as found:
        read_head(data)
    assert found.value.status == status
    assert message in str(found.value)


def bodies(data: bytes, length: int | None, sizes: list[int]) -> tuple[bytes, bytes, bool]:
    """A body that comes in pieces of these sizes; what follows it; whether it was complete."""
    body, received, found = Body(length), bytearray(), b""
    at = 0
    for size in [*sizes, len(data)]:
        received += data[at : at + size]
        at += size
        if not body.complete:
            found += body.take(received)
    return found, bytes(received), body.complete


@given(st.lists(st.binary(min_size=1, max_size=20), max_size=5), st.lists(st.integers(1, 7), max_size=60))
@settings(max_examples=100, deadline=None)
def test_bodies_in_chunks(parts: list[bytes], sizes: list[int]) -> None:
    data = b"".join(b"%X ; x=y\r\n%b\r\n" % (len(part), part) for part in parts)
    data += b"000\r\nAuthorization: x\r\n\r\nGET /"
    assert bodies(data, None, sizes) == (b"".join(parts), b"GET /", True)


@given(st.binary(max_size=50), st.lists(st.integers(1, 7), max_size=20))
@settings(max_examples=50, deadline=None)
def test_bodies_of_a_length(data: bytes, sizes: list[int]) -> None:
    assert bodies(data + b"GET /", len(data), sizes) == (data, b"GET /", True)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\r\n", "size of a chunk is"),
        (b"g\r\n", "size of a chunk is"),
        (b"0x1\r\n", "size of a chunk is"),
        (b"-1\r\n", "size of a chunk is"),
        (b"1\n", "size of a chunk is"),
        (b"1 \r\n", "size of a chunk is"),
        (b"F" * 16 + b"\r\n", "size of a chunk is"),
        (b"1;" + b"x" * 300, "size of a chunk is"),
        (b"1\r\nabc", "a chunk is longer than its size"),
        (b"1\r\na\n\n", "a chunk is longer than its size"),
        (b"0\r\n X: y\r\n", "is not a header"),
        (b"0\r\nX\r\n", "is not a header"),
        (b"0\r\nX: " + b"x" * 70_000, "expected at most 65536"),
        (b"0\r\n" + b"X: x\r\n" * 12_000, "expected at most 65536"),
    ],
)
def test_no_chunks(data: bytes, message: str) -> None:
    with pytest.raises(HttpError, match=message):
        bodies(data, None, [1] * min(len(data), 400))


PIECES = (
    b"GET ",
    b"POST / HTTP/1.1\r\nHost: a\r\n",
    b"HTTP/1.0",
    b"Content-Length: ",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n",
    b"Expect: 100-continue\r\n",
    b"3",
    b"0\r\n\r\n",
    b"3\r\nabc\r\n",
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"\t",
    b" ",
    b"\0",
    b"\xe4",
    b",",
    b":",
    b"/x",
)


@given(st.lists(st.sampled_from(PIECES), max_size=8), st.lists(st.sampled_from(PIECES), max_size=5))
@settings(max_examples=400, deadline=None)
def test_what_is_accepted_is_what_h11_reads(head: list[bytes], body: list[bytes]) -> None:
    """No request is read here that another strict reader refuses, or reads otherwise."""
    data = b"POST / HTTP/1.1\r\nHost: a\r\n" + b"".join(head) + b"\r\n\r\n" + b"".join(body)
    start, _, rest = data.partition(b"\r\n\r\n")
    try:
        found = read_head(start)
        received, content = bytearray(rest), Body(found.length)
        taken = b"" if content.complete else content.take(received)
    except HttpError:
        return
    other = h11.Connection(h11.SERVER)
    other.receive_data(data)
    request = other.next_event()
    assert isinstance(request, h11.Request)
    assert request.method.decode() == found.method
    parts = b""
    while isinstance(event := other.next_event(), h11.Data):
        parts += bytes(event.data)
    assert parts == taken
    assert isinstance(event, h11.EndOfMessage) == content.complete
    if content.complete:
        assert other.trailing_data[0] == bytes(received)
