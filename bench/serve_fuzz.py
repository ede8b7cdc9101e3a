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

NAMES = (
    "count",
    "seed",
    "start",
    "shape",
    "texture",
    "background",
    "truncation",
    "pool",
    "coumt",
    "",
    "\x00",
)
DATATYPES = (
    "INT64",
    "INT32",
    "UINT64",
    "UINT8",
    "FP32",
    "FP16",
    "FP64",
    "BOOL",
    "BYTES",
    "BF16",
    "",
    "int64",
)
PATHS = ("infer", "versions/1/infer", "versions/2/infer", "ready", "config", "", "stats")
VALUES: tuple[Any, ...] = (
    *(0, 1, -1, 2, 3, 9, 10, 64, 2**31, 2**63 - 1, 2**63, 2**64, -(2**63), 10**30, 0.5, -0.5, 1e308),
    *(
        True,
        False,
        None,
        "",
        "lime",
        "\ud800",
        "\x00",
        "../../etc/passwd",
        "x" * 300,
        [],
        [1],
        [[1], [2]],
        {},
    ),
)


def fuzz(plan: Path, n: int, *, grpc: bool = True, seed: int = 0) -> list[dict[str, Any]]:
    """Send n requests over each transport; what came back, by kind.

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
    """HTTP requests; an answer that is not JSON or metrics, or none, counts as failed."""
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
            connection.close()  # a request that is none of HTTP's ends it
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
    """Method, path, headers and body, more or less like a good one's."""
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


def infer_message(rng: random.Random) -> dict[str, Any]:
    """The JSON of an inference request, most of it good."""
    inputs = [tensor(rng) for _ in range(rng.choice((0, 0, 0, 1, 2)))]
    message: dict[str, Any] = {"inputs": inputs, "parameters": {}}
    if rng.random() < 0.8:
        message["parameters"]["count"] = rng.choice((1, 2, 3)) if rng.random() < 0.8 else rng.choice(VALUES)
    for name in rng.sample(("dtype", "layout", "timeout", "binary_data_output", "seed", "texture"), 2):
        if rng.random() < 0.3:
            good = {"dtype": "float32", "layout": "NCHW", "binary_data_output": True, "texture": "lime"}
            message["parameters"][name] = good.get(name, 7) if rng.random() < 0.5 else rng.choice(VALUES)
    if rng.random() < 0.3:
        names = ("images", "labels", "mask", "foreground", "background", "pre_mask", "", "seed")
        message["outputs"] = [
            {"name": rng.choice(names), "parameters": {"binary_data": rng.choice((True, False, 3))}}
            for _ in range(rng.choice((0, 1, 2)))
        ]
    if rng.random() < 0.05:
        message[rng.choice(("id", "inputs", "outputs", "parameters"))] = rng.choice(VALUES)
    return message


def tensor(rng: random.Random) -> dict[str, Any]:
    """An input's JSON."""
    found: dict[str, Any] = {"name": rng.choice(NAMES), "datatype": rng.choice(DATATYPES), "shape": [1]}
    if rng.random() < 0.7:
        found["data"] = [rng.choice(VALUES[:10])]
    if rng.random() < 0.2:
        sizes = (0, 8, 5, -1, 10**12)
        found["parameters"] = {rng.choice(("binary_data_size", "shared_memory_byte_size")): rng.choice(sizes)}
    if rng.random() < 0.2:
        found[rng.choice(("name", "datatype", "shape", "data"))] = rng.choice(VALUES)
    if rng.random() < 0.1:
        found["shape"] = [rng.choice((0, 1, 2, 3, 64, -1, 2**40, 2**70)) for _ in range(rng.randrange(5))]
    return found


def mutate(body: bytes, rng: random.Random) -> bytes:
    """Some bytes flipped, cut or doubled."""
    found = bytearray(body)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(len(found) + 1)
        kind = rng.randrange(4)
        if kind == 0 and at < len(found):
            found[at] = rng.randrange(256)
        elif kind == 1:
            del found[at : at + rng.randrange(20)]
        elif kind == 2:
            found[at:at] = found[at : at + rng.randrange(20)]
        else:
            found[at:at] = bytes([rng.randrange(256)])
    return bytes(found)
