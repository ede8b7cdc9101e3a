"""Clients that mean harm: many connections that send, and read nothing or only what is asked of them."""

from __future__ import annotations

import contextlib
import multiprocessing
import selectors
import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

HALF_HEAD = b"GET /v2 HTTP/1.1\r\nHost: localhost\r\nX-Half: "
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS, _PING, _WINDOW = 0, 1, 4, 6, 8


class Client(Protocol):
    """One connection's part: `unsent` is what waits to be sent, always something where nothing is read."""

    unsent: bytes

    def received(self, data: bytes) -> None:
        """Take what the server has sent."""

    def refill(self) -> None:
        """Have more to send, if there is, now that all was sent."""


@dataclass
class Sending:
    """Sends something, and then something else for ever. Reads and forgets the answers."""

    unsent: bytes
    ever: bytes = b""

    def received(self, data: bytes) -> None: ...

    def refill(self) -> None:
        self.unsent = self.ever


class Unfinished:
    """Streams of gRPC, each with a message that stops short of its end, as far as the server takes it."""

    def __init__(self, path: str, streams: int, message_bytes: int) -> None:
        self._inbox = b""
        self._connection, self._initial = 65_535, 65_535  # bytes that may be sent
        self._left = dict.fromkeys(range(1, 2 * streams, 2), message_bytes - 1)
        self._windows: dict[int, int] = {}
        prefix = b"\0" + struct.pack(">I", message_bytes)
        self.unsent = _PREFACE + frame(_SETTINGS, 0, 0, b"")
        for stream in self._left:
            self.unsent += frame(_HEADERS, 4, stream, head(path)) + frame(_DATA, 0, stream, prefix)
            self._windows[stream] = -len(prefix)
            self._connection -= len(prefix)

    def received(self, data: bytes) -> None:
        self._inbox += data
        while len(self._inbox) >= 9:
            size = int.from_bytes(self._inbox[:3], "big")
            kind, flags = self._inbox[3:5]
            stream = int.from_bytes(self._inbox[5:9], "big")
            if len(self._inbox) < 9 + size:
                break
            payload, self._inbox = self._inbox[9 : 9 + size], self._inbox[9 + size :]
            if kind == _SETTINGS and not flags & 1:
                for number, value in struct.iter_unpack(">HI", payload):
                    if number == 4:
                        self._initial = value
                self.unsent += frame(_SETTINGS, 1, 0, b"")
            elif kind == _PING and not flags & 1:
                self.unsent += frame(_PING, 1, 0, payload)
            elif kind == _WINDOW and stream:
                self._windows[stream] = self._windows.get(stream, 0) + int.from_bytes(payload, "big")
            elif kind == _WINDOW:
                self._connection += int.from_bytes(payload, "big")
        if not self.unsent:
            self.refill()

    def refill(self) -> None:
        for stream, left in self._left.items():
            size = min(left, self._connection, self._initial + self._windows[stream], 16_384)
            if size > 0:
                self.unsent += frame(_DATA, 0, stream, b" " * size)
                self._left[stream] -= size
                self._windows[stream] -= size
                self._connection -= size


def head(path: str) -> bytes:
    """The header block of a call."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    return b"".join(
        b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        for name, value in fields.items()
    )


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """A frame of HTTP/2."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


@dataclass(frozen=True)
class Attack:
    """So many connections to a port, each by a client.

    Attributes:
      client: makes the clients, in another process: a function or class of a module, with its arguments.
      reads: whether answers are read.
      again_s: after this time a connection that was closed is opened again; None: never.
    """

    port: int
    connections: int
    client: Callable[..., Client]
    arguments: tuple[Any, ...]
    reads: bool
    again_s: float | None


@contextlib.contextmanager
def attacked(attack: Attack) -> Iterator[Callable[[], int]]:
    """Attack from a process of its own, until the block ends. Gives a function: how many connections were closed."""
    context = multiprocessing.get_context("spawn")
    begun, stop, closed = context.Event(), context.Event(), context.Value("i", 0)
    process = context.Process(target=_attack, args=(attack, begun, stop, closed))
    process.start()
    try:
        assert begun.wait(60)
        yield lambda: int(closed.value)
    finally:
        stop.set()
        process.join(30)
        assert process.exitcode == 0


def _attack(attack: Attack, begun: Any, stop: Any, closed: Any) -> None:
    selector = selectors.DefaultSelector()
    due = [0.0] * attack.connections  # when connections are opened again
    while not stop.is_set():
        now = time.monotonic()
        while due and due[0] <= now:
            del due[0]
            connection = socket.socket()
            connection.setblocking(False)
            if not attack.reads:  # then the system takes little for it
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            with contextlib.suppress(BlockingIOError):
                connection.connect(("127.0.0.1", attack.port))
            selector.register(connection, selectors.EVENT_WRITE, attack.client(*attack.arguments))
        begun.set()
        for key, _ in selector.select(0.05):
            found, client = key.fileobj, key.data
            assert isinstance(found, socket.socket)
            try:
                _step(found, client, attack.reads)
                events = selectors.EVENT_READ * attack.reads | selectors.EVENT_WRITE * bool(client.unsent)
                selector.modify(found, events, client)
            except OSError:
                selector.unregister(found)
                found.close()
                closed.value += 1
                if attack.again_s is not None:
                    due.append(time.monotonic() + attack.again_s)


def _step(connection: socket.socket, client: Client, reads: bool) -> None:
    """Receive and send what is possible.

    Raises:
      OSError: the connection is closed.
    """
    with contextlib.suppress(BlockingIOError):
        if reads:
            data = connection.recv(1 << 16)
            if not data:
                raise ConnectionResetError
            client.received(data)
    with contextlib.suppress(BlockingIOError):
        if client.unsent:
            client.unsent = client.unsent[connection.send(client.unsent) :]
        if not client.unsent:
            client.refill()
