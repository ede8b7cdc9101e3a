"""A minute of each attack on a server with 1,024 descriptors: it lives, and its memory and its log stay small."""

from __future__ import annotations

import contextlib
import json
import re
import resource
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from attacks import HALF_HEAD, Attack, Sending, Unfinished, attacked

pytestmark = pytest.mark.extended

COMMAND = [sys.executable, "-c", "import sys; from cgnrt.cli import main; sys.exit(main())", "serve"]
DESCRIPTORS = 1024
TIMEOUT_S = 3.0
ATTACK_S = 60.0
MOST_LIVE_S = 2.0
MOST_MEMORY = 150 << 20
MOST_LOG = 2_000_000
METHOD = "/inference.GRPCInferenceService/"


def infer(count: int) -> bytes:
    body = json.dumps({"parameters": {"count": count, "binary_data_output": True}}).encode()
    head = f"POST /v2/models/double-colored/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}"
    return f"{head}\r\n\r\n".encode() + body


CONFIG = b"GET /v2/models/double-colored/config HTTP/1.1\r\nHost: localhost\r\n\r\n"


@dataclass
class Server:
    """A server of its own process."""

    process: subprocess.Popen[str]
    http: int
    grpc: int
    log: Path

    def live_s(self) -> tuple[float, float]:
        """How long new clients wait for `live`, over HTTP and over gRPC."""
        start = time.monotonic()
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/v2/health/live", timeout=60) as answer:
            assert answer.status == 200
        http_s = time.monotonic() - start
        options = (("grpc.use_local_subchannel_pool", 1),)
        start = time.monotonic()
        with grpc.insecure_channel(f"127.0.0.1:{self.grpc}", options) as channel:
            assert (
                channel.unary_unary(f"{METHOD}ServerLive")(b"", timeout=60, wait_for_ready=True)
                == b"\x08\x01"
            )
        return http_s, time.monotonic() - start

    def images(self, count: int) -> int:
        """Ask for images over HTTP. Returns the answer's bytes."""
        body = json.dumps({"parameters": {"count": count, "binary_data_output": True}}).encode()
        address = f"http://127.0.0.1:{self.http}/v2/models/double-colored/infer"
        with urllib.request.urlopen(address, body, timeout=60) as answer:
            return len(answer.read())

    def memory_bytes(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) << 10


@pytest.fixture
def server(demo_plan: Path, tmp_path: Path) -> Iterator[Server]:
    log = tmp_path / "log"
    arguments = ["--port", "0", "--grpc-port", "0", "--threads", "1", "--timeout", str(TIMEOUT_S)]
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [*COMMAND, str(demo_plan), *arguments],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS)),
        )
    with process:
        try:
            assert process.stdout is not None
            ports = re.findall(r"127\.0\.0\.1:(\d+), gRPC on port (\d+)", process.stdout.readline())
            yield Server(process, int(ports[0][0]), int(ports[0][1]), log)
        finally:
            process.kill()


# Connections, their client, whether it reads, when it comes again, and how many the server has to close at least.
ATTACKS = {
    "half heads": (1100, Sending, (HALF_HEAD,), True, None, 1100),
    "requests that nobody reads": (100, Sending, (b"", CONFIG * 200), False, 0.5, 100),
    "images that nobody reads": (100, Sending, (b"", infer(4096) * 200), False, 0.5, 0),
    "images, more than can be made": (100, Sending, (b"", infer(4096) * 200), True, 0.5, 0),
    "unfinished streams": (5, Unfinished, (f"{METHOD}ModelStreamInfer", 60, 1 << 20), True, None, 5),
}


@pytest.mark.parametrize("kind", ATTACKS)
def test_a_minute_of(server: Server, kind: str) -> None:
    connections, client, arguments, reads, again_s, least = ATTACKS[kind]
    port = server.grpc if client is Unfinished else server.http
    server.images(64)
    server.live_s()
    memory, waited = [server.memory_bytes()], []
    with attacked(Attack(port, connections, client, arguments, reads, again_s)) as closed:
        start = time.monotonic()
        while (passed := time.monotonic() - start) < ATTACK_S:
            memory.append(server.memory_bytes())
            if passed > TIMEOUT_S + 2:
                waited.append(server.live_s())
            time.sleep(0.2)
        lost = closed()
    for name, found in zip(("HTTP", "gRPC"), zip(*waited, strict=True), strict=True):
        print(
            f"{kind}: live over {name} {max(found):.2f} s at most, {sorted(found)[len(found) // 2]:.3f} s as a rule"
        )
    print(f"+ {(max(memory) - memory[0]) >> 20} MiB; log {server.log.stat().st_size} bytes; {lost} closed")
    assert max(map(max, waited)) < MOST_LIVE_S
    assert max(memory) - memory[0] < MOST_MEMORY
    assert server.log.stat().st_size < MOST_LOG
    assert lost >= least
    deadline = time.monotonic() + TIMEOUT_S + 5
    while time.monotonic() < deadline:  # until the last requests of the attack are answered
        with contextlib.suppress(OSError):
            assert server.images(1) > 3 * 32 * 32
            return
        time.sleep(0.2)
    pytest.fail("the server answers no one after the attack")
