"""A log that nobody can write to any more, or that nobody reads, holds nothing up."""

from __future__ import annotations

import io
import itertools
import json
import logging
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from serving import until

from cgnrt.serve import log as module
from cgnrt.serve.log import Log, LogStream

COMMAND = "import sys; from cgnrt.cli import main; sys.exit(main())"


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_lines_come_in_order() -> None:
    stream = io.StringIO()
    log = Log(stream)
    for k in range(100):
        log.write("infer", k=k)
    log.failure("infer", ValueError("x"))
    log.flush()
    found = events(stream.getvalue())
    assert [event["k"] for event in found[:-1]] == list(range(100))
    assert (found[-1]["event"], found[-1]["during"], found[-1]["error"]) == ("failure", "infer", "x")
    assert log.left_out == 0


def test_requests_may_be_left_out() -> None:
    stream = io.StringIO()
    log = Log(stream, requests=False)
    log.write("infer")
    log.write("other")
    log.flush()
    assert [event["event"] for event in events(stream.getvalue())] == ["other"]


def test_a_pipe_that_nobody_reads() -> None:
    reader, writer = os.pipe()
    with open(writer, "w") as stream:
        log = Log(stream)
        for _ in range(5000):
            log.write("infer", text="x" * 1000)
        assert log.left_out > 3000
        log.flush(0.01)  # does not wait either
        with open(reader) as file:
            assert json.loads(file.readline())["event"] == "infer"
            log.write("stopped")
            lines = map(json.loads, iter(file.readline, ""))
            before = list(itertools.takewhile(lambda event: event["event"] != "stopped", lines))
            assert sum(event["lines"] for event in before if event["event"] == "left out") == log.left_out
            log.flush()


def test_a_full_disk() -> None:
    with open("/dev/full", "w") as stream:
        log = Log(stream)
        for _ in range(100):
            log.write("infer")
        until(lambda: log.left_out >= 100)


def test_a_stream_that_is_closed() -> None:
    with open(os.devnull, "w") as stream:
        log = Log(stream)
    log.write("infer")
    until(lambda: log.left_out == 1)


def test_clients_do_not_fill_a_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two megabytes in a minute, however many lines there are."""
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    log = Log(stream)
    for _ in range(600):
        for _ in range(100):
            log.write("infer", text="x" * 200)
        now[0] += 0.1
    monkeypatch.undo()
    log.write("stopped")
    log.flush(10)
    text = stream.getvalue()
    assert 1_000_000 < len(text) < 2_000_000
    found = events(text)
    assert found[-1]["event"] == "stopped"
    assert sum(event.get("lines", 0) for event in found) == log.left_out == 60_000 - text.count('"infer"')


def test_long_texts_are_cut() -> None:
    stream = io.StringIO()
    log = Log(stream)
    log.write("failure", error="x" * 100_000)
    log.flush()
    assert len(stream.getvalue()) < 17_000


def test_what_libraries_and_threads_say() -> None:
    stream = io.StringIO()
    log = Log(stream)
    with log.libraries():
        logging.getLogger("asyncio").warning("slow %s", "x")
        logging.getLogger("grpc._cython").error("bad")
        logging.getLogger("grpc").info("nothing")
    with_lines = LogStream(log)
    print("one\ntwo", file=with_lines, end="")
    print("\n", file=with_lines)
    log.flush()
    found = [(event["event"], event["message"]) for event in events(stream.getvalue())]
    assert found == [("asyncio", "slow x"), ("grpc._cython", "bad"), ("stderr", "one"), ("stderr", "two")]


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_forked_process_has_a_log_of_its_own() -> None:
    reader, writer = os.pipe()
    with open(writer, "w") as stream, open(reader) as file:
        log = Log(stream)
        log.write("parent")
        log.flush()
        child = os.fork()
        if child == 0:
            log.write("child")
            log.flush()
            os._exit(0)
        os.waitpid(child, 0)
        assert [json.loads(file.readline())["event"] for _ in range(2)] == ["parent", "child"]


@pytest.mark.parametrize("stderr", ["full", "closed", "unread"])
def test_a_server_whose_log_goes_nowhere(golden_plan: Path, stderr: str) -> None:
    command = [sys.executable, "-c", COMMAND, "serve", str(golden_plan), "--name", "v2"]
    command += ["--port", "0", "--grpc-port", "0"]
    redirected = {"full": " 2> /dev/full", "closed": " 2>&-", "unread": ""}[stderr]
    process = subprocess.Popen(
        ["sh", "-c", 'exec "$@"' + redirected, "sh", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().decode().split()[1].rstrip(",")
        body = json.dumps({"id": "x" * 100, "parameters": {"count": 0}}).encode()
        for _ in range(400 if stderr == "unread" else 10):  # more lines than a pipe holds
            with urllib.request.urlopen(f"{address}/v2/models/v2/infer", body, timeout=30) as answer:
                assert answer.status == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()
