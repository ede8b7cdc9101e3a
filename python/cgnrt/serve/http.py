"""The Open Inference Protocol over HTTP: which path does what."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from cgnrt.serve.browsers import HEADERS, check_host, check_origin
from cgnrt.serve.connections import Answer, Buffer, Request
from cgnrt.serve.description import VERSION
from cgnrt.serve.http_messages import json_bytes, read_infer, read_json, write_infer
from cgnrt.serve.http_parser import HttpError
from cgnrt.serve.log import Log
from cgnrt.serve.monitoring import CONTENT_TYPE
from cgnrt.serve.protocol import Kind, ServeError
from cgnrt.serve.service import Service
from cgnrt.serve.shared_memory import REGION, Regions, check_regions

STATUS: dict[Kind, int] = {
    "invalid": 400,
    "unauthenticated": 401,
    "not_found": 404,
    "too_large": 413,
    "internal": 500,
    "unavailable": 503,
    "timeout": 504,
    "client_timeout": 408,
}

_SHORT_BODY = 1 << 14  # bytes that are read or written on the event loop


class HttpApp:
    """Answers the requests of NVIDIA's `tritonclient.http`. Errors are JSON.

    Args:
      pages: static files as content type and bytes, by path. They need no token.
      loopback: whether only this machine reaches the server. Requests must then name it as this machine.
      public: origins (`public_origin`) of reverse proxies before the server.
    """

    def __init__(
        self,
        service: Service,
        regions: Regions,
        *,
        log: Log | None = None,
        pages: Mapping[str, tuple[str, bytes]] | None = None,
        loopback: bool = False,
        public: Sequence[str] = (),
    ) -> None:
        self._service = service
        self._loopback = loopback
        self._public = tuple(public)
        self._regions = regions
        self._log = log or Log(None)
        self._pages = dict(pages or {})

    async def __call__(self, request: Request) -> Answer:
        """Answer a request.

        Raises:
          HttpError: the body is malformed.
        """
        try:
            return await self._answer(request)
        except ServeError as error:
            return Answer(
                {"error": str(error)},
                status=STATUS[error.kind],
                headers={"www-authenticate": "Bearer"} if error.kind == "unauthenticated" else {},
                close=error.kind == "too_large",
            )
        except HttpError:
            raise
        except MemoryError:
            return Answer({"error": "out of memory. Ask for less."}, status=STATUS["unavailable"])
        except Exception as error:
            self._log.failure("http", error)
            return Answer({"error": "failed in the server. Its log says why."}, status=500)

    async def _answer(self, request: Request) -> Answer:
        method, path, headers = request.head.method, request.head.path, request.head.headers
        match [method, *(piece for piece in path.split("/") if piece)]:
            case ["GET" | "HEAD", "v2", "health", "live"]:
                return Answer(status=200 if self._service.live() else 503)
            case ["GET" | "HEAD", "v2", "health", "ready"]:
                return Answer(status=200 if self._service.ready() else 503)
            case ["GET" | "HEAD", *rest] if self._pages and (not rest or rest[0] == "ui"):
                return self._page(path, rest)
        await request.turn()
        self._service.check_token(headers.get("authorization"))
        if self._loopback and not self._service.has_token:
            check_host(headers.get("host"), self._public)
        check_origin(headers.get("origin"), headers.get("host"), self._public)
        if method == "POST":  # which may have a body
            self._service.let_in(request.held)
            request.protect()
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
                return await self._infer(name, version, request)
            case ["POST", "v2", "models", name, "infer"]:
                return await self._infer(name, "", request)
            case ["POST", "v2", "repository", "index"]:
                return Answer(
                    [{"name": self._service.name, "version": VERSION, "state": "READY", "reason": ""}]
                )
            case ["GET", "v2", "systemsharedmemory", "status"]:
                return Answer(self._regions.status(None))
            case ["GET", "v2", "systemsharedmemory", "region", name, "status"]:
                return Answer(self._regions.status(name))
            case ["POST", "v2", "systemsharedmemory", "region", name, "register"]:
                return self._register(name, read_json(await self._body(request)))
            case ["POST", "v2", "systemsharedmemory", "region", name, "unregister"]:
                self._regions.unregister(name)
                return Answer()
            case ["POST", "v2", "systemsharedmemory", "unregister"]:
                self._regions.unregister(None)
                return Answer()
            case ["GET", "v2", "cudasharedmemory", *rest] if rest[-1:] == ["status"]:
                return Answer([])
        raise ServeError(
            "not_found",
            f"{method[:20]} {path[:100]}: this path is unknown. "
            f"See /v2/models/{self._service.name} for the model, and send requests to its /infer.",
        )

    def _model(self, name: str, version: str, rest: Sequence[str]) -> Answer:
        match rest:
            case []:
                return Answer(self._service.model_metadata(name, version))
            case ["ready"]:
                self._service.check_model(name, version)
                return Answer(status=200 if self._service.model_ready(name, version) else 503)
            case ["config"]:
                return Answer(parts=[self._service.config_json(name, version)])
        raise ServeError("not_found", f"find '{rest[0][:100]}': a model has no such path.")

    def _register(self, name: str, message: Mapping[str, Any]) -> Answer:
        key, offset, size = message.get("key"), message.get("offset", 0), message.get("byte_size")
        self._regions.register(name, key, offset, size)  # type: ignore[arg-type]  # checked there
        return Answer()

    def _page(self, path: str, rest: Sequence[str]) -> Answer:
        if path in (
            "/",
            "/ui",
        ):  # relative links need the slash; a proxy may have taken a part of the path away
            return Answer(status=307, headers={"location": "ui/"})
        found = self._pages.get("/".join(rest[1:]) or "index.html")
        if found is None:
            raise ServeError("not_found", "find page: no page has this name.")
        return Answer(parts=[found[1]], kind=found[0], headers=HEADERS)

    async def _infer(self, name: str, version: str, request: Request) -> Answer:
        body = await self._body(request)
        length = request.head.headers.get("inference-header-content-length")
        limits = self._service.limits
        most = limits.values(limits.images)
        read = partial(read_infer, body, length, name, version, self._regions, most_values=most)
        asked = await self._service.aside(read) if len(body) > _SHORT_BODY else read()
        check_regions(asked, self._regions)
        response = await self._service.infer(asked, request.held)
        write = partial(write_infer, response, asked, self._regions)
        text_bytes = json_bytes(response, asked)
        if text_bytes > _SHORT_BODY or any(REGION in output.parameters for output in asked.outputs):
            request.held.enter_context(self._service.under_way.answer(text_bytes))
            message, buffers = await self._service.aside(write)
        else:
            message, buffers = write()
        if not buffers:
            return Answer(parts=[message])
        return Answer(
            parts=[message, *buffers],
            kind="application/octet-stream",
            headers={"inference-header-content-length": str(len(message))},
        )

    async def _body(self, request: Request) -> Buffer:
        body = await request.body()
        encoding = request.head.headers.get("content-encoding", "identity")
        if encoding == "identity":
            return body
        return await self._service.aside(
            partial(_decompressed, body, encoding, self._service.limits.body_bytes)
        )


def _decompressed(body: Buffer, encoding: str, most: int) -> Buffer:
    """Decompress a body, to at most `most` bytes."""
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
