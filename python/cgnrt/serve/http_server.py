"""Accepts HTTP connections, no more than a limit: for a further one, one that does nothing is closed."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from functools import partial

from cgnrt.serve.connections import LINGER_S, Connection, Connections

_RETRY_S = 0.05  # after the system had no descriptor or memory for a connection
_MOST_MS = 2**31 - 1  # that a socket option holds: 24 days
_FULL = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class HttpServer:
    """Connections from a listening socket.

    Args:
      tls: a context for TLS; None is without.
    """

    def __init__(self, connections: Connections, tls: ssl.SSLContext | None = None) -> None:
        self._all = connections
        self._tls = tls
        self._accepting: asyncio.Task[None] | None = None
        self._starting: dict[asyncio.Task[None], None] = {}  # which agree on TLS, the oldest first

    def start(self, listening: socket.socket) -> None:
        """Accept connections from here on."""
        listening.setblocking(False)
        self._accepting = asyncio.ensure_future(self._accept(listening))

    async def close(self, grace_s: float) -> None:
        """Accept no more, close idle connections, and the others when they are answered or the time is over."""
        self._all.stopping = True
        ending = [*self._starting, *([] if self._accepting is None else [self._accepting])]
        for task in ending:
            task.cancel()
        serving = [connection.task for connection in self._all.open]
        for connection in list(self._all.open):
            if connection.idle:
                connection.abort()
        if serving:
            await asyncio.wait(serving, timeout=max(0.1, grace_s))
        for connection in list(self._all.open):
            connection.abort()
        if ending or serving:
            await asyncio.wait([*ending, *serving], timeout=1.0)

    async def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                found, _ = listening.accept()
                found.setblocking(False)
                await self._take(found)
            except BlockingIOError:
                await _readable(listening)
            except OSError as error:  # out of descriptors or memory, or the client has gone meanwhile
                if error.errno in _FULL:
                    self._all.log.write("http", level="warning", message=f"accept: {error.strerror}")
                    self._make_room()
                    await asyncio.sleep(_RETRY_S)
            except Exception as error:
                self._all.log.failure("accept", error)
                await asyncio.sleep(_RETRY_S)

    async def _take(self, found: socket.socket) -> None:
        """Make a connection of a socket, or close it if there is no room."""
        if len(self._all.open) + len(self._starting) >= self._all.limits.connections:
            self._all.metrics.closed.labels("room").inc()
            if not self._make_room():
                found.close()
                return
        if self._tls is None:
            await self._begin(found)
            return
        starting = asyncio.ensure_future(self._begin(found))
        self._starting[starting] = None
        starting.add_done_callback(partial(self._started, found))

    def _started(self, found: socket.socket, starting: asyncio.Task[None]) -> None:
        self._starting.pop(starting, None)
        if starting.cancelled():
            found.close()

    async def _begin(self, found: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        timeout_s = self._all.limits.timeout_s
        seconds = (
            {}
            if self._tls is None
            else {"ssl_handshake_timeout": timeout_s, "ssl_shutdown_timeout": LINGER_S}
        )
        try:
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                milliseconds = max(1, int(min(1000 * timeout_s, _MOST_MS)))
                found.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
            await loop.connect_accepted_socket(lambda: Connection(self._all), found, ssl=self._tls, **seconds)
        except (OSError, MemoryError):  # the client has gone, or speaks no TLS
            found.close()

    def _make_room(self) -> bool:
        """Close the connection that is longest without progress, unless every one has a request under way."""
        starting = next(iter(self._starting), None)
        oldest = next(iter(self._all.yielding), None)
        if starting is not None:
            del self._starting[starting]
            starting.cancel()
        elif oldest is not None:
            oldest.abort()
        return starting is not None or oldest is not None


async def _readable(listening: socket.socket) -> None:
    """Wait for a connection to accept.

    `loop.sock_accept` would lose, and never close, a connection that it accepts in the moment in which it is cancelled.
    """
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(listening, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(listening)
