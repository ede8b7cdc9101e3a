"""Connections with limits: uvicorn itself accepts headers of any size, and waits for any client to read."""

from __future__ import annotations

import json
import socket
from typing import Any

from cgnrt.serve import serve_extra

with serve_extra("uvicorn", "httptools"):
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_HEADER_BYTES = 1 << 16
ABORT = "cgnrt.abort"  # in the extensions of a request's scope: a function that ends its connection

_TOO_LARGE = f"read headers: they are too large, expected at most {MOST_HEADER_BYTES} bytes."


class Connection(HttpToolsProtocol):
    """uvicorn's connection, with limits.

    Class attributes:
      unread_s: seconds in which a client must read some of what was sent to it.
    """

    unread_s = 60.0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._pending = 0  # bytes since the last whole head or part of a body
        sock = transport.get_extra_info("socket")
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(1, int(1000 * self.unread_s)))

    def data_received(self, data: bytes) -> None:
        self._pending += len(data)
        super().data_received(data)
        if self._pending > MOST_HEADER_BYTES and not self.transport.is_closing():
            self._refuse()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        abort: Any = self.transport.abort  # the type of extensions has no functions
        self.scope["extensions"] = {ABORT: abort}

    def on_headers_complete(self) -> None:
        self._pending = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._pending = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._pending = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._end(400, "Bad Request", f"read request: {msg}")

    def _refuse(self) -> None:
        """Refuse headers that are too large. If an answer is being sent, only close the connection."""
        if self.cycle is None or self.cycle.response_complete:
            self._end(431, "Request Header Fields Too Large", _TOO_LARGE)
        else:
            self.transport.close()

    def _end(self, status: int, reason: str, message: str) -> None:
        body = json.dumps({"error": message})
        self.transport.write(
            f"HTTP/1.1 {status} {reason}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n{body}".encode()
        )
        self.transport.close()
