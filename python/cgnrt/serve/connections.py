"""HTTP connections, each with limits: on time, on memory, and on how many there are.

A connection is one task that reads a request, has it answered, and only then reads the next one. What a client sends
meanwhile stays in its socket, beyond a few KiB that show whether it is still there.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import http
import json
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from cgnrt.serve.http_parser import MOST_HEADER_BYTES, Body, Head, HttpError, read_head
from cgnrt.serve.limits import Limits, UnderWay
from cgnrt.serve.log import Log
from cgnrt.serve.monitoring import Metrics
from cgnrt.serve.protocol import ServeError
from cgnrt.serve.turns import Turns

Buffer = bytes | bytearray | memoryview

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_RECEIVED_BYTES = 1 << 16  # of one call to the system
_AHEAD_BYTES = 1 << 14  # what a client may send ahead before its socket is left alone
_SENT_BYTES = 1 << 17  # of one call to the system; what the socket does not take at once is copied
# So many times the limit is read of a body that is too large, so that its sender gets the refusal.
_READ_AND_DROPPED = 16
LINGER_S = 2.0  # for a client that still sends when it was refused
_PROBES_S = (0.02, 0.1, 0.5, 2.0, 5.0)


class Answer:
    """A status, headers, and a body: JSON, or parts of another kind. With `close` the connection is closed after it."""

    def __init__(
        self,
        body: Any = None,
        *,
        parts: Sequence[Buffer] = (),
        status: int = 200,
        kind: str = "application/json",
        headers: Mapping[str, str] | None = None,
        close: bool = False,
    ) -> None:
        self.parts = list(parts) if body is None else [json.dumps(body).encode()]
        self.status = status
        self.headers = {**({"content-type": kind} if self.parts else {}), **(headers or {})}
        self.close = close

    def head(self, *, keeps: bool) -> bytes:
        """The bytes before the body."""
        lines = [
            f"HTTP/1.1 {self.status} {http.HTTPStatus(self.status).phrase}",
            f"date: {email.utils.formatdate(time.time(), usegmt=True)}",
            *(f"{name}: {value}" for name, value in self.headers.items()),
            f"content-length: {sum(len(part) for part in self.parts)}",
            *([] if keeps else ["connection: close"]),
        ]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")


class Request:
    """A request as the application has it.

    Attributes:
      held: is closed when the answer is sent or the client has gone.
    """

    def __init__(self, head: Head, connection: Connection) -> None:
        self.head = head
        self.held = contextlib.ExitStack()
        self._connection = connection

    def protect(self) -> None:
        """Do not close this connection in favour of a new one."""
        self._connection.protect()

    async def turn(self) -> None:
        """Wait until this request may take a while on the event loop."""
        await self._connection.turn()

    async def body(self) -> bytearray:
        """Read the body, within the limits of its size, of all bodies' memory and of time. It comes with a turn.

        Raises:
          ServeError: a limit is exceeded.
          HttpError: a chunk is malformed.
        """
        return await self._connection.body(self.held)


App = Callable[[Request], Awaitable[Answer]]


class Connections:
    """What all connections of a server share.

    Attributes:
      open: all of them.
      yielding: those that may be closed in favour of a new one, the longest without progress first.
      turns: of the requests, on the event loop.
      received: what a socket has received is copied from here at once.
      stopping: no connection takes another request.
    """

    def __init__(
        self, app: App, limits: Limits, under_way: UnderWay, turns: Turns, *, metrics: Metrics, log: Log
    ) -> None:
        self.app = app
        self.limits = limits
        self.under_way = under_way
        self.turns = turns
        self.metrics = metrics
        self.log = log
        self.open: set[Connection] = set()
        self.yielding: dict[Connection, None] = {}
        self.received = memoryview(bytearray(_RECEIVED_BYTES))
        self.stopping = False
        metrics.gauge("cgnrt_http_connections", "Open HTTP connections.", lambda: len(self.open))


class Connection(asyncio.BufferedProtocol):
    """One connection, and the task that answers its requests.

    Attributes:
      task: ends with the connection.
      idle: whether no request has come in full.
    """

    def __init__(self, connections: Connections) -> None:
        self._all = connections
        self._received = bytearray()
        self._body = Body(0)  # of the present request
        self._answering = False
        self._reads = False  # the body
        self._continues = False  # the client waits for "100 Continue"
        self._old = False
        self._ended = False  # the client sends no more
        self._paused = False
        self._arrived = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._protected = False
        self.idle = True

    # What the event loop calls.

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.set_write_buffer_limits(0)  # so that an answer is sent when writing may go on
        self._all.open.add(self)
        self._all.yielding[self] = None
        self.task = asyncio.ensure_future(self._serve())

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        self.task.cancel()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._all.received

    def buffer_updated(self, nbytes: int) -> None:
        self._received += self._all.received[:nbytes]
        if len(self._received) >= _AHEAD_BYTES and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        self._arrived.set()

    def eof_received(self) -> bool:
        self._ended = True
        self._arrived.set()
        if self._transport.get_extra_info("sslcontext") is not None:
            return False
        if not self.idle and not self._answering and not self._old and self._body.complete:
            # It may wait for its answer, or have gone. Something that is sent to it tells, and clients skip this.
            self._transport.write(_CONTINUE)
            self._probe(list(_PROBES_S))
        return True

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # What others call.

    def protect(self) -> None:
        """Do not close this connection in favour of a new one, until its request is answered."""
        self._protected = True
        self._all.yielding.pop(self, None)

    async def turn(self) -> None:
        await self._all.turns.take()

    def abort(self) -> None:
        """End the connection at once. What is not sent yet is dropped."""
        self._forget()
        self._transport.abort()

    def _close(self) -> None:
        self._forget()
        self._transport.close()

    async def body(self, held: contextlib.ExitStack) -> bytearray:
        """Read the body of the present request."""
        limits, body, found = self._all.limits, self._body, bytearray()
        memory = held.enter_context(self._all.under_way.body())
        size, waited = 0, False
        self._reads = True
        if self._continues and not self._received:
            self._transport.write(_CONTINUE)
        self._continues = False
        try:
            async with asyncio.timeout(limits.timeout_s):
                while True:
                    part = body.take(self._received)
                    size += len(part)
                    if size > limits.body_bytes:
                        found.clear()
                    else:
                        memory.add(len(part))
                        found += part
                    if body.complete or size > _READ_AND_DROPPED * limits.body_bytes:
                        break
                    waited = True
                    await self._more()
        except TimeoutError:
            await self.turn()
            raise ServeError("client_timeout", "read body: it was not sent in time.") from None
        if size > limits.body_bytes:
            raise ServeError(
                "too_large", f"read body: it is too large, expected at most {limits.body_bytes} bytes."
            )
        if waited:  # others may have done so, too
            await self.turn()
        return found

    # One request after another.

    async def _serve(self) -> None:
        try:
            while await self._exchange():
                pass
            await self._linger()
        except HttpError as error:
            with contextlib.suppress(TimeoutError):
                await self._send(Answer({"error": str(error)}, status=error.status), whole=True, keeps=False)
                await self._linger()
        except asyncio.CancelledError:  # the connection is lost
            pass
        except Exception as error:
            self._all.log.failure("http", error)
        finally:
            self._close()

    async def _exchange(self) -> bool:
        """Answer a request. Returns whether another may follow."""
        await asyncio.sleep(0)  # others have their turn, however many requests this client has sent ahead
        head = await self._head()
        if head is None:
            return False
        self._body = Body(head.length)
        self._reads, self._continues, self._old = False, head.continues, head.old
        request = Request(head, self)
        with request.held:
            answer = await self._all.app(request)
            # Where a body was read in vain, or a client still waits for "100 Continue", nobody knows whether it comes.
            lost = not self._body.complete and (self._reads or self._continues)
            keeps = head.keeps and not (answer.close or lost or self._all.stopping)
            if not await self._send(answer, whole=head.method != "HEAD", keeps=keeps):
                return False
        self._progress()
        if keeps:
            keeps = await self._drop(self._all.limits.timeout_s)
        return keeps

    async def _head(self) -> Head | None:
        """The next head; None if none comes."""
        self.idle, self._answering = True, False
        if self._all.stopping:
            return None
        looked = 0
        try:
            async with asyncio.timeout(self._all.limits.timeout_s):
                while True:
                    while self._received.startswith(b"\r\n"):  # some clients end a body so
                        del self._received[:2]
                        looked = 0
                    end = self._received.find(b"\r\n\r\n", max(0, looked - 3))
                    looked = len(self._received)
                    if end > MOST_HEADER_BYTES or (end < 0 and looked > MOST_HEADER_BYTES):
                        raise HttpError(
                            431,
                            f"read headers: they are too large, expected at most {MOST_HEADER_BYTES} bytes.",
                        )
                    if end >= 0:
                        break
                    if looked and not 65 <= self._received[0] <= 90:  # methods are in capitals
                        start = bytes(self._received[:20])
                        raise HttpError(400, f"read request: it begins with {start!r}, expected HTTP/1.1.")
                    if self._ended:
                        return None
                    await self._more()
        except TimeoutError:
            if not self._received:
                return None
            self._all.metrics.closed.labels("slow").inc()
            await self.turn()  # many heads may be late at once
            raise HttpError(408, "read request: its head was not sent in time.") from None
        head = bytes(self._received[:end])
        del self._received[: end + 4]
        self.idle = False
        self._progress()
        return read_head(head)

    async def _send(self, answer: Answer, *, whole: bool, keeps: bool) -> bool:
        """Send an answer. Returns False if the client does not read it in time."""
        self._answering = True
        waiting = answer.head(keeps=keeps)
        try:
            async with asyncio.timeout(self._all.limits.timeout_s):
                for part in answer.parts if whole else ():
                    if len(waiting) + len(part) <= _SENT_BYTES:
                        waiting += part
                        continue
                    await self._write(waiting)
                    waiting = b""
                    for at in range(0, len(part), _SENT_BYTES):
                        await self._write(memoryview(part)[at : at + _SENT_BYTES])
                await self._write(waiting)
        except TimeoutError:
            self._all.metrics.closed.labels("unread").inc()
            self._all.log.write("dropped", reason="the client did not read its answer")
            self.abort()
            return False
        return True

    async def _write(self, data: Buffer) -> None:
        self._transport.write(data)
        await self._writable.wait()

    async def _drop(self, timeout_s: float) -> bool:
        """Read the rest of a body that nobody wanted. Returns whether all of it came."""
        size = 0
        try:
            async with asyncio.timeout(timeout_s):
                while not self._body.complete:
                    size += len(self._body.take(self._received))
                    if size > _READ_AND_DROPPED * self._all.limits.body_bytes:
                        return False
                    if not self._body.complete:
                        await self._more()
        except TimeoutError:
            return False
        return True

    async def _linger(self) -> None:
        """Let the client read the answer: closing a connection on which something arrives destroys what was sent."""
        if self._transport.is_closing() or not self._transport.can_write_eof():
            return
        self._transport.write_eof()
        size = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(LINGER_S, self._all.limits.timeout_s)):
                while not self._ended and size < _READ_AND_DROPPED * self._all.limits.body_bytes:
                    size += len(self._received)
                    self._received.clear()
                    await self._more()

    # Steps.

    async def _more(self) -> None:
        """Wait until something arrives.

        Raises:
          HttpError: the client ends in the middle of a request.
        """
        if self._ended and not self.idle:
            raise HttpError(400, "read body: it ends too early.")
        self._arrived.clear()
        if self._paused and not self._ended:
            self._paused = False
            self._transport.resume_reading()
        await self._arrived.wait()

    def _progress(self) -> None:
        """Be the last to be closed in favour of a new connection."""
        self._all.yielding.pop(self, None)
        self._all.yielding[self] = None

    def _probe(self, waits_s: list[float]) -> None:
        """Find out whether the client has gone: then its system refuses what is sent."""
        if self._answering or self._transport.is_closing():
            return
        if self._transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.abort()
        else:
            wait_s = waits_s.pop(0) if len(waits_s) > 1 else waits_s[0]
            asyncio.get_running_loop().call_later(wait_s, self._probe, waits_s)

    def _forget(self) -> None:
        self._all.open.discard(self)
        self._all.yielding.pop(self, None)
