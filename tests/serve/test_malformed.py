"""What no client of ours sends."""

from __future__ import annotations

import gzip
import http.client
import json
import struct
from typing import Any

import pytest
from serving import Running

COUNT = {"name": "count", "datatype": "INT64", "shape": [1], "data": [1]}


def post(
    server: Running, body: bytes, headers: dict[str, str] | None = None, path: str = "/v2/models/v2/infer"
) -> tuple[int, str]:
    """Status, and the message of the error."""
    connection = http.client.HTTPConnection("127.0.0.1", server.bound.port, timeout=10)
    connection.request("POST", path, body, headers or {})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    assert answer.getheader("content-type") == "application/json"
    return answer.status, json.loads(content).get("error", "")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"\xff", "expected a JSON object"),
        (b"[]", "JSON is a list"),
        (b"{", "expected a JSON object"),
        (b"[" * 100_000, "expected a JSON object"),
        (b'{"id": NaN}', "NaN is not JSON"),
        (b'{"parameters": {"count": ' + b"9" * 5000 + b"}}", "expected a JSON object"),
        (b'{"parameters": {"count": ' + b"9" * 4000 + b"}}", "expected an integer of 64 bits"),
        (b'{"inputs": 3}', "inputs is not a list"),
        (b'{"inputs": [3]}', "inputs is not a list"),
        (b'{"inputs": [{}]}', "it has no data"),
        (b'{"id": 3}', "id is not a string"),
        (b'{"parameters": []}', "parameters is not an object"),
        (b'{"parameters": {"count": [1]}}', "not a single value"),
        (b'{"parameters": {"count": 1e400}}', "count is inf"),
        (b'{"parameters": {"count": true}}', "count is True"),
        (b'{"parameters": {"count": 1, "texture": 1.5}}', "texture is 1.5"),
        (b'{"parameters": {"count": 1, "texture": "\\ud800"}}', "texture is"),
        (b'{"parameters": {"count": 1, "binary_data_output": "yes", "\\ud800": 1}}', "parameter is"),
        (b'{"outputs": [{}]}', "a name is missing"),
    ],
)
def test_no_message(server: Running, body: bytes, message: str) -> None:
    status, error = post(server, body)
    assert status == 400
    assert message in error


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": 3}, "name is 3"),
        ({"name": ""}, "name is ''"),
        ({"datatype": "INT65"}, "datatype is 'INT65'"),
        ({"datatype": ["INT64"]}, "datatype is"),
        ({"shape": "1"}, "shape is '1'"),
        ({"shape": [-1]}, "shape is [-1]"),
        ({"shape": [1.0]}, "shape is [1.0]"),
        ({"shape": [True]}, "shape is [True]"),
        ({"shape": [1] * 9}, "shape is"),
        ({"shape": [2]}, "values are 1, expected 2"),
        ({"shape": [2, 2], "data": [1, 2, 3, 4]}, "expected one dimension"),
        ({"data": 3}, "data is 3"),
        ({"data": ["x"]}, "value 0 is 'x'"),
        ({"data": [1.5]}, "value 0 is 1.5"),
        ({"data": [True]}, "value 0 is True"),
        ({"data": [None]}, "value 0 is None"),
        ({"data": [2**63]}, "out of the range of INT64"),
        ({"data": [[[[[[[[[[1]]]]]]]]]]}, "nested too deep"),
        ({"datatype": "BYTES"}, "expected a string"),
        ({"datatype": "BYTES", "data": ["x"]}, "count is b'x'"),
        ({"datatype": "FP32", "data": [1e300]}, "count is inf"),
        ({"parameters": {"binary_data_size": 8}}, "it has data and binary_data_size"),
        ({"parameters": {"shared_memory_region": "x"}}, "it has data and shared_memory_region"),
    ],
)
def test_no_tensor(server: Running, change: dict[str, Any], message: str) -> None:
    status, error = post(server, json.dumps({"inputs": [COUNT | change]}).encode())
    assert status == 400
    assert message in error


