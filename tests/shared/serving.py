"""Servers in a thread of the test's process, and requests to them."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

import cgnrt
from cgnrt.serve.app import Address, Bound, serve
from cgnrt.serve.browsers import read_pages
from cgnrt.serve.log import Log
from cgnrt.serve.protocol import InferRequest, InferResponse, Tensor, Wanted
from cgnrt.serve.service import Service


@dataclass
class Running:
    """A server that answers."""

    service: Service
    bound: Bound
    stop: Callable[[], None]
    log: io.StringIO
    logger: Log

    @property
    def http(self) -> str:
        return f"127.0.0.1:{self.bound.port}"

    @property
    def grpc(self) -> str:
        return f"127.0.0.1:{self.bound.grpc_port}"

    def outcomes(self, outcome: str) -> float:
        """How many requests ended so, as its metrics say."""
        registry = self.service.metrics.registry
        return registry.get_sample_value("cgnrt_requests_total", {"outcome": outcome}) or 0

    def events(self, name: str) -> list[dict[str, Any]]:
        self.logger.flush()
        found = [json.loads(line) for line in self.log.getvalue().splitlines()]
        return [event for event in found if event["event"] == name]


@contextlib.contextmanager
def running(
    service: Service,
    log: io.StringIO | None = None,
    *,
    grpc: bool = False,
    grace_s: float = 10,
    **address: Any,
) -> Iterator[Running]:
    """Serve from a thread until the block ends."""
    log = log or io.StringIO()
    logger = Log(log)
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    started = threading.Event()
    found: list[Bound] = []
    failed: list[BaseException] = []

    def live() -> None:
        where = Address(port=0, grpc_port=0 if grpc else None, **address)
        try:
            loop.run_until_complete(
                serve(
                    service,
                    where,
                    log=logger,
                    pages=read_pages(),
                    started=lambda bound: (found.append(bound), started.set()),
                    stop=stop,
                    grace_s=grace_s,
                )
            )
        except BaseException as error:
            failed.append(error)
        finally:
            started.set()
            loop.close()

    thread = threading.Thread(target=live)
    thread.start()
    started.wait(30)

    def end() -> None:
        with contextlib.suppress(RuntimeError):  # it has ended
            loop.call_soon_threadsafe(stop.set)

    try:
        if failed:
            raise failed[0]
        yield Running(service, found[0], end, log, logger)
    finally:
        end()
        thread.join(30)
        assert not thread.is_alive()


def generator(plan: Path, **options: Any) -> cgnrt.Generator:
    """As a server has it; one thread, so that results do not depend on how many there are."""
    return cgnrt.Generator(plan, dtype="uint8", layout="NHWC", device="cpu", threads=1, **options)


LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"


@contextlib.contextmanager
def connected(server: Running, *, receive_bytes: int | None = None) -> Iterator[socket.socket]:
    """A connection of bytes."""
    with socket.socket() as found:
        if receive_bytes is not None:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        found.settimeout(30)
        found.connect(("127.0.0.1", server.bound.port))
        yield found


def answers(connection: socket.socket, n: int) -> list[tuple[int, bytes]]:
    """Status and body of n answers."""
    found = []
    with connection.makefile("rb") as file:
        for _ in range(n):
            status = int(file.readline().split()[1])
            headers = {}
            while (line := file.readline()) != b"\r\n":
                name, _, value = line.decode().strip().partition(": ")
                headers[name] = value
            found.append((status, file.read(int(headers.get("content-length", 0)))))
    return found


@dataclass
class Gate:
    """Holds the engine up, to let requests come together."""

    open: threading.Event = field(default_factory=threading.Event)
    waiting: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    calls: list[list[int]] = field(default_factory=list)

    def hold(self, generator: cgnrt.Generator, *, fails_at: int | None = None) -> None:
        """Hold up the generator's calls for several requests; one with so many images fails."""
        gate = self

        class Gated(cgnrt.Generator):
            def render(self, requests: Any, *, parts: bool = False) -> Any:
                counts = [len(request.indices) for request in requests]
                gate.calls.append(counts)
                gate.waiting.release()
                gate.open.wait(30)
                if fails_at in counts:
                    raise RuntimeError(f"no engine likes {fails_at}")
                return super().render(requests, parts=parts)

        generator.__class__ = Gated  # with_pixels gives one that is not held up

    def wait(self) -> None:
        """Until an engine call is held up."""
        assert self.waiting.acquire(timeout=30)


def wait_for_images(service: Service) -> None:
    """Let requests wait a minute for their images, while connections keep their time limit.

    Late images give a short error, which every client reads: a test of slow readers would fail on a busy machine.
    """
    service.limits = replace(service.limits, timeout_s=60)


def tensor(name: str, *values: Any, datatype: str = "INT64") -> Tensor:
    data = np.array(values, object if datatype == "BYTES" else None)
    return Tensor(name, datatype, data.shape, data)


def request(*tensors: Tensor, outputs: tuple[str, ...] = (), **parameters: Any) -> InferRequest:
    """An inference request for the golden plan's model."""
    return InferRequest(
        "v2", "", "", {t.name: t for t in tensors}, parameters, tuple(Wanted(name) for name in outputs)
    )


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Wait for something that happens elsewhere."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def arrays(response: InferResponse) -> dict[str, np.ndarray]:
    """The outputs of an answer, by name."""
    return {output.name: output.data for output in response.outputs}
