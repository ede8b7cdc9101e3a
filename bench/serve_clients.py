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
        process.stdout.close()


class Asker:
    """A client that asks for so many images of a seed, over HTTP or gRPC."""

    def __init__(self, module: Any, address: str, model: str, count: int) -> None:
        self._module = module
        self._model = model
        self._count = count
        self.client = module.InferenceServerClient(address)

    def __call__(self, seed: int) -> Any:
        return self.infer(seed).as_numpy("images")

    def infer(self, seed: int, **options: Any) -> Any:
        """The client's result."""
        inputs = []
        for name, value in (("count", self._count), ("seed", seed)):
            entry = self._module.InferInput(name, [1], "INT64")
            entry.set_data_from_numpy(np.array([value], np.int64))
            inputs.append(entry)
        return self.client.infer(self._model, inputs, **options)

    def close(self) -> None:
        self.client.close()

    def __enter__(self) -> Asker:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class SharedAsker(Asker):
    """Over gRPC, the images in shared memory."""

    def __init__(self, address: str, model: str, count: int) -> None:
        super().__init__(tritonclient.grpc, address, model, count)
        self._name = f"cgnrt-bench-{threading.get_ident()}"
        self._shape = (count, 32, 32, 3)
        size = count * 32 * 32 * 3
        self._region = shared_memory.create_shared_memory_region(self._name, f"/{self._name}", size)
        Path("/dev/shm", self._name).chmod(0o666)  # the server has no token
        self.client.register_system_shared_memory(self._name, f"/{self._name}", size)
        self._output = tritonclient.grpc.InferRequestedOutput("images")
        self._output.set_shared_memory(self._name, size)

    def __call__(self, seed: int) -> Any:
        self.infer(seed, outputs=[self._output])
        return shared_memory.get_contents_as_numpy(self._region, np.uint8, self._shape)

    def close(self) -> None:
        self.client.unregister_system_shared_memory(self._name)
        shared_memory.destroy_shared_memory_region(self._region)
        super().close()


def http_asker(server: Server, count: int) -> Asker:
    return Asker(tritonclient.http, server.http, server.model, count)


def grpc_asker(server: Server, count: int) -> Asker:
    return Asker(tritonclient.grpc, server.grpc or "", server.model, count)


def shared_asker(server: Server, count: int) -> Asker:
    return SharedAsker(server.grpc or "", server.model, count)


ASKERS = {"http": http_asker, "grpc": grpc_asker, "grpc, shared memory": shared_asker}


def images_per_second(make: Callable[[], Asker], count: int, *, concurrency: int, seconds: float) -> float:
    """Images that so many clients, each in a thread, get in a second, one request after another."""
    counts = [0] * concurrency
    begin = threading.Barrier(concurrency + 1)
    end = [0.0]

    def run(k: int) -> None:
        with make() as ask:
            ask(0)
            begin.wait()
            seed = k
            while time.perf_counter() < end[0]:
                ask(seed)
                seed += concurrency
                counts[k] += 1

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