@pytest.mark.parametrize("shape", [[10**9, 10**9], [2**63, 0], [4096] * 7 + [0]])
def test_too_many_values(server: Running, shape: list[int]) -> None:
    entry = COUNT | {"shape": shape, "data": []}
    status, error = post(server, json.dumps({"inputs": [entry]}).encode())
    assert (status, "expected at most" in error) == (413, True)


def test_an_input_twice(server: Running) -> None:
    status, error = post(server, json.dumps({"inputs": [COUNT, COUNT]}).encode())
    assert (status, "'count' is given twice" in error) == (400, True)


def text(*values: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(value)) + value for value in values)


@pytest.mark.parametrize(
    ("datatype", "shape", "said", "raw", "message"),
    [
        ("INT64", [1], 8, b"\0" * 7, "binary_data_size is 8"),
        ("INT64", [1], 7, b"\0" * 7, "bytes are 7, expected 8"),
        ("INT64", [1], 8, b"\0" * 9, "1 bytes belong to no input"),
        ("INT64", [1], -8, b"\0" * 8, "binary_data_size is -8"),
        ("INT64", [1], "8", b"\0" * 8, "binary_data_size is 8"),
        ("BYTES", [1], 3, b"\0\0\0", "bytes end before value 0"),
        ("BYTES", [2], 5, text(b"a"), "bytes end before value 1"),
        ("BYTES", [1], 8, struct.pack("<I", 2**32 - 1) + b"abcd", "length of value 0 is 4294967295"),
        ("BYTES", [1], 10, text(b"a", b"b"), "5 bytes follow"),
        ("BYTES", [1], 6, text(b"\xff\xfe"), "texture is not UTF-8"),
    ],
)
def test_no_bytes_of_a_tensor(
    server: Running, datatype: str, shape: list[int], said: Any, raw: bytes, message: str
) -> None:
    entry = {
        "name": "texture",
        "datatype": datatype,
        "shape": shape,
        "parameters": {"binary_data_size": said},
    }
    head = json.dumps({"inputs": [COUNT, entry]}).encode()
    status, error = post(server, head + raw, {"Inference-Header-Content-Length": str(len(head))})
    assert status == 400
    assert message in error


@pytest.mark.parametrize("length", ["-1", "1e3", "99999", "", "٣"])
def test_no_length_of_a_header(server: Running, length: str) -> None:
    headers = {"Inference-Header-Content-Length": length.encode().decode("latin-1")}
    status, error = post(server, json.dumps({"inputs": [COUNT]}).encode(), headers)
    assert (status, "Inference-Header-Content-Length" in error) == (400, True)


@pytest.mark.parametrize(
    ("encoding", "body", "status"),
    [
        ("gzip", b"no", 400),
        ("deflate", b"no", 400),
        ("br", b"no", 400),
        ("gzip", gzip.compress(b"{}", mtime=0)[:-9], 400),
        ("gzip", gzip.compress(b" " * 50_000_000, mtime=0), 413),
    ],
)
def test_no_packed_body(server: Running, encoding: str, body: bytes, status: int) -> None:
    assert post(server, body, {"Content-Encoding": encoding})[0] == status


@pytest.mark.parametrize(
    "path", ["/", "/v2/models//infer", "/v2/models/v2/infer/x", "/v2/" + "x" * 5000, "/%ff"]
)
def test_nothing_there(server: Running, path: str) -> None:
    status, message = post(server, b"{}", path=path)
    assert status == 404
    assert "See /v2/models/v2 for the model" in message or "expected" in message


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"key": 3, "byte_size": 8},
        {"key": "../etc/passwd", "byte_size": 8},
        {"key": "/etc/passwd", "byte_size": 8},
        {"key": "nothing-there", "byte_size": 8},
        {"key": "x", "byte_size": True},
    ],
)
def test_no_region(server: Running, message: dict[str, Any]) -> None:
    path = "/v2/systemsharedmemory/region/r/register"
    assert post(server, json.dumps(message).encode(), path=path)[0] == 400
