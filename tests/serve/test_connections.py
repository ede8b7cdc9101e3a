"""Clients that speak HTTP in ways that only few do, and those that mean harm."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest
from serving import LIVE, Gate, Running, answers, connected, generator, running, until, wait_for_images

from cgnrt.serve.connections import Connections
from cgnrt.serve.http import HttpApp
from cgnrt.serve.http_server import HttpServer
from cgnrt.serve.limits import Limits
from cgnrt.serve.log import Log
from cgnrt.serve.service import Service
from cgnrt.serve.shared_memory import Regions

TLS = Path(__file__).parent / "tls"


def post(count: int, *lines: str, **parameters: object) -> tuple[bytes, bytes]:
    """Head and body of a request."""
    body = json.dumps({"parameters": {"count": count, **parameters}}).encode()
    head = ["POST /v2/models/v2/infer HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *lines]
    return "\r\n".join([*head, "", ""]).encode(), body


def rest(connection: socket.socket) -> bytes:
    """What comes until the server closes."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)


def images(body: bytes) -> int:
    return int(json.loads(body)["outputs"][0]["shape"][0])


@pytest.mark.parametrize("upgrade", ["h2c", "x", "websocket"])
def test_an_upgrade_that_is_not_taken_keeps_its_body(server: Running, upgrade: str) -> None:
    head, body = post(
        3, f"Upgrade: {upgrade}", "Connection: Upgrade", "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA"
    )
    with connected(server) as connection:
        connection.sendall(head)
        time.sleep(0.05)
        connection.sendall(body)
        ((status, content),) = answers(connection, 1)
        assert (status, images(content)) == (200, 3)
        connection.sendall(LIVE)
        assert answers(connection, 1) == [(200, b"")]


def test_a_body_is_never_a_request(server: Running) -> None:
    head, _ = post(3, "Upgrade: x")
    inner = LIVE[: int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])]
    with connected(server) as connection:
        connection.sendall(head)
        time.sleep(0.05)
        connection.sendall(inner.ljust(len(post(3)[1])) + LIVE)
        (first, second) = answers(connection, 2)
        assert (first[0], second) == (400, (200, b""))


def test_trailers_are_not_headers(golden_plan: Path) -> None:
    with (
        running(Service(generator(golden_plan), "v2", token="s3cret")) as server,
        connected(server) as connection,
    ):
        _, body = post(1)
        head = "POST /v2/models/v2/infer HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
        for line in ("", "Authorization: Bearer s3cret\r\n"):
            chunks = b"%x\r\n%b\r\n0\r\nAuthorization: Bearer s3cret\r\nHost: evil.example\r\n\r\n" % (
                len(body),
                body,
            )
            connection.sendall(f"{head}{line}\r\n".encode() + chunks)
        assert [status for status, _ in answers(connection, 2)] == [401, 200]


def test_requests_that_are_sent_ahead_are_answered_in_order(server: Running) -> None:
    with connected(server) as connection:
        connection.sendall(b"".join(head + body for head, body in (post(n) for n in (3, 1, 2))) + LIVE)
        found = answers(connection, 4)
        assert [images(body) for _, body in found[:3]] == [3, 1, 2]
        assert found[3] == (200, b"")


def test_whoever_stops_sending_is_answered(golden_plan: Path, limits: Limits) -> None:
    shared, gate = generator(golden_plan), Gate()
    gate.hold(shared)
    with running(Service(shared, "v2", limits=limits)) as server, connected(server) as connection:
        connection.sendall(b"".join(post(2)))
        connection.shutdown(socket.SHUT_WR)
        gate.wait()
        time.sleep(0.3)  # it is asked meanwhile whether it has gone
        gate.open.set()
        found = answers(connection, 2)
        assert [status for status, _ in found] == [100, 200]
        assert rest(connection) == b""


