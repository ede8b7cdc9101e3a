"""Requests that come four times as fast as a server answers them, whether it answers or not."""

from __future__ import annotations

import asyncio
import json
import statistics
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from report import quantile
from serve_clients import Server, http_asker, images_per_second, serving

import cgnrt

SEEDS = 16  # whose images are known
CONNECTIONS = 256


def overload(plan: Path, count: int, *, seconds: float, times: float = 4) -> list[dict[str, Any]]:
    """What comes back, how late, and what the server holds meanwhile."""
    generator = cgnrt.Generator(plan, dtype="uint8", layout="NHWC", device="cpu")
    known = [generator.sample(count, seed).images.astype(np.int16) for seed in range(SEEDS)]
    with serving(plan, "--device", "cpu", grpc=False) as server:
        unloaded = []
        with http_asker(server, count) as ask:
            for seed in range(100):
                begin = time.perf_counter()
                ask(seed)
                unloaded.append(time.perf_counter() - begin)
        capacity = images_per_second(lambda: http_asker(server, count), count, concurrency=2, seconds=3)
        flood = Flood(server, count, known, rate=times * capacity / count)
        found = flood.run(seconds, statistics.median(unloaded[10:]))
        return [{"offered/s": times * capacity / count, **found}]


class Flood:
    """An open loop of requests over connections that stay."""

    def __init__(self, server: Server, count: int, known: list[np.ndarray], *, rate: float) -> None:
        self._server = server
        self._count = count
        self._known = known
        self._rate = rate
        self._late: list[float] = []
        self._refused = 0
        self._wrong = 0
        self._unanswered = 0
        self._skipped = 0
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    def run(self, seconds: float, p50: float) -> dict[str, Any]:
        memory: list[int] = []
        done = threading.Event()

        def watch() -> None:
            while not done.wait(0.5):
                memory.append(self._server.resident_bytes())

        watcher = threading.Thread(target=watch)
        watcher.start()
        asyncio.run(self._flood(seconds))
        done.set()
        watcher.join()
        third = max(1, len(memory) // 3)
        if not self._late:
            raise RuntimeError(
                f"no request was accepted: {self._refused} refused, {self._wrong} answered otherwise"
            )
        p99 = quantile(self._late, 0.99)
        return {
            "accepted": len(self._late),
            "refused at once": self._refused,
            "wrong": self._wrong,
            "no answer": self._unanswered,
            "p50 unloaded ms": p50 * 1e3,
            "p99 accepted ms": p99 * 1e3,
            "p99 to p50": p99 / p50,
            "MB, first third": statistics.median(memory[:third]) / 2**20,
            "MB, last third": statistics.median(memory[-third:]) / 2**20,
        }

    async def _flood(self, seconds: float) -> None:
        host, port = self._server.http.split(":")
        self._free = [await asyncio.open_connection(host, port) for _ in range(CONNECTIONS)]
        started, sent = time.perf_counter(), 0
        tasks: set[asyncio.Task[None]] = set()
        while time.perf_counter() < started + seconds:
            due = int((time.perf_counter() - started) * self._rate)
            while sent < due:
                if self._free:
                    task = asyncio.ensure_future(self._ask(sent % SEEDS))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
                else:
                    self._skipped += 1
                sent += 1
            await asyncio.sleep(0.002)
        await asyncio.gather(*tasks)
        for _, writer in self._free:
            writer.close()
            await writer.wait_closed()

    async def _ask(self, seed: int) -> None:
        reader, writer = self._free.pop()
        if reader.at_eof():  # the server closes what was idle for a while
            writer.close()
            reader, writer = await asyncio.open_connection(*self._server.http.split(":"))
        parameters = {"count": self._count, "seed": seed, "binary_data_output": True}
        body = json.dumps({"parameters": parameters, "outputs": [{"name": "images"}]}).encode()
        head = f"POST /v2/models/{self._server.model}/infer HTTP/1.1\r\nHost: localhost\r\n"
        head += f"Content-Length: {len(body)}\r\n\r\n"
        begin = time.perf_counter()
        writer.write(head.encode() + body)
        try:
            answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            self._unanswered += 1
            writer.close()
            self._free.append(await asyncio.open_connection(*self._server.http.split(":")))
            return
        headers = dict(line.split(": ", 1) for line in answer[1:] if line)
        content = await reader.readexactly(int(headers["content-length"]))
        late = time.perf_counter() - begin
        self._free.append((reader, writer))
        status = int(answer[0].split()[1])
        if status == 200:
            self._late.append(late)
            raw = np.frombuffer(content, np.uint8, offset=int(headers["inference-header-content-length"]))
            expected = self._known[seed]
            if raw.size != expected.size or np.abs(raw.reshape(expected.shape) - expected).max() > 1:
                self._wrong += 1
        elif status == 503 and b"images that wait" in content:
            self._refused += 1
        else:
            self._wrong += 1
