"""Runs a server: both transports on one event loop, from the sockets to the last answer."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cgnrt._support.reading import open_file
from cgnrt.errors import CgnrtError
from cgnrt.serve.browsers import is_loopback
from cgnrt.serve.connections import Connections
from cgnrt.serve.http import HttpApp
from cgnrt.serve.http_server import HttpServer
from cgnrt.serve.log import Log
from cgnrt.serve.service import Service
from cgnrt.serve.shared_memory import Regions

_POLL_S = 0.01


@dataclass(frozen=True)
class Address:
    """Where the server listens. Port 0 is any free port; None as the gRPC port turns gRPC off.

    Attributes:
      certificate, key: PEM files, for TLS on both ports.
      public: origins (`public_origin`) of reverse proxies before the server.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    grpc_port: int | None = 8001
    certificate: Path | None = None
    key: Path | None = None
    public: tuple[str, ...] = ()


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
    tls = _tls(address)
    regions = Regions(
        allowed=is_loopback(address.host), trusted=service.has_token, most=service.limits.regions
    )
    listening = _listen(address.host, address.port)
    grpc = None
    try:
        bound = Bound(address.host, listening.getsockname()[1], None, address.certificate is not None)

        app = HttpApp(
            service, regions, log=log, pages=pages, loopback=is_loopback(address.host), public=address.public
        )
        connections = Connections(
            app, service.limits, service.under_way, service.turns, metrics=service.metrics, log=log
        )
        http = HttpServer(connections, tls)
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
        service.metrics.gauge(
            "cgnrt_log_lines_left_out", "Lines that the log could not take.", lambda: log.left_out
        )
        with _signals(stop) as stopping, log.libraries():
            http.start(listening)
            log.write(
                "ready", host=bound.host, port=bound.port, grpc_port=bound.grpc_port, model=service.name
            )
            if started is not None:
                started(bound)
            await stopping.wait()
            log.write("stopping", active=service.active())
            service.drain()
            end = time.monotonic() + grace_s
            while service.active() and time.monotonic() < end:
                await asyncio.sleep(_POLL_S)
            if grpc is not None:
                await grpc.stop(1.0)
            await http.close(end - time.monotonic())
    finally:
        listening.close()
        await service.close()
        regions.close()
    log.write("stopped")
    await asyncio.to_thread(log.flush)


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


def _tls(address: Address) -> ssl.SSLContext | None:
    """TLS with the address's certificate and key.

    Raises:
      CgnrtError: they are not a pair.
    """
    if (address.certificate is None) != (address.key is None):
        raise CgnrtError("serve: only one of certificate and key is given, expected both or none.")
    if address.certificate is None or address.key is None:
        return None
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        for path in (address.certificate, address.key):
            open_file(path).close()  # OpenSSL would wait for a FIFO
        found.load_cert_chain(address.certificate, address.key)
    except OSError as error:  # ssl.SSLError is one
        raise CgnrtError(
            f"serve: certificate '{address.certificate}' and key '{address.key}' are not a pair of PEM files ({error})."
        ) from error
    return found