def test_an_old_client_gets_nothing_before_its_answer(golden_plan: Path, limits: Limits) -> None:
    shared, gate = generator(golden_plan), Gate()
    gate.hold(shared)
    with running(Service(shared, "v2", limits=limits)) as server, connected(server) as connection:
        connection.sendall(b"".join(post(2)).replace(b"HTTP/1.1", b"HTTP/1.0"))
        connection.shutdown(socket.SHUT_WR)
        gate.wait()
        time.sleep(0.1)
        gate.open.set()
        assert [status for status, _ in answers(connection, 1)] == [200]


def test_continue(server: Running) -> None:
    head, body = post(1, "Expect: 100-continue")
    with connected(server) as connection:
        connection.sendall(head)
        assert answers(connection, 1) == [(100, b"")]
        connection.sendall(body)
        assert answers(connection, 1)[0][0] == 200
        connection.sendall(head.replace(b"/infer", b"/none"))
        assert answers(connection, 1)[0][0] == 404
        assert rest(connection) == b""


def test_head_has_no_body(server: Running) -> None:
    with connected(server) as connection:
        connection.sendall(LIVE.replace(b"GET /v2/health/live", b"HEAD /ui/"))
        found = connection.recv(1 << 16)
        assert found.startswith(b"HTTP/1.1 200 OK\r\n")
        assert found.endswith(b"\r\n\r\n")
        assert b"content-length: 0" not in found


@pytest.mark.parametrize(
    "begun",
    [b"G", LIVE[:-2], b"\r\n" * 10, b"".join(post(1))[:-1], post(1, "Transfer-Encoding: x")[0][:-2]],
)
def test_what_is_not_sent_in_time(golden_plan: Path, limits: Limits, begun: bytes) -> None:
    limits = replace(limits, timeout_s=0.3)
    with (
        running(Service(generator(golden_plan), "v2", limits=limits)) as server,
        connected(server) as connection,
    ):
        for byte in begun:
            connection.sendall(bytes([byte]))
        answer = rest(connection)
        assert answer.startswith(b"HTTP/1.1 408 Request Timeout") or not begun.strip()
        assert b"connection: close" in answer.lower() or not begun.strip()


@pytest.mark.parametrize("tls", [False, True])
def test_more_connections_than_the_limit(golden_plan: Path, limits: Limits, tls: bool) -> None:
    limits = replace(limits, connections=20, timeout_s=30)
    pair = {"certificate": TLS / "certificate.pem", "key": TLS / "key.pem"} if tls else {}
    with (
        running(Service(generator(golden_plan), "v2", limits=limits), **pair) as server,
        contextlib.ExitStack() as held,
    ):
        for _ in range(100):
            held.enter_context(connected(server)).sendall(b"GET /v2" if not tls else b"\x16\x03\x01")
        context = ssl.create_default_context(cafile=TLS / "certificate.pem") if tls else None
        scheme = "https" if tls else "http"
        address = f"{scheme}://localhost:{server.bound.port}/v2/health/live"
        with urllib.request.urlopen(address, timeout=10, context=context) as answer:
            assert answer.status == 200
        assert server.service.metrics.registry.get_sample_value("cgnrt_http_connections") <= 20
        assert closed(server, "room") >= 80


def closed(server: Running, reason: str) -> float:
    registry = server.service.metrics.registry
    return registry.get_sample_value("cgnrt_closed_connections_total", {"reason": reason}) or 0


def test_a_request_under_way_is_not_given_up_for_connections(golden_plan: Path, limits: Limits) -> None:
    shared, gate = generator(golden_plan), Gate()
    gate.hold(shared)
    limits = replace(limits, connections=4, timeout_s=30)
    with (
        running(Service(shared, "v2", limits=limits)) as server,
        connected(server) as asking,
        contextlib.ExitStack() as held,
    ):
        asking.sendall(b"".join(post(2)))
        gate.wait()
        for _ in range(20):
            held.enter_context(connected(server)).sendall(b"GET")
        until(lambda: closed(server, "room") >= 17)
        gate.open.set()
        assert [status for status, _ in answers(asking, 1)] == [200]


