"""From the start of a server to its end."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from serving import Gate, generator, running, until

from cgnrt.cli import _parser
from cgnrt.cli.serve import _open
from cgnrt.plan import Plan
from cgnrt.serve.limits import Limits
from cgnrt.serve.service import Service

COMMAND = [sys.executable, "-c", "import sys; from cgnrt.cli import main; sys.exit(main())", "serve"]


def infer(address: str, count: int) -> tuple[int, dict[str, Any]]:
    body = json.dumps({"parameters": {"count": count}}).encode()
    try:
        with urllib.request.urlopen(f"http://{address}/v2/models/v2/infer", body, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def ready(address: str) -> int:
    try:
        return int(urllib.request.urlopen(f"http://{address}/v2/health/ready").status)
    except urllib.error.HTTPError as error:
        return error.code


def metrics(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics") as answer:
        found: str = answer.read().decode()
    return found


def test_it_finishes_what_it_has_begun(golden_plan: Path, limits: Limits) -> None:
    shared, gate = generator(golden_plan), Gate()
    gate.hold(shared)
    answers: list[tuple[int, dict[str, Any]]] = []
    with running(Service(shared, "v2", limits=limits)) as server:
        asking = [threading.Thread(target=lambda: answers.append(infer(server.http, 12))) for _ in range(2)]
        for thread in asking:
            thread.start()
        gate.wait()
        until(lambda: server.service.active() == 2)
        assert ready(server.http) == 200
        server.stop()
        until(lambda: ready(server.http) == 503)
        status, message = infer(server.http, 1)
        assert (status, "the server is stopping" in message["error"]) == (503, True)
        gate.open.set()
        for thread in asking:
            thread.join(10)
    assert [status for status, _ in answers] == [200, 200]
    assert [event["event"] for event in map(json.loads, server.log.getvalue().splitlines())][-2:] == [
        "stopping",
        "stopped",
    ]


def start(*arguments: object, **environment: str) -> tuple[subprocess.Popen[str], str]:
    """A server of its own process, and its address."""
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    return process, line.split()[1].removeprefix("http://").rstrip(",") if line else ""


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_the_command(golden_plan: Path, tmp_path: Path, signum: int) -> None:
    plan = tmp_path / "v2.plan"
    plan.write_bytes(golden_plan.read_bytes())
    process, address = start(plan, "--no-grpc", "--threads", "1")
    try:
        assert infer(address, 3)[0] == 200
        replaced = tmp_path / "new.plan"
        replaced.write_bytes(b"another file")
        replaced.replace(plan)  # under the server, which keeps what it has opened
        assert infer(address, 100)[0] == 200
        process.send_signal(signum)
        _, log = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 0
    events = [json.loads(line) for line in log.splitlines()]
    assert [event["event"] for event in events] == ["ready", "infer", "infer", "stopping", "stopped"]
    assert events[1]["images"] == 3
    assert events[1]["outcome"] == "ok"


def test_a_plan_that_is_cut_short(golden_plan: Path, tmp_path: Path) -> None:
    plan = tmp_path / "v2.plan"
    plan.write_bytes(golden_plan.read_bytes())
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    process, address = start(plan, "--no-grpc", TMPDIR=str(temporary))
    try:
        assert not list(temporary.iterdir())
        os.truncate(plan, 0)
        assert infer(address, 100)[0] == 200
        with urllib.request.urlopen(f"http://{address}/v2/models/v2/config") as answer:
            config = json.load(answer)
        expected = Plan.open(golden_plan).digest
        assert json.loads(config["parameters"]["plan"]["string_value"]) == expected
    finally:
        process.terminate()
        process.communicate(timeout=20)


@pytest.mark.parametrize("timeout", ["3000000", "1e300"])
def test_limits_that_other_libraries_do_not_hold(golden_plan: Path, timeout: str) -> None:
    """gRPC takes messages of 31 bits, and a socket that number of milliseconds."""
    options = ["--max-body", "2147483648", "--timeout", timeout, "--max-images", "99999999999999999999"]
    process, address = start(golden_plan, "--name", "v2", "--grpc-port", "0", *options)
    try:
        assert infer(address, 3)[0] == 200
        body = json.dumps({"parameters": {"count": 3, "timeout": 10**400}}).encode()
        with urllib.request.urlopen(f"http://{address}/v2/models/v2/infer", body, timeout=30) as answer:
            assert answer.status == 200
    finally:
        process.terminate()
        _, log = process.communicate(timeout=20)
    assert [json.loads(line)["event"] for line in log.splitlines()] == [
        "ready",
        "infer",
        "infer",
        "stopping",
        "stopped",
    ]


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full"])
def test_a_log_that_nobody_takes(golden_plan: Path, redirection: str) -> None:
    process = subprocess.Popen(
        [
            "/bin/sh",
            "-c",
            f'exec "$@" {redirection}',
            "sh",
            *COMMAND,
            str(golden_plan),
            "--name",
            "v2",
            "--no-grpc",
            "--port",
            "0",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().split()[1].removeprefix("http://")
        for _ in range(2):
            assert infer(address, 3)[0] == 200
    finally:
        process.terminate()
        process.communicate(timeout=20)
    assert process.returncode == 0


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(golden_plan: Path, signum: int) -> None:
    process, address = start(golden_plan, "--name", "v2", "--no-grpc", "--max-images", "2000000")
    endless = json.dumps({"parameters": {"count": 2_000_000, "binary_data_output": True}}).encode()
    head = f"POST /v2/models/v2/infer HTTP/1.1\r\nHost: {address}\r\nContent-Length: {len(endless)}\r\n\r\n"
    try:
        with socket.create_connection(("127.0.0.1", int(address.split(":")[1]))) as asking:
            asking.sendall(head.encode() + endless)
            until(lambda: "cgnrt_active_requests 1" in metrics(address))
            process.send_signal(signum)
            until(lambda: ready(address) == 503)
            process.send_signal(signum)
            assert process.wait(2) == -signum
    finally:
        process.kill()
        process.communicate(timeout=20)


def test_a_token_of_the_environment(golden_plan: Path) -> None:
    process, address = start(golden_plan, "--name", "v2", "--no-grpc", "--quiet", CGNRT_TOKEN="s3cret")
    try:
        assert infer(address, 1)[0] == 401
    finally:
        process.terminate()
        process.communicate(timeout=20)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-images", "0"], "--max-images is 0, expected a positive number"),
        (["--timeout", "nan"], "--timeout is nan, expected a positive number"),
        (["--timeout", "inf"], "--timeout is inf, expected a positive number"),
        (["--bank-cache", "-1"], "--bank-cache is -1, expected 0 or more"),
        (["--port", "70000"], "port is 70000"),
        (["--name", "a/b"], "name is 'a/b', expected 1 to 255 printable characters without '/'"),
        (["--name", ".."], "name is '..'"),
        (["--name", ""], "name is ''"),
        (["--name", "a\0"], "name is"),
        (["--token-file", "/nothing/there"], "token file '/nothing/there' cannot be read"),
        (["--host", "192.0.2.1", "--port", "0"], "cannot be used"),
        (["--certificate", "/nothing/there"], "one of certificate and key"),
    ],
)
def test_what_it_does_not_start_with(
    golden_plan: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from cgnrt.cli import main

    assert main(["serve", str(golden_plan), "--no-grpc", *arguments]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("given", "size"), [(["--bank-cache", "4096"], 4096), ([], 1 << 30)])
def test_memory_for_the_pictures_of_banks(
    golden_bank_streams_plan: Path, given: list[str], size: int
) -> None:
    arguments = _parser().parse_args(["serve", str(golden_bank_streams_plan), *given])
    with _open(arguments) as found:
        assert found._pipeline.options.bank_cache_bytes == size
        assert (found.dtype, found.image_shape[-1]) == ("uint8", 3)


def test_a_port_that_is_taken(golden_plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from cgnrt.cli import main

    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert main(["serve", str(golden_plan), "--no-grpc", "--port", str(port)]) == 1
    assert f"port {port} of '127.0.0.1' cannot be used" in capsys.readouterr().err


def test_plans_that_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from cgnrt.cli import main

    (tmp_path / "text.plan").write_text("no plan")
    for name in ("text.plan", "missing.plan"):
        assert main(["serve", str(tmp_path / name)]) == 1
        assert f"'{tmp_path / name}'" in capsys.readouterr().err


def test_no_room_for_a_copy(
    golden_plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from cgnrt.cli import main

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("shutil.copyfile", full)
    assert main(["serve", str(golden_plan)]) == 1
    assert "No space left on device). Set TMPDIR" in capsys.readouterr().err


def test_an_empty_token(golden_plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from cgnrt.cli import main

    (tmp_path / "token").write_text("\n")
    assert main(["serve", str(golden_plan), "--no-grpc", "--token-file", str(tmp_path / "token")]) == 1
    assert "token is empty" in capsys.readouterr().err


HIDDEN = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            raise ModuleNotFoundError(name, name=name)

module = sys.argv.pop(1)
sys.meta_path.insert(0, Hidden())
from cgnrt.cli import main
sys.exit(main())
"""


@pytest.mark.parametrize(
    ("module", "package"),
    [("prometheus_client", "prometheus-client"), ("grpc", "grpcio"), ("google.protobuf", "protobuf")],
)
def test_a_missing_package_is_named(golden_plan: Path, module: str, package: str) -> None:
    command = [sys.executable, "-c", HIDDEN, module, "serve", str(golden_plan)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert (
        done.stderr
        == f"cgnrt serve: serve: package '{package}' is not installed. Run: pip install 'cgnrt[serve]'\n"
    )
