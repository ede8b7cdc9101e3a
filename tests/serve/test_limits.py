"""Too much, too slow, and clients that hang up: refused at once, and everybody else is answered."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from serving import Gate, Running, generator, running, until, wait_for_images

from cgnrt.serve.limits import Limits
from cgnrt.serve.service import Service


@contextlib.contextmanager
def gated(plan: Path, limits: Limits) -> Iterator[tuple[Running, Gate]]:
    """A server whose engine waits for the gate."""
    shared, gate = generator(plan), Gate()
    gate.hold(shared)
    with running(Service(shared, "v2", limits=limits)) as server:
        try:
            yield server, gate
        finally:
            gate.open.set()


def ask(server: Running, count: int, **parameters: Any) -> tuple[int, dict[str, Any], float]:
    """Status, JSON and seconds of a request."""
    body = json.dumps({"inputs": [], "parameters": {"count": count, **parameters}}).encode()
    started = time.monotonic()
    try:
        with urllib.request.urlopen(f"http://{server.http}/v2/models/v2/infer", body, timeout=30) as answer:
            found = answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        found = error.code, json.load(error)
    return *found, time.monotonic() - started


class Asking(threading.Thread):
    """A request in a thread of its own."""

    def __init__(self, server: Running, count: int, **parameters: Any) -> None:
        super().__init__()
        self._arguments = (server, count, parameters)
        self.answer: tuple[int, dict[str, Any], float] | None = None
        self.start()

    def run(self) -> None:
        server, count, parameters = self._arguments
        self.answer = ask(server, count, **parameters)

    def result(self) -> tuple[int, dict[str, Any]]:
        self.join(30)
        assert self.answer is not None
        return self.answer[:2]


def test_over_the_queue_limit_it_refuses_at_once(golden_plan: Path, limits: Limits) -> None:
    with gated(golden_plan, limits) as (server, gate):
        first = Asking(server, 1)
        gate.wait()
        waiting = []
        for k in range(2):  # two turns of 8 images wait, however long the second is
            waiting.append(Asking(server, (8, 64)[k]))
            until(lambda: server.service.active() == 1 + len(waiting))
        status, message, seconds = ask(server, 1)
        assert (status, seconds < 1) == (503, True)
        assert "images that wait are 16, expected at most 16" in message["error"]
        gate.open.set()
        assert first.result()[0] == 200
        assert [asking.result()[0] for asking in waiting] == [200, 200]
        assert ask(server, 1)[0] == 200
    assert server.outcomes("unavailable") == 1


def test_a_queue_that_was_full_is_kept_short(golden_plan: Path, limits: Limits) -> None:
    with gated(golden_plan, replace(limits, queue=24)) as (server, gate):
        asked = [Asking(server, 1)]
        gate.wait()
        for _ in range(3):
            asked.append(Asking(server, 8))
            until(lambda: server.service.active() == len(asked))
        assert "expected at most 24" in ask(server, 1)[1]["error"]
        assert "expected at most 16" in ask(server, 1)[1]["error"]
        gate.open.set()
        assert [asking.result()[0] for asking in asked] == [200] * 4


def test_time_runs_out(golden_plan: Path, limits: Limits) -> None:
    with gated(golden_plan, replace(limits, timeout_s=0.3)) as (server, gate):
        for parameters, expected, shown in (
            ({"timeout": 1}, 408, "1e-06 s"),
            ({"timeout": 50_000}, 408, "0.05 s"),
            ({}, 504, "0.3 s"),
            ({"timeout": 10**9}, 504, "0.3 s"),
        ):
            status, message, _ = ask(server, 2, **parameters)
            assert status == expected
            assert shown in message["error"]
        gate.open.set()
        until(lambda: ask(server, 2)[0] == 200)
    assert server.outcomes("timeout") >= 2
    assert server.outcomes("client_timeout") >= 2


@pytest.mark.parametrize("timeout", [-1, 0.5, "soon", True])
def test_a_timeout_is_microseconds(server: Running, timeout: Any) -> None:
    status, message, _ = ask(server, 1, timeout=timeout)
    assert (status, "timeout is" in message["error"]) == (400, True)


def connect(server: Running, head: str, body: bytes = b"") -> socket.socket:
    """A connection on which a request was begun."""
    found = socket.create_connection(("127.0.0.1", server.bound.port), timeout=10)
    try:
        found.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
    except OSError:
        found.close()
        raise
    return found


def read(connection: socket.socket) -> bytes:
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            parts.append(part)
    connection.close()
    return b"".join(parts)


POST = "POST /v2/models/v2/infer HTTP/1.1\nHost: localhost\n"


def test_who_hangs_up_is_forgotten(golden_plan: Path, limits: Limits) -> None:
    body = json.dumps({"parameters": {"count": 8}}).encode()
    with gated(golden_plan, limits) as (server, gate):
        first = connect(server, POST + f"Content-Length: {len(body)}", body)
        gate.wait()
        second = connect(server, POST + f"Content-Length: {len(body)}", body)
        until(lambda: server.service.active() == 2)
        other = Asking(server, 8)
        until(lambda: server.service.active() == 3)
        first.close()
        second.close()
        until(lambda: server.service.active() == 1)
        gate.open.set()
        assert other.result()[0] == 200
        assert gate.calls == [[8], [8]]  # nobody made what the second had asked for
    assert server.outcomes("cancelled") == 2
    assert not server.events("failure")


def test_who_hangs_up_in_the_middle_of_a_body(server: Running) -> None:
    connect(server, POST + "Content-Length: 1000", b'{"inputs"').close()
    assert ask(server, 1)[0] == 200


def test_a_body_that_does_not_come(golden_plan: Path, limits: Limits) -> None:
    with running(Service(generator(golden_plan), "v2", limits=replace(limits, timeout_s=0.2))) as server:
        answer = read(connect(server, POST + "Connection: close\nContent-Length: 1000", b"{"))
        assert answer.startswith(b"HTTP/1.1 408")
        assert ask(server, 0)[0] == 200


@pytest.mark.parametrize("size", [10_001, 100_000, 1_000_000])
@pytest.mark.parametrize("chunked", [True, False])
def test_too_large_a_body(golden_plan: Path, limits: Limits, size: int, chunked: bool) -> None:
    with running(Service(generator(golden_plan), "v2", limits=limits)) as server:
        if chunked:
            body = f"{size:x}\r\n".encode() + b" " * size + b"\r\n0\r\n\r\n"
            connection = connect(server, POST + "Transfer-Encoding: chunked")
        else:
            body = b" " * size
            connection = connect(server, POST + f"Content-Length: {size}")
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(body)
        answer = read(connection)
        if size <= 16 * limits.body_bytes:  # a larger one's sender may only see the connection go
            assert answer.startswith(b"HTTP/1.1 413")
            assert b"expected at most 10000 bytes" in answer
        assert ask(server, 1)[0] == 200


HEAD = "GET /v2 HTTP/1.1\nHost: localhost\n"


@pytest.mark.parametrize("shape", ["one", "many", "path"])
def test_too_large_headers(server: Running, shape: str) -> None:
    head = {
        "one": HEAD + "X: " + "x" * 70_000,
        "many": HEAD + "X: x\n" * 20_000 + "Y: y",
        "path": HEAD.replace("v2", "v2/" + "x" * 60_000) + "X: " + "x" * 10_000,
    }[shape]
    answer = read(connect(server, head + "\nConnection: close"))
    assert answer.startswith(b"HTTP/1.1 431")
    assert b"expected at most 65536" in answer
    assert ask(server, 1)[0] == 200


def test_what_is_no_http(server: Running) -> None:
    answer = read(connect(server, "no HTTP"))
    assert answer.startswith(b"HTTP/1.1 400 Bad Request")
    assert "begins with b'no HTTP'" in json.loads(answer.partition(b"\r\n\r\n")[2])["error"]


@pytest.mark.parametrize(
    "begun",
    [HEAD + "X: ", HEAD + "X: x\nY: ", POST + "Transfer-Encoding: chunked\n\n1\n \n0\nX: ", "GET /v2/"],
)
def test_headers_without_end(server: Running, begun: str) -> None:
    connection = socket.create_connection(("127.0.0.1", server.bound.port), timeout=10)
    connection.sendall(begun.replace("\n", "\r\n").encode())
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for _ in range(1000):
            connection.sendall(b"x" * 100_000)
        pytest.fail("the server took 100 MB of headers")
    connection.close()
    assert ask(server, 1)[0] == 200


def test_large_bodies_are_no_headers(golden_plan: Path, limits: Limits) -> None:
    body = json.dumps({"parameters": {"count": 1}}).encode() + b" " * 900_000
    with running(Service(generator(golden_plan), "v2", limits=replace(limits, body_bytes=1 << 20))) as server:
        head = POST + f"Connection: close\nContent-Length: {len(body)}"
        assert read(connect(server, head, body)).startswith(b"HTTP/1.1 200")
        connection = connect(server, POST + "Connection: close\nTransfer-Encoding: chunked")
        for at in range(0, len(body), 100):
            connection.sendall(b"64\r\n" + body[at : at + 100].ljust(100) + b"\r\n")
        connection.sendall(b"0\r\n\r\n")
        assert read(connection).startswith(b"HTTP/1.1 200")


def test_json_is_for_few_values(server: Running) -> None:
    status, message, _ = ask(server, 8192)
    assert (status, "Ask for binary data" in message["error"]) == (413, True)


def test_a_few_requests_at_once(golden_plan: Path, limits: Limits) -> None:
    with running(Service(generator(golden_plan), "v2", limits=replace(limits, requests=2))) as server:
        begun = [connect(server, POST + "Content-Length: 100") for _ in range(2)]
        until(lambda: ask(server, 1)[0] == 503)
        status, message, seconds = ask(server, 1)
        assert (status, seconds < 1) == (503, True)
        assert "requests under way are 2, expected at most 2" in message["error"]
        for path in ("/v2/health/live", "/v2/models/v2", "/metrics"):
            assert urllib.request.urlopen(f"http://{server.http}{path}").status == 200
        for connection in begun:
            connection.close()
        until(lambda: ask(server, 1)[0] == 200)
        assert server.outcomes("unavailable") >= 2


def test_answers_that_are_not_read_take_no_more_memory(golden_plan: Path, limits: Limits) -> None:
    limits = replace(
        limits, images=100_000, batch=4096, queue=100_000, answer_bytes=12_000_000, timeout_s=1.0
    )
    body = json.dumps({"parameters": {"count": 50_000, "binary_data_output": True}}).encode()
    held = 50_000 * (8 * 8 * 3 + 3 * 8)
    with running(Service(generator(golden_plan), "v2", limits=limits)) as server:
        wait_for_images(server.service)
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", server.bound.port))
        connection.sendall(f"{POST}Content-Length: {len(body)}\n\n".replace("\n", "\r\n").encode() + body)
        until(lambda: server.outcomes("ok") == 1)  # made, and not sent
        status, message, _ = ask(server, 20_000, binary_data_output=True)
        assert status == 503
        assert (
            f"bytes of answers under way are {held}, expected at most 12000000 with 4320000 more"
            in message["error"]
        )
        assert ask(server, 100)[0] == 200
        until(lambda: bool(server.events("dropped")))
        until(lambda: b"cgnrt_answer_bytes 0.0\n" in server.service.metrics.text())
        connection.close()


def test_a_stuck_reader_is_dropped(golden_plan: Path, limits: Limits) -> None:
    limits = replace(limits, images=100_000, batch=4096, queue=100_000, timeout_s=1.0)
    body = json.dumps({"parameters": {"count": 50_000, "binary_data_output": True}}).encode()
    with running(Service(generator(golden_plan), "v2", limits=limits)) as server:
        wait_for_images(server.service)
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", server.bound.port))
        connection.sendall(
            (POST + f"Content-Length: {len(body)}").replace("\n", "\r\n").encode() + b"\r\n\r\n" + body
        )
        until(lambda: bool(server.events("dropped")))
        assert ask(server, 1)[0] == 200
        assert len(read(connection)) < 50_000 * 8 * 8 * 3  # and what it had not read is not kept for it
    assert not server.events("http")
