"""Requests that no client sends: mutated, cut short, of the wrong types. A server answers each and goes on."""

from __future__ import annotations

import collections
import http.client
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from serve_clients import Server, http_asker, serving
from serve_requests import VALUES, infer_message, mutate

PATHS = ("infer", "versions/1/infer", "versions/2/infer", "ready", "config", "", "stats")


def fuzz(plan: Path, n: int, *, grpc: bool = True, seed: int = 0) -> list[dict[str, Any]]:
    """Send n requests over each transport and count the answers by kind.

    Raises:
      RuntimeError: the server ended, or does not answer a good request any more.
    """
    rows = []
    options = ("--device", "cpu", "--max-images", "64", "--timeout", "20")
    with serving(plan, *options, grpc=grpc) as server:
        transports: dict[str, Callable[[Server, int, random.Random], collections.Counter[str]]] = {
            "http": fuzz_http
        }
        if grpc:
            from serve_fuzz_grpc import fuzz_grpc

            transports["grpc"] = fuzz_grpc
        for name, send in transports.items():
            found = send(server, n, random.Random(seed))
            if server.process.poll() is not None:
                raise RuntimeError(f"the server ended with {server.process.returncode}")
            with http_asker(server, 1) as ask:
                ask(0)
            rows.append(
                {
                    "transport": name,
                    "requests": n,
                    "answered": found["ok"],
                    "refused": found["refused"],
                    "back-pressure": found["busy"],
                    "server errors": found["failed"],
                    "crashes": 0,
                }
            )
    return rows


def fuzz_http(server: Server, n: int, rng: random.Random) -> collections.Counter[str]:
    """HTTP requests; an error without a message, and no answer from a server that ended, count as failed."""
    found: collections.Counter[str] = collections.Counter()
    connection = http.client.HTTPConnection(server.http, timeout=60)
    for _ in range(n):
        method, path, headers, body = http_request(server.model, rng)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
        except (http.client.HTTPException, OSError):
            found["refused" if server.process.poll() is None else "failed"] += 1
            connection.close()  # the server closes it after what is not HTTP
            continue
        if answer.status < 300:
            found["ok"] += 1
        elif answer.status in (503, 504):
            found["busy"] += 1
        elif answer.status < 500 and (
            method == "HEAD" or b'"error"' in content or b"Invalid HTTP" in content
        ):
            found["refused"] += 1
        else:
            found["failed"] += 1
    connection.close()
    return found


def http_request(model: str, rng: random.Random) -> tuple[str, str, dict[str, str], bytes]:
    """Method, path, headers and body of a request that is at least nearly a good one."""
    message = infer_message(rng)
    head = json.dumps(message).encode()
    raw = bytes(rng.randrange(256) for _ in range(rng.choice((0, 0, 0, 0, 1, 8, 40))))
    headers = {}
    if raw or rng.random() < 0.2:
        length = rng.choice((len(head), len(head), len(head) - 1, 0, -1, 10**9))
        headers["Inference-Header-Content-Length"] = str(length)
    if rng.random() < 0.03:
        headers[
            rng.choice(("Content-Encoding", "Origin", "Transfer-Encoding", "Authorization", "Expect"))
        ] = rng.choice(("gzip", "br", "null", "chunked", "100-continue", "\xff"))
    body = mutate(head + raw, rng) if rng.random() < 0.3 else head + raw
    method = "POST" if rng.random() < 0.95 else rng.choice(("GET", "PUT", "DELETE", "OPTIONS", "HEAD"))
    if rng.random() < 0.03:
        region = rng.choice(("r", "..", "%2e%2e", "x" * 300))
        path = f"/v2/systemsharedmemory/region/{region}/{rng.choice(('register', 'unregister', 'status'))}"
        body = json.dumps({"key": rng.choice(VALUES), "offset": rng.choice(VALUES), "byte_size": 8}).encode()
    else:
        name = model if rng.random() < 0.97 else rng.choice(("", "..", "%00", "x" * 3000))
        path = f"/v2/models/{name}/{'infer' if rng.random() < 0.9 else rng.choice(PATHS)}"
    return method, path, headers, body
