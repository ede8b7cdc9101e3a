"""A real Triton serves what `cgnrt-export --triton-repository` wrote.

It comes from an environment of its own, which `make test-all` makes: this one's name and "-triton", or $CGNRT_TRITON.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
from serving import generator
from tritonclient.utils import InferenceServerException

import cgnrt
from cgnrt_export.cli import main

pytestmark = pytest.mark.extended

BIN = Path(os.environ.get("CGNRT_TRITON", f"{sys.prefix}-triton")) / "bin"


@dataclass
class Server:
    """A running Triton."""

    port: int
    grpc_port: int
    log: Path

    def client(self, transport: ModuleType) -> Any:
        port = self.port if transport is http_client else self.grpc_port
        return transport.InferenceServerClient(f"127.0.0.1:{port}")


def free_ports(n: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(n)]
        return [found.getsockname()[1] for found in sockets]


def backends(folder: Path) -> tuple[Path, Path, Path]:
    """The server and its libraries in that environment, and a folder of backends with the stub of its Python."""
    code = "import pytriton, sys; print(pytriton.__path__[0], *sys.version_info[:2])"
    asked = subprocess.run([BIN / "python", "-c", code], capture_output=True, text=True, check=True)
    home, major, minor = asked.stdout.split()
    triton = Path(home) / "tritonserver"
    shutil.copytree(triton / "backends", folder, dirs_exist_ok=True)
    stub = triton / "python_backend_stubs" / f"{major}.{minor}" / "triton_python_backend_stub"
    shutil.copy(stub, folder / "python")
    return triton / "bin" / "tritonserver", Path(home).parent / "nvidia_pytriton.libs", folder


@pytest.fixture(scope="module")
def server(demo_plan: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Triton with two models of the demo plan: `cgn`, and `stream`, which answers in pieces."""
    folder = tmp_path_factory.mktemp("triton")
    repository = folder / "models"
    arguments = [str(demo_plan), "--triton-repository", str(repository), "--name"]
    assert main([*arguments, "cgn"]) == 0
    assert main([*arguments, "stream", "--decoupled"]) == 0
    with (repository / "cgn" / "config.pbtxt").open("a") as file:
        file.write('parameters { key: "queue" value: { string_value: "256" } }\n')
    program, libraries, folder_of_backends = backends(folder / "backends")
    port, grpc_port = free_ports(2)
    command = [
        program,
        f"--model-repository={repository}",
        f"--backend-directory={folder_of_backends}",
        *("--http-address=127.0.0.1", f"--http-port={port}"),
        *("--grpc-address=127.0.0.1", f"--grpc-port={grpc_port}"),
        "--allow-metrics=false",
    ]
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "LD_LIBRARY_PATH": str(libraries)}
    log = folder / "log.txt"
    with log.open("wb") as out, subprocess.Popen(command, env=environment, stdout=out, stderr=out) as process:
        try:
            end = time.monotonic() + 60
            with http_client.InferenceServerClient(f"127.0.0.1:{port}") as client:
                while not is_ready(client):
                    assert process.poll() is None, log.read_text()
                    assert time.monotonic() < end, log.read_text()
                    time.sleep(0.1)
            yield Server(port, grpc_port, log)
        finally:
            process.terminate()
            assert process.wait(60) == 0, log.read_text()


def is_ready(client: http_client.InferenceServerClient) -> bool:
    try:
        return bool(client.is_server_ready())
    except OSError:
        return False


@pytest.fixture(scope="module")
def alone(demo_plan: Path) -> cgnrt.Generator:
    return generator(demo_plan)


def inputs(transport: ModuleType, **given: Any) -> list[Any]:
    found = []
    for name, value in given.items():
        datatype, dtype = {"seed": ("UINT64", np.uint64)}.get(name, ("INT64", np.int64))
        array = np.array(value, dtype).reshape(-1)
        found.append(transport.InferInput(name, array.shape, datatype))
        found[-1].set_data_from_numpy(array)
    return found


def ask(client: Any, transport: ModuleType, outputs: tuple[str, ...], **given: Any) -> Any:
    options = given.pop("parameters", None)
    wanted = [transport.InferRequestedOutput(name) for name in outputs]
    return client.infer("cgn", inputs(transport, **given), outputs=wanted, parameters=options)


def check(answer: Any, expected: cgnrt.Batch) -> None:
    """Labels are exact; images may differ by the engine's rounding, which is 1 of 255."""
    np.testing.assert_array_equal(answer.as_numpy("labels"), np.stack(expected.labels, axis=1))
    assert np.abs(answer.as_numpy("images").astype(int) - expected.images).max() <= 1