def test_answers_that_are_sent_ahead_of_reading(golden_plan: Path, limits: Limits) -> None:
    """Not even the last one of several keeps its memory or its place."""
    limits = replace(limits, images=20_000, batch=4096, queue=100_000, timeout_s=1.0, requests=3)
    with (
        running(Service(generator(golden_plan), "v2", limits=limits)) as server,
        contextlib.ExitStack() as held,
    ):
        wait_for_images(server.service)
        for _ in range(3):
            connection = held.enter_context(connected(server, receive_bytes=4096))
            connection.sendall(b"".join(post(20_000, binary_data_output=True)) * 3)
        until(lambda: closed(server, "unread") == 3, 30)
        until(lambda: server.service.metrics.registry.get_sample_value("cgnrt_answer_bytes") == 0)
        with connected(server) as connection:
            connection.sendall(b"".join(post(1)))
            assert answers(connection, 1)[0][0] == 200


def test_memory_of_bodies_is_limited(golden_plan: Path, limits: Limits) -> None:
    limits = replace(limits, received_bytes=25_000)
    with (
        running(Service(generator(golden_plan), "v2", limits=limits)) as server,
        contextlib.ExitStack() as held,
    ):
        head = post(1)[0].replace(b"Content-Length: 28", b"Content-Length: 9999")
        for _ in range(2):
            held.enter_context(connected(server)).sendall(head + b" " * 9000)
        with connected(server) as connection:
            until(lambda: server.service.under_way.count("bytes of bodies") == 18_000)
            connection.sendall(head + b" " * 9000)
            status, body = answers(connection, 1)[0]
            assert (status, b"bytes of bodies under way are 18000" in body) == (503, True)
        with connected(server) as connection:
            connection.sendall(b"".join(post(1)))
            assert answers(connection, 1)[0][0] == 200


def test_many_requests_of_one_client_do_not_hold_up_others(server: Running) -> None:
    with connected(server) as flooding, connected(server) as connection:
        flooding.sendall(LIVE * 5000)
        connection.sendall(LIVE)
        assert answers(connection, 1) == [(200, b"")]
        assert len(answers(flooding, 5000)) == 5000


def test_clients_that_go_in_any_state(server: Running) -> None:
    head, body = post(2)
    for begun in (
        b"",
        b"G",
        head,
        head + body[:3],
        head + body,
        (head + body) * 3,
        LIVE * 100,
        b"\0",
        LIVE[:-4],
    ):
        with connected(server) as connection:
            connection.sendall(begun)
        with connected(server) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # resets
            connection.sendall(begun)
    gauge = server.service.metrics.registry.get_sample_value
    until(lambda: gauge("cgnrt_http_connections") == 0)
    assert gauge("cgnrt_active_requests") == 0
    assert not server.events("failure")


@pytest.mark.parametrize("turns", range(5))
def test_a_connection_that_comes_while_the_server_stops_is_closed(golden_plan: Path, turns: int) -> None:
    """However many turns of the event loop lie between: the client sees it closed, and no socket is lost."""
    service = Service(generator(golden_plan), "v2")
    app = HttpApp(service, Regions(allowed=False, trusted=False, most=1))
    shared = Connections(
        app, service.limits, service.under_way, service.turns, metrics=service.metrics, log=Log(None)
    )

    async def live() -> socket.socket:
        server = HttpServer(shared)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            server.start(listening)
            await asyncio.sleep(0.01)  # it waits for a connection
            client = socket.create_connection(listening.getsockname(), timeout=10)
            for _ in range(turns):
                await asyncio.sleep(0)
            await server.close(0)
        await service.close()
        return client

    with asyncio.run(live()) as client:
        assert rest(client) == b""
