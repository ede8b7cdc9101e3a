"""The Open Inference Protocol over gRPC: inference.GRPCInferenceService."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from cgnrt._support.reading import read_file
from cgnrt.errors import CgnrtError
from cgnrt.serve import serve_extra
from cgnrt.serve.grpc_connections import close_connection
from cgnrt.serve.grpc_messages import (
    SERVICE,
    messages,
    output_slices,
    read_infer,
    stream_piece,
    write_infer,
)
from cgnrt.serve.log import Log
from cgnrt.serve.protocol import Kind, ServeError
from cgnrt.serve.service import Service
from cgnrt.serve.shared_memory import Regions, check_regions

with serve_extra("grpc", "google", "google.protobuf"):
    import grpc
    from google.protobuf.message import DecodeError

STATUS: dict[Kind, grpc.StatusCode] = {
    "invalid": grpc.StatusCode.INVALID_ARGUMENT,
    "unauthenticated": grpc.StatusCode.UNAUTHENTICATED,
    "not_found": grpc.StatusCode.NOT_FOUND,
    "too_large": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "internal": grpc.StatusCode.INTERNAL,
    "unavailable": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "timeout": grpc.StatusCode.DEADLINE_EXCEEDED,
    "client_timeout": grpc.StatusCode.DEADLINE_EXCEEDED,
}
_OPEN = ("ServerLive", "ServerReady")  # methods that need no token
_LARGE = ("ModelInfer", "ModelConfig")  # methods whose answers may be large
_FAILED = "failed in the server. Its log says why."
_CONNECTION_CALLS = 64  # at the same time
_MOST_METADATA_BYTES = 1 << 14
_MOST_MS = 2**31 - 1
_LAST_S = 10.0  # for a client to read that its call has ended
_KEEPALIVE_MS = 30_000  # finds clients whose connection is lost
_MOST_MESSAGE_BYTES = 2**31 - 1  # what gRPC can be told


def grpc_server(
    service: Service,
    regions: Regions,
    host: str,
    port: int,
    *,
    certificate: Path | None = None,
    key: Path | None = None,
    log: Log | None = None,
) -> tuple[Any, int]:
    """A `grpc.aio` server in the running event loop, not started, and its port.

    Raises:
      CgnrtError: the port cannot be used.
    """
    log = log or Log(None)
    timeout_ms = max(1, int(min(1000 * service.limits.timeout_s, _MOST_MS)))
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", min(service.limits.body_bytes, _MOST_MESSAGE_BYTES)),
            ("grpc.max_send_message_length", -1),  # the limit is on images
            ("grpc.so_reuseport", 0),  # a port that is taken is an error
            ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
            ("grpc.keepalive_timeout_ms", _KEEPALIVE_MS),
            ("grpc.max_allowed_incoming_connections", service.limits.grpc_connections),
            ("grpc.max_concurrent_streams", _CONNECTION_CALLS),
            ("grpc.max_metadata_size", _MOST_METADATA_BYTES),
            ("grpc.absolute_max_metadata_size", _MOST_METADATA_BYTES),
            ("grpc.server_handshake_timeout_ms", timeout_ms),
            ("grpc.max_connection_idle_ms", timeout_ms),
            # On a fast network gRPC would let clients send more and more that no call has asked for.
            ("grpc.http2.bdp_probe", 0),
        ]
    )
    server.add_generic_rpc_handlers((_handlers(_Calls(service, regions, log), log),))
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        if certificate is None or key is None:
            bound = server.add_insecure_port(address)
        else:
            pair = (read_file(key), read_file(certificate))
            bound = server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
    except RuntimeError as error:
        raise CgnrtError(
            f"serve: port {port} of '{host}' cannot be used for gRPC. Choose another --grpc-port."
        ) from error
    return server, bound


class _Calls:
    """One method for each method of the gRPC service."""

    def __init__(self, service: Service, regions: Regions, log: Log) -> None:
        self._service = service
        self._log = log
        self._regions = regions
        self.timeout_s = service.limits.timeout_s
        self.ending: set[asyncio.Task[None]] = set()  # calls whose clients do not read
        limits = service.limits
        # Each message that is being received may become as large as the limit, and takes about twice that.
        self._receiving = asyncio.Semaphore(max(4, limits.received_bytes // (2 * limits.body_bytes)))

    async def turn(self) -> None:
        """Wait until a call may take a while on the event loop."""
        await self._service.turns.take()

    def check(self, context: Any) -> None:
        """Refuse a call without the token."""
        found = dict(context.invocation_metadata() or ()).get("authorization")
        self._service.check_token(found.decode("latin-1") if isinstance(found, bytes) else found)

    def let_in(self, held: contextlib.ExitStack) -> None:
        """Count a call as under way until `held` is closed."""
        self._service.let_in(held)

    def close_if_unread(self, context: Any) -> None:
        """Close the connection of a call that is answered, if the client does not read the answer in time."""
        timer = asyncio.get_running_loop().call_later(self.timeout_s, self.close, context.peer())
        context.add_done_callback(lambda _: timer.cancel())

    def close(self, peer: str) -> None:
        """Close a connection. gRPC itself keeps what a client does not read for as long as that stays connected."""
        self._log.write("dropped", reason="the client did not read its answer")
        close_connection(peer)

    async def receive(self, context: Any) -> bytes | None:
        """The next message of a call, or None at its end. No more are received at once than there is memory for.

        Raises:
          ServeError: it does not come in time.
        """
        try:
            async with asyncio.timeout(self.timeout_s), self._receiving:
                found = await context.read()
                return None if found is grpc.aio.EOF else bytes(found)
        except TimeoutError:
            await self.turn()  # many may end at once
            raise ServeError("client_timeout", "read request: it was not sent in time.") from None

    def _answer(self, kind: str, /, **fields: Any) -> Any:
        return messages()[f"{kind}Response"](**fields)

    async def server_live(self, request: Any) -> Any:
        return self._answer("ServerLive", live=self._service.live())

    async def server_ready(self, request: Any) -> Any:
        return self._answer("ServerReady", ready=self._service.ready())

    async def model_ready(self, request: Any) -> Any:
        self._service.check_model(request.name, request.version)
        ready = self._service.model_ready(request.name, request.version)
        return self._answer("ModelReady", ready=ready)

    async def server_metadata(self, request: Any) -> Any:
        return self._answer("ServerMetadata", **self._service.metadata())

    async def model_metadata(self, request: Any) -> Any:
        return self._answer("ModelMetadata", **self._service.model_metadata(request.name, request.version))

    async def model_config(self, request: Any) -> Any:
        config = self._service.config(request.name, request.version)
        return self._answer("ModelConfig", config=config)

    async def model_infer(self, message: Any, held: contextlib.ExitStack) -> bytes:
        limits = self._service.limits
        most = limits.values(limits.images)
        request = read_infer(message, self._regions, most_values=most)
        check_regions(request, self._regions)
        response = await self._service.infer(request, held)
        return b"".join(write_infer(response, output_slices(request), self._regions))

    async def stream(self, message: Any) -> AsyncGenerator[bytes]:
        """The pieces of one request; the last has `triton_final_response`."""
        limits = self._service.limits
        most = limits.values(limits.stream_images)
        request = read_infer(message, self._regions, most_values=most)
        check_regions(request, self._regions)
        slices = output_slices(request)
        async with contextlib.aclosing(self._service.stream(request)) as pieces:
            async for piece in pieces:
                marked = replace(piece, parameters={**piece.parameters, "triton_final_response": piece.last})
                yield b"".join(stream_piece(write_infer(marked, slices, self._regions)))

    async def system_shared_memory_status(self, request: Any) -> Any:
        regions = self._regions.status(request.name or None)
        return self._answer("SystemSharedMemoryStatus", regions={found["name"]: found for found in regions})

    async def system_shared_memory_register(self, request: Any) -> Any:
        self._regions.register(request.name, request.key, request.offset, request.byte_size)
        return self._answer("SystemSharedMemoryRegister")

    async def system_shared_memory_unregister(self, request: Any) -> Any:
        self._regions.unregister(request.name or None)
        return self._answer("SystemSharedMemoryUnregister")


def _handlers(calls: _Calls, log: Log) -> Any:
    """The handlers of all methods. A refusal becomes its gRPC status."""
    unary: dict[str, Callable[..., Awaitable[Any]]] = {
        "ServerLive": calls.server_live,
        "ServerReady": calls.server_ready,
        "ModelReady": calls.model_ready,
        "ServerMetadata": calls.server_metadata,
        "ModelMetadata": calls.model_metadata,
        "ModelConfig": calls.model_config,
        "ModelInfer": calls.model_infer,
        "SystemSharedMemoryStatus": calls.system_shared_memory_status,
        "SystemSharedMemoryRegister": calls.system_shared_memory_register,
        "SystemSharedMemoryUnregister": calls.system_shared_memory_unregister,
    }
    handlers = {
        # As for a stream of requests, since then nothing is received before it is asked for.
        name: grpc.stream_unary_rpc_method_handler(
            _unary(name, method, calls, log),
            response_serializer=None  # it is serialized
            if name == "ModelInfer"
            else messages()[f"{name}Response"].SerializeToString,
        )
        for name, method in unary.items()
    }
    handlers["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(_streaming(calls, log))
    return grpc.method_handlers_generic_handler(SERVICE, handlers)


def _unary(
    name: str, method: Callable[..., Awaitable[Any]], calls: _Calls, log: Log
) -> Callable[[Any, Any], Awaitable[Any]]:
    async def call(requests: AsyncIterator[bytes], context: Any) -> Any:
        held = contextlib.ExitStack()
        context.add_done_callback(lambda _: held.close())  # when the answer is sent
        try:
            if name in _OPEN:
                return await method(None)
            await calls.turn()
            calls.check(context)
            if name in _LARGE:
                calls.let_in(held)
            request = await calls.receive(context)
            await calls.turn()
            message = _parsed(f"{name}Request", request or b"")
            answer = await (method(message, held) if name == "ModelInfer" else method(message))
            calls.close_if_unread(context)
            return answer
        except ServeError as error:
            await context.abort(STATUS[error.kind], str(error))
        except MemoryError:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "out of memory. Ask for less.")
        except grpc.aio.AbortError:
            raise
        except Exception as error:
            log.failure("grpc", error)
            await context.abort(grpc.StatusCode.INTERNAL, _FAILED)

    return call


def _streaming(calls: _Calls, log: Log) -> Callable[[AsyncIterator[bytes], Any], AsyncIterator[Any]]:
    async def call(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[Any]:
        """The pieces of each request, in order. A refused request does not end the stream."""
        await calls.turn()
        try:
            calls.check(context)
        except ServeError as error:
            await context.abort(STATUS[error.kind], str(error))
        while True:
            try:
                request = await calls.receive(context)
            except ServeError as error:
                await context.abort(STATUS[error.kind], str(error))
            if request is None:
                return
            await calls.turn()
            identity = ""
            try:
                parsed = _parsed("ModelInferRequest", request)
                identity = parsed.id
                async with contextlib.aclosing(calls.stream(parsed)) as pieces:
                    async for piece in pieces:
                        with _unread_for(calls, context):
                            yield piece
                continue
            except ServeError as error:
                text = str(error)
            except Exception as error:
                log.failure("grpc", error)
                text = _FAILED
            failed = messages()["ModelStreamInferResponse"](error_message=text)
            failed.infer_response.id = identity
            yield failed.SerializeToString()

    return call


@contextlib.contextmanager
def _unread_for(calls: _Calls, context: Any) -> Iterator[None]:
    """End the call if its client does not read in time what the block sends, so that nothing is kept for it."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()

    async def abort() -> None:
        peer = context.peer()
        try:
            async with asyncio.timeout(_LAST_S):
                await context.abort(
                    grpc.StatusCode.DEADLINE_EXCEEDED, "infer: its answer was not read in time."
                )
        except (grpc.aio.AbortError, asyncio.CancelledError):
            pass
        except TimeoutError:
            calls.close(peer)

    def end() -> None:
        if task is not None:
            task.cancel()
        ending = loop.create_task(abort())  # sent after what is on its way
        calls.ending.add(ending)
        ending.add_done_callback(calls.ending.discard)

    timer = loop.call_later(calls.timeout_s, end)
    try:
        yield
    finally:
        timer.cancel()


def _parsed(name: str, data: bytes) -> Any:
    """Parse a message. gRPC itself would report bad bytes as a failure of the server."""
    try:
        return messages()[name].FromString(data)
    except DecodeError as error:
        raise ServeError("invalid", f"read request: the bytes are not a {name}.") from error
