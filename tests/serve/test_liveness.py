"""While something takes long, the server says that it is alive."""

from __future__ import annotations

import gzip
import json
import threading
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving import generator, running

from cgnrt.serve import http
from cgnrt.serve import service as service_module
from cgnrt.serve.limits import Limits
from cgnrt.serve.protocol import Tensor
from cgnrt.serve.service import Service
from cgnrt.serve.tensors import to_json

MANY = {"name": "shape", "datatype": "INT64", "shape": [2000], "data": [0] * 2000}
PADDING = " " * 20_000

REQUESTS: list[tuple[Any, str, bytes, dict[str, str]]] = [
    (http, "read_infer", json.dumps({"parameters": {"count": 1}}).encode() + PADDING.encode(), {}),
    (http, "write_infer", json.dumps({"parameters": {"count": 200}}).encode(), {}),
    (
        http,
        "_decompressed",
        gzip.compress(json.dumps({"parameters": {"count": 1}}).encode(), mtime=0),
        {"Content-Encoding": "gzip"},
    ),
    (
        service_module,
        "read_order",
        json.dumps({"inputs": [MANY], "parameters": {"count": 2000}}).encode(),
        {},
    ),
    (Service, "_entry", json.dumps({"inputs": [MANY], "parameters": {"count": 2000}}).encode(), {}),
    (Service, "_entry", json.dumps({"parameters": {"count": 1, "shape": "unknown"}}).encode(), {}),
    (
        Service,
        "_entry",
        json.dumps(
            {
                "inputs": [{"name": "shape", "datatype": "BYTES", "shape": [2], "data": ["x", "y"]}],
                "parameters": {"count": 2},
            }
        ).encode(),
        {},
    ),
]


@pytest.mark.parametrize(("owner", "name", "body", "headers"), REQUESTS)
def test_what_may_take_long_holds_nobody_up(
    golden_plan: Path,
    limits: Limits,
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    name: str,
    body: bytes,
    headers: dict[str, str],
) -> None:
    limits = replace(limits, images=4096, queue=100_000, body_bytes=1 << 20, timeout_s=60)
    begun, go_on = threading.Event(), threading.Event()
    original = getattr(owner, name)

    def slow(*arguments: Any, **options: Any) -> Any:
        begun.set()
        go_on.wait(30)
        return original(*arguments, **options)

    with running(Service(generator(golden_plan), "v2", limits=limits)) as server:
        monkeypatch.setattr(owner, name, slow)
        address = f"http://{server.http}"
        asked = urllib.request.Request(f"{address}/v2/models/v2/infer", body, headers)
        statuses: list[int] = []

        def ask() -> None:
            try:
                with urllib.request.urlopen(asked, timeout=60) as answer:
                    statuses.append(answer.status)
            except urllib.error.HTTPError as error:
                statuses.append(error.code)

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            assert begun.wait(30)
            with urllib.request.urlopen(f"{address}/v2/health/live", timeout=20) as answer:
                assert answer.status == 200
            assert not statuses
        finally:
            go_on.set()
            asking.join(60)
        assert statuses == [400 if b"unknown" in body or b'"x"' in body else 200]


def test_json_is_written_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(size=(3, 5000)).astype(np.float32)
    original, sizes = json.dumps, []

    def dumps(part: list[float]) -> str:
        sizes.append(len(part))
        return original(part)

    monkeypatch.setattr(json, "dumps", dumps)
    text = to_json(Tensor("x", "FP32", values.shape, values))
    monkeypatch.undo()
    assert json.loads(f"[{text}]") == values.ravel().tolist()
    assert max(sizes) <= 4096


def test_json_has_a_limit_of_its_own(golden_plan: Path, limits: Limits) -> None:
    limits = replace(limits, body_bytes=1 << 24)
    with running(Service(generator(golden_plan), "v2", limits=limits)) as server:
        body = b"{" + b" " * (1 << 22)
        with pytest.raises(urllib.error.HTTPError, match="413") as caught:
            urllib.request.urlopen(f"http://{server.http}/v2/models/v2/infer", body, timeout=30)
        assert "expected at most 4194304. Send binary data" in caught.value.read().decode()