@pytest.mark.parametrize("transport", [http_client, grpc_client])
def test_samples_are_those_of_the_stream(
    server: Server, alone: cgnrt.Generator, transport: ModuleType
) -> None:
    with server.client(transport) as client:
        both = ("images", "labels")
        check(ask(client, transport, both, count=64, seed=5, start=3), alone.sample(64, seed=5, start=3))
        check(ask(client, transport, both, count=3, seed=5, shape=[4, 2, 9]), alone(shape=[4, 2, 9], seed=5))
        pooled = ask(client, transport, both, count=300, seed=2, pool=[20, 10, 5])
        check(pooled, alone.sample(300, seed=2, pool=(20, 10, 5)))
        named = ask(
            client, transport, both, count=2, seed=6, parameters={"texture": alone.classes["texture"][3]}
        )
        check(named, alone.sample(2, seed=6, do={"texture": 3}))
        parts = ask(client, transport, (*both, "mask", "background"), count=8, seed=1)
        expected = alone.sample(8, seed=1, parts=True)
        check(parts, expected)
        for name in ("mask", "background"):
            np.testing.assert_allclose(
                parts.as_numpy(name), getattr(expected, name), atol=1e-4
            )  # engines' rounding
        floats = ask(
            client, transport, ("images",), count=2, parameters={"dtype": "float32", "layout": "NCHW"}
        )
        assert floats.as_numpy("images").dtype == np.float32
        assert floats.as_numpy("images").shape == (2, 3, 32, 32)


@pytest.mark.parametrize("transport", [http_client, grpc_client])
def test_refusals_have_a_status(server: Server, transport: ModuleType) -> None:
    bad = "400" if transport is http_client else "StatusCode.INVALID_ARGUMENT"
    with server.client(transport) as client:
        for given, message in (
            ({"count": 10**9}, "count is 1000000000, expected 0..4096"),
            ({"count": 1, "texture": 10}, "texture is 10, expected 0..9"),
            ({"count": 1, "parameters": {"texture": "no such"}}, "texture is 'no such'"),
        ):
            with pytest.raises(InferenceServerException) as refused:
                ask(client, transport, ("images",), **given)
            assert refused.value.status() == bad
            assert message in refused.value.message()


def test_requests_beyond_the_queue_are_refused_and_the_others_right(
    server: Server, alone: cgnrt.Generator
) -> None:
    answers: queue.Queue[Any] = queue.Queue()

    def client(seed: int) -> None:
        with server.client(grpc_client) as found:
            for start in range(0, 256, 64):
                try:
                    answer = ask(found, grpc_client, ("images", "labels"), count=64, seed=seed, start=start)
                except InferenceServerException as error:
                    answers.put(error)
                else:
                    answers.put((seed, start, answer))

    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [answers.get_nowait() for _ in range(24 * 4)]
    refused = [item for item in found if isinstance(item, InferenceServerException)]
    assert refused
    assert {error.status() for error in refused} == {"StatusCode.UNAVAILABLE"}
    served = [item for item in found if not isinstance(item, InferenceServerException)]
    assert served
    for seed, start, answer in served[::5]:
        check(answer, alone.sample(64, seed=seed, start=start))


def test_a_client_that_gives_up_hurts_no_other(server: Server, alone: cgnrt.Generator) -> None:
    with server.client(grpc_client) as client:
        with pytest.raises(InferenceServerException, match="Deadline"):
            client.infer("cgn", inputs(grpc_client, count=4096), client_timeout=0.2)
        check(ask(client, grpc_client, ("images", "labels"), count=8, seed=1), alone.sample(8, seed=1))


def test_a_stream(server: Server, alone: cgnrt.Generator) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    with server.client(grpc_client) as client:
        client.start_stream(lambda result, error: answers.put(error or result))
        wanted = [grpc_client.InferRequestedOutput(name) for name in ("images", "labels")]
        client.async_stream_infer(
            "stream", inputs(grpc_client, count=700, seed=5), outputs=wanted, enable_empty_final_response=True
        )
        pieces = []
        while (
            not (piece := answers.get(timeout=60))
            .get_response()
            .parameters["triton_final_response"]
            .bool_param
        ):
            pieces.append(piece)
        client.stop_stream()
    assert len(pieces) > 1
    images = np.concatenate([piece.as_numpy("images") for piece in pieces])
    expected = alone.sample(700, seed=5)
    assert np.abs(images.astype(int) - expected.images).max() <= 1


def test_shared_memory_of_tritons_own(server: Server, alone: cgnrt.Generator) -> None:
    """Its extension, which needs nothing of a model."""
    from tritonclient.utils import shared_memory

    size = 16 * 32 * 32 * 3
    region = shared_memory.create_shared_memory_region("pictures", f"/cgnrt-test-{os.getpid()}", size)
    try:
        with server.client(grpc_client) as client:
            client.register_system_shared_memory("pictures", f"/cgnrt-test-{os.getpid()}", size)
            output = grpc_client.InferRequestedOutput("images")
            output.set_shared_memory("pictures", size)
            client.infer("cgn", inputs(grpc_client, count=16, seed=3), outputs=[output])
            images = shared_memory.get_contents_as_numpy(region, np.uint8, (16, 32, 32, 3)).copy()
            client.unregister_system_shared_memory("pictures")
    finally:
        shared_memory.destroy_shared_memory_region(region)
    assert np.abs(images.astype(int) - alone.sample(16, seed=3).images).max() <= 1


def test_the_documents_script(server: Server, root: Path, tmp_path: Path) -> None:
    page = (root / "docs" / "triton.md").read_text()
    (script,) = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    assert "127.0.0.1:8000" in script
    path = tmp_path / "client.py"
    path.write_text(script.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}"))
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("(64, 32, 32, 3) [[")
