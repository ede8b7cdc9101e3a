"""The Open Inference Protocol over HTTP, as a bare ASGI application."""

from __future__ import annotations

import asyncio
import contextlib
import json
import zlib
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any

from cgnrt.serve.browsers import HEADERS, check_host, check_origin
from cgnrt.serve.connections import ABORT, MOST_HEADER_BYTES
from cgnrt.serve.http_messages import Buffer, read_infer, read_json, write_infer
from cgnrt.serve.monitoring import CONTENT_TYPE, Log
from cgnrt.serve.protocol import Kind, ServeError
from cgnrt.serve.service import VERSION, Service
from cgnrt.serve.shared_memory import Regions, check_regions

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

STATUS: dict[Kind, int] = {
    "invalid": 400,
    "unauthenticated": 401,
    "not_found": 404,
    "too_large": 413,
    "too_large_head": 431,
    "internal": 500,
    "unavailable": 503,
    "timeout": 504,
    "client_timeout": 408,
}
# So many times the limit is read of a body that is too large, so that its sender gets the refusal.
_READ_AND_DROPPED = 16


class Answer:
    """A status, headers, and a body: JSON, or parts of another kind."""

    def __init__(
        self,
        body: Any = None,
        *,
        parts: Sequence[Buffer] = (),
        status: int = 200,
        kind: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.parts = list(parts) if body is None else [json.dumps(body).encode()]
        self.status = status
        self.headers = {**({"content-type": kind} if self.parts else {}), **(headers or {})}

    async def send(self, send: Send) -> None:
        headers = {**self.headers, "content-length": str(sum(len(part) for part in self.parts))}
        pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": self.status, "headers": pairs})
        for part in self.parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


class ClientGoneError(Exception):
    """The client closed the connection."""


class HttpApp:
    """Answers the requests of NVIDIA's `tritonclient.http`. Errors are JSON.

    Args:
      pages: static files as content type and bytes, by path. They need no token.
      loopback: whether only this machine reaches the server. Requests must then name it as this machine.
    """

    def __init__(
        self,
        service: Service,
        regions: Regions,
        *,
        log: Log | None = None,
        pages: Mapping[str, tuple[str, bytes]] | None = None,
        loopback: bool = False,
    ) -> None:
        self._service = service
        self._loopback = loopback
        self._regions = regions
        self._log = log or Log(None)
        self._pages = dict(pages or {})

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # websockets are refused, lifespan is off
            if scope["type"] == "websocket":
                await send({"type": "websocket.close"})
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        with contextlib.ExitStack() as held:  # until the answer is sent
            await self._respond(scope, headers, receive, send, held)

    async def _respond(
        self,
        scope: Message,
        headers: Mapping[str, str],
        receive: Receive,
        send: Send,
        held: contextlib.ExitStack,
    ) -> None:
        try:
            _check_head(scope)
            answer = await self._answer(scope["method"], scope["path"], headers, receive, held)
        except ServeError as error:
            extra = {"connection": "close"} if error.kind in ("too_large", "too_large_head") else {}
            if error.kind == "unauthenticated":
                extra["www-authenticate"] = "Bearer"
            answer = Answer({"error": str(error)}, status=STATUS[error.kind], headers=extra)
        except ClientGoneError:
            return
        except Exception as error:
            self._log.failure("http", error)
            answer = Answer({"error": "failed in the server. Its log says why."}, status=500)
        try:
            async with asyncio.timeout(self._service.limits.timeout_s):  # for clients that read too slowly
                await answer.send(send)
        except TimeoutError:
            self._log.write("dropped", reason="the client did not read its answer")
            scope["extensions"][ABORT]()  # so that the rest of the answer is not kept
            await _disconnected(receive)

    async def _answer(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        receive: Receive,
        held: contextlib.ExitStack,
    ) -> Answer:
        match [method, *(piece for piece in path.split("/") if piece)]:
            case ["GET" | "HEAD", "v2", "health", "live"]:
                return Answer(status=200 if self._service.live() else 503)
            case ["GET" | "HEAD", "v2", "health", "ready"]:
                return Answer(status=200 if self._service.ready() else 503)
            case ["GET" | "HEAD", *rest] if self._pages and (not rest or rest[0] == "ui"):
                return self._page(path, rest)
        self._service.check_token(headers.get("authorization"))
        if self._loopback and not self._service.has_token:
            check_host(headers.get("host"))
        check_origin(headers.get("origin"), headers.get("host"))
        if method == "POST":  # which may have a body
            self._service.let_in(held)
        match [method, *(piece for piece in path.split("/") if piece)]:
            case ["GET", "metrics"]:
                return Answer(parts=[self._service.metrics.text()], kind=CONTENT_TYPE)
            case ["GET", "v2"]:
                return Answer(self._service.metadata())
            case ["GET", "v2", "models", name, "versions", version, *rest]:
                return self._model(name, version, rest)
            case ["GET", "v2", "models", name, *rest]:
                return self._model(name, "", rest)
            case ["POST", "v2", "models", name, "versions", version, "infer"]:
                return await self._infer(name, version, headers, receive, held)
            case ["POST", "v2", "models", name, "infer"]:
                return await self._infer(name, "", headers, receive, held)
            case ["POST", "v2", "repository", "index"]:
                return Answer(
                    [{"name": self._service.name, "version": VERSION, "state": "READY", "reason": ""}]
                )
            case ["GET", "v2", "systemsharedmemory", "status"]:
                return Answer(self._regions.status(None))
            case ["GET", "v2", "systemsharedmemory", "region", name, "status"]:
                return Answer(self._regions.status(name))
            case ["POST", "v2", "systemsharedmemory", "region", name, "register"]:
                return self._register(name, read_json(await self._body(headers, receive)))
            case ["POST", "v2", "systemsharedmemory", "region", name, "unregister"]:
                self._regions.unregister(name)
                return Answer()
            case ["POST", "v2", "systemsharedmemory", "unregister"]:
                self._regions.unregister(None)
                return Answer()
            case ["GET", "v2", "cudasharedmemory", *rest] if rest[-1:] == ["status"]:
                return Answer([])
        raise ServeError("not_found", f"{method[:20]} {path[:100]}: this path is unknown.")

    def _model(self, name: str, version: str, rest: Sequence[str]) -> Answer:
        match rest:
            case []:
                return Answer(self._service.model_metadata(name, version))
            case ["ready"]:
                self._service.check_model(name, version)
                return Answer(status=200 if self._service.model_ready(name, version) else 503)
            case ["config"]:
                return Answer(self._service.config(name, version))
        raise ServeError("not_found", f"find '{rest[0][:100]}': a model has no such path.")

    def _register(self, name: str, message: Mapping[str, Any]) -> Answer:
        key, offset, size = message.get("key"), message.get("offset", 0), message.get("byte_size")
        self._regions.register(name, key, offset, size)  # type: ignore[arg-type]  # checked there
        return Answer()

    def _page(self, path: str, rest: Sequence[str]) -> Answer:
        if path in ("/", "/ui"):  # relative links need the slash
            return Answer(status=307, headers={"location": "/ui/"})
        found = self._pages.get("/".join(rest[1:]) or "index.html")
        if found is None:
            raise ServeError("not_found", "find page: no page has this name.")
        return Answer(parts=[found[1]], kind=found[0], headers=HEADERS)

    async def _infer(
        self,
        name: str,
        version: str,
        headers: Mapping[str, str],
        receive: Receive,
        held: contextlib.ExitStack,
    ) -> Answer:
        body = await self._body(headers, receive)
        length = headers.get("inference-header-content-length")
        most = max(self._service.limits.images, 3)
        request = read_infer(body, length, name, version, self._regions, most_values=most)
        check_regions(request, self._regions)
        response = await _while_connected(receive, self._service.infer(request, held))
        message, buffers = write_infer(response, request, self._regions)
        if not buffers:
            return Answer(parts=[message])
        return Answer(
            parts=[message, *buffers],
            kind="application/octet-stream",
            headers={"inference-header-content-length": str(len(message))},
        )

    async def _body(self, headers: Mapping[str, str], receive: Receive) -> bytes:
        """Read the body, within its size limit and the time limit of a request."""
        limits = self._service.limits
        too_large = ServeError(
            "too_large", f"read body: it is too large, expected at most {limits.body_bytes} bytes."
        )
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(limits.timeout_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGoneError
                    size += len(message.get("body", b""))
                    if size <= limits.body_bytes:
                        parts.append(message.get("body", b""))
                    elif size > _READ_AND_DROPPED * limits.body_bytes:
                        raise too_large
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            raise ServeError("client_timeout", "read body: it was not sent in time.") from None
        if size > limits.body_bytes:
            raise too_large
        return _decompressed(b"".join(parts), headers.get("content-encoding", "identity"), limits.body_bytes)


def _check_head(scope: Message) -> None:
    size = len(scope["raw_path"]) + len(scope["query_string"])
    size += sum(
        len(name) + len(value) + 4 for name, value in scope["headers"]
    )  # a colon, a space, an end of line
    if size > MOST_HEADER_BYTES:
        raise ServeError(
            "too_large_head", f"read headers: bytes are {size}, expected at most {MOST_HEADER_BYTES}."
        )


async def _disconnected(receive: Receive) -> None:
    """Wait until the connection is closed."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _while_connected(receive: Receive, work: Any) -> Any:
    """The result of `work`, which is cancelled when the client closes the connection."""
    task = asyncio.ensure_future(work)

    gone = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGoneError
        return task.result()
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.wait({task, gone})


def _decompressed(body: bytes, encoding: str, most: int) -> bytes:
    """Decompress a body, to at most `most` bytes."""
    if encoding == "identity":
        return body
    if encoding not in ("gzip", "deflate"):
        raise ServeError(
            "invalid", f"read body: encoding is {encoding[:40]!r}, expected gzip, deflate or identity."
        )
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16 if encoding == "gzip" else zlib.MAX_WBITS)
    try:
        found = unpacker.decompress(body, most + 1)
    except zlib.error as error:
        raise ServeError("invalid", f"read body: it is not {encoding}.") from error
    if len(found) > most:
        raise ServeError(
            "too_large", f"read body: it is too large when decompressed, expected at most {most} bytes."
        )
    if not unpacker.eof:
        raise ServeError("invalid", f"read body: {encoding} ends too early.")
    return found
