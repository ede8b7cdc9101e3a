"""A server of its own process, and NVIDIA's clients that ask it for images."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import shared_memory

COMMAND = [sys.executable, "-c", "import sys; from cgnrt.cli import main; sys.exit(main())", "serve"]


@dataclass(frozen=True)
class Server:
    """Where it answers, what its model is called, and its process."""

    http: str
    grpc: str | None
    model: str
    process: subprocess.Popen[str]

    def resident_bytes(self) -> int:
        """Memory that it holds."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * 4096


@contextlib.contextmanager
def serving(plan: Path, *options: str, grpc: bool = True) -> Iterator[Server]:
    """`cgnrt serve`, its requests not logged."""
    ports = ["--port", "0", *(["--grpc-port", "0"] if grpc else ["--no-grpc"])]
    process = subprocess.Popen(
        [*COMMAND, str(plan), *ports, "--quiet", *options], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    words = process.stdout.readline().replace(",", " ").split()
    if not words:
        raise RuntimeError("the server did not start")
    try:
        host = words[1].removeprefix("http://")
        yield Server(host, f"127.0.0.1:{words[-1]}" if grpc else None, plan.stem, process)
    finally:
        process.terminate()
        process.wait(60)


def http_asker(server: Server, count: int) -> Callable[[int], Any]:
    """A function from a seed to the images, over HTTP."""
    module = tritonclient.http
    client = module.InferenceServerClient(server.http)
    return lambda seed: client.infer(server.model, inputs(module, count, seed)).as_numpy("images")


def grpc_asker(server: Server, count: int) -> Callable[[int], Any]:
    """The same over gRPC."""
    module = tritonclient.grpc
    client = module.InferenceServerClient(server.grpc)
    return lambda seed: client.infer(server.model, inputs(module, count, seed)).as_numpy("images")


def shared_asker(server: Server, count: int) -> Callable[[int], Any]:
    """The same over gRPC, the images in shared memory."""
    module = tritonclient.grpc
    client = module.InferenceServerClient(server.grpc)
    name = f"cgnrt-bench-{threading.get_ident()}"
    size = count * 32 * 32 * 3
    region = shared_memory.create_shared_memory_region(name, f"/{name}", size)
    client.register_system_shared_memory(name, f"/{name}", size)
    output = module.InferRequestedOutput("images")
    output.set_shared_memory(name, size)

    def ask(seed: int) -> Any:
        client.infer(server.model, inputs(module, count, seed), outputs=[output])
        return shared_memory.get_contents_as_numpy(region, np.uint8, (count, 32, 32, 3))

    def close() -> None:
        client.unregister_system_shared_memory(name)
        shared_memory.destroy_shared_memory_region(region)

    ask.close = close  # type: ignore[attr-defined]
    return ask


ASKERS = {"http": http_asker, "grpc": grpc_asker, "grpc, shared memory": shared_asker}


def inputs(module: Any, count: int, seed: int) -> list[Any]:
    """`count` and `seed` as the client's inputs."""
    found = []
    for name, value in (("count", count), ("seed", seed)):
        entry = module.InferInput(name, [1], "INT64")
        entry.set_data_from_numpy(np.array([value], np.int64))
        found.append(entry)
    return found


def images_per_second(
    make: Callable[[], Callable[[int], Any]], count: int, *, concurrency: int, seconds: float
) -> float:
    """Images that so many clients, each in a thread, get in a second, one request after another."""
    counts = [0] * concurrency
    begin = threading.Barrier(concurrency + 1)
    end = [0.0]

    def run(k: int) -> None:
        ask = make()
        ask(0)
        begin.wait()
        seed = k
        while time.perf_counter() < end[0]:
            ask(seed)
            seed += concurrency
            counts[k] += 1
        if hasattr(ask, "close"):
            ask.close()

    threads = [threading.Thread(target=run, args=(k,)) for k in range(concurrency)]
    for thread in threads:
        thread.start()
    end[0] = time.perf_counter() + 3600
    begin.wait()
    started = time.perf_counter()
    end[0] = started + seconds
    for thread in threads:
        thread.join()
    return sum(counts) * count / (time.perf_counter() - started)
