"""Runs a server: both transports on one event loop, from the sockets to the last answer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import ssl
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cgnrt._support.reading import open_file
from cgnrt.errors import CgnrtError
from cgnrt.serve import serve_extra
from cgnrt.serve.browsers import is_loopback
from cgnrt.serve.connections import Connection
from cgnrt.serve.http import HttpApp
from cgnrt.serve.monitoring import Log
from cgnrt.serve.service import Service
from cgnrt.serve.shared_memory import Regions

with serve_extra("uvicorn"):
    import uvicorn

_POLL_S = 0.01


@dataclass(frozen=True)
class Address:
    """Where the server listens. Port 0 is any free port; None as the gRPC port turns gRPC off.

    Attributes:
      certificate, key: PEM files, for TLS on both ports.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    grpc_port: int | None = 8001
    certificate: Path | None = None
    key: Path | None = None


@dataclass(frozen=True)
class Bound:
    """Where a running server listens."""

    host: str
    port: int
    grpc_port: int | None
    tls: bool


async def serve(
    service: Service,
    address: Address,
    *,
    log: Log | None = None,
    pages: Mapping[str, tuple[str, bytes]] | None = None,
    started: Callable[[Bound], object] | None = None,
    stop: asyncio.Event | None = None,
    grace_s: float = 30.0,
) -> None:
    """Serve until SIGTERM, SIGINT or `stop`; then finish the accepted requests, for at most `grace_s`.

    A second signal ends the process at once.

    Args:
      pages: static files for `HttpApp`.
      started: called when the server accepts requests.
      stop: stops the server in place of signals, whose handlers then stay as they are.
    Raises:
      CgnrtError: a port cannot be used, or the certificate and key are not a pair.
    """
    log = log or Log(None)
    _check_tls(address)
    regions = Regions(allowed=is_loopback(address.host))
    listening = _listen(address.host, address.port)
    grpc = None
    try:
        bound = Bound(address.host, listening.getsockname()[1], None, address.certificate is not None)

        class Bounded(Connection):
            unread_s = service.limits.timeout_s

        config = uvicorn.Config(
            HttpApp(service, regions, log=log, pages=pages, loopback=is_loopback(address.host)),
            http=Bounded,
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            ssl_certfile=address.certificate,
            ssl_keyfile=address.key,
            timeout_graceful_shutdown=int(grace_s),
        )
        server = _Server(config)
        if address.grpc_port is not None:
            from cgnrt.serve.grpc import grpc_server

            grpc, grpc_port = grpc_server(
                service,
                regions,
                address.host,
                address.grpc_port,
                certificate=address.certificate,
                key=address.key,
                log=log,
            )
            await grpc.start()
            bound = Bound(bound.host, bound.port, grpc_port, bound.tls)
        with _signals(stop) as stopping, _uvicorn_logs_to(log):
            running = asyncio.ensure_future(server.serve(sockets=[listening]))
            while not server.started and not running.done():
                await asyncio.sleep(_POLL_S)
            log.write(
                "ready", host=bound.host, port=bound.port, grpc_port=bound.grpc_port, model=service.name
            )
            if started is not None:
                started(bound)
            asked = asyncio.ensure_future(stopping.wait())
            await asyncio.wait({running, asked}, return_when=asyncio.FIRST_COMPLETED)
            asked.cancel()
            log.write("stopping", active=service.active())
            service.drain()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    while service.active():
                        await asyncio.sleep(_POLL_S)
            if grpc is not None:
                await grpc.stop(1.0)
            server.should_exit = True
            await running
    finally:
        listening.close()
        await service.close()
        regions.close()
    log.write("stopped")


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: `serve` has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Handler(logging.Handler):
    """Writes uvicorn's warnings to the log."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if record.exc_info is not None and record.exc_info[1] is not None:
            message += "".join(traceback.format_exception(record.exc_info[1]))
        self._log.write("http", level=record.levelname.lower(), message=message)


@contextlib.contextmanager
def _uvicorn_logs_to(log: Log) -> Iterator[None]:
    logger, handler = logging.getLogger("uvicorn"), _Handler(log)
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


@contextlib.contextmanager
def _signals(stop: asyncio.Event | None) -> Iterator[asyncio.Event]:
    """An event that SIGTERM and SIGINT set; `stop` if it is given."""
    if stop is not None:
        yield stop
        return
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)}

    def stop_once() -> None:
        stopping.set()
        for signum in before:  # the next signal ends the process
            loop.remove_signal_handler(signum)
            signal.signal(signum, signal.SIG_DFL)

    for signum in before:
        loop.add_signal_handler(signum, stop_once)
    try:
        yield stopping
    finally:
        for signum, handler in before.items():
            loop.remove_signal_handler(signum)
            signal.signal(signum, handler)


def _listen(host: str, port: int) -> socket.socket:
    """A bound socket.

    Raises:
      CgnrtError: the address cannot be used.
    """
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=socket.AI_PASSIVE
        )[0]
        # The protocol is named because asyncio then sends small answers at once (TCP_NODELAY).
        found = socket.socket(family, kind, protocol)
        try:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind(where)
            found.listen(1024)
        except BaseException:
            found.close()
            raise
        return found
    except (OSError, OverflowError) as error:
        raise CgnrtError(
            f"serve: port {port} of '{host}' cannot be used ({error}). Choose another --port."
        ) from error


def _check_tls(address: Address) -> None:
    """Refuse a certificate and a key that are not a pair."""
    if (address.certificate is None) != (address.key is None):
        raise CgnrtError("serve: only one of certificate and key is given, expected both or none.")
    if address.certificate is None or address.key is None:
        return
    try:
        for path in (address.certificate, address.key):
            open_file(path).close()  # OpenSSL would wait for a FIFO
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(address.certificate, address.key)
    except OSError as error:  # ssl.SSLError is one
        raise CgnrtError(
            f"serve: certificate '{address.certificate}' and key '{address.key}' are not a pair of PEM files ({error})."
        ) from error
