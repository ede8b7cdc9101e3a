"""gRPC with NVIDIA's client: what it asks for, streams, shared memory, refusals."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as client
from google.protobuf import descriptor_pb2
from grpc_tools import protoc
from serving import Gate, Running, generator, running, until, wait_for_images
from tritonclient.grpc import model_config_pb2, service_pb2
from tritonclient.utils import InferenceServerException, shared_memory

import cgnrt
from cgnrt.serve.grpc_messages import messages
from cgnrt.serve.limits import Limits
from cgnrt.serve.service import Service

REGION = f"/cgnrt_test_{os.getpid()}"
LIMITS = Limits(images=64, stream_images=1000, piece=16, batch=8, queue=64, body_bytes=100_000, timeout_s=5)


@pytest.fixture(scope="module")
def server(golden_plan: Path) -> Iterator[Running]:
    with running(Service(generator(golden_plan), "v2", limits=LIMITS), grpc=True) as found:
        yield found


@pytest.fixture
def triton(server: Running) -> Iterator[Any]:
    with client.InferenceServerClient(server.grpc) as found:
        yield found


@pytest.fixture
def expected(golden_plan: Path) -> cgnrt.Generator:
    return generator(golden_plan)


def tensor(name: str, values: Any, datatype: str = "INT64") -> Any:
    dtype = {"INT64": np.int64, "UINT64": np.uint64, "FP32": np.float32, "BYTES": np.object_}[datatype]
    array = np.atleast_1d(np.asarray(values, dtype))
    found = client.InferInput(name, list(array.shape), datatype)
    found.set_data_from_numpy(array)
    return found


def order(count: int, seed: int = 3, **more: Any) -> list[Any]:
    return [
        tensor("count", count),
        tensor("seed", seed, "UINT64"),
        *(tensor(name, values) for name, values in more.items()),
    ]


def close(found: Any, wanted: Any) -> None:
    np.testing.assert_allclose(found.astype(int), wanted.astype(int), atol=1)


def test_the_descriptor_set_is_the_proto_file(root: Path, tmp_path: Path) -> None:
    """If this fails, run the command in the first lines of the .proto file."""
    folder = root / "python" / "cgnrt" / "serve"
    out = tmp_path / "open_inference.binpb"
    options = [f"-I{folder}", f"--descriptor_set_out={out}", "open_inference.proto"]
    assert protoc.main(["protoc", *options]) == 0
    compiled = (out, folder / "open_inference.binpb")
    found = [descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes()) for path in compiled]
    assert found[0] == found[1]


def test_messages_and_methods_are_those_of_triton() -> None:
    ours = next(iter(messages().values())).DESCRIPTOR.file
    files = (service_pb2.DESCRIPTOR, model_config_pb2.DESCRIPTOR)

    def fields(descriptor: Any) -> dict[str, Any]:
        proto = descriptor_pb2.DescriptorProto()
        descriptor.CopyToProto(proto)
        return {f.name: (f.number, f.type, f.label, f.type_name) for f in proto.field}

    def compare(descriptor: Any, theirs: Any) -> None:
        assert fields(descriptor).items() <= fields(theirs).items(), descriptor.full_name
        for nested in descriptor.nested_types:
            compare(nested, theirs.nested_types_by_name[nested.name])

    theirs = {name: found for file in files for name, found in file.message_types_by_name.items()}
    for name, descriptor in ours.message_types_by_name.items():
        compare(descriptor, theirs[name])
    enums = [file.enum_types_by_name["DataType"].values for file in (ours, files[1])]
    assert [(v.name, v.number) for v in enums[0]] == [(v.name, v.number) for v in enums[1]]
    methods = files[0].services_by_name["GRPCInferenceService"].methods_by_name
    for method in ours.services_by_name["GRPCInferenceService"].methods:
        same = methods[method.name]
        assert method.input_type.full_name == same.input_type.full_name
        assert method.output_type.full_name == same.output_type.full_name


def test_what_it_is(triton: Any) -> None:
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("v2")
    assert triton.is_model_ready("v2", "1")
    metadata = triton.get_server_metadata(as_json=True)
    assert metadata["name"] == "cgnrt"
    assert metadata["version"] == cgnrt.__version__
    model = triton.get_model_metadata("v2", as_json=True)
    assert [entry["name"] for entry in model["outputs"]][:2] == ["images", "labels"]
    config = triton.get_model_config("v2", as_json=True)["config"]
    assert config["name"] == "v2"
    assert config["input"][0] == {"name": "count", "data_type": "TYPE_INT64", "dims": ["1"]}
    assert "classes" in config["parameters"]


def test_infer(triton: Any, expected: cgnrt.Generator) -> None:
    answer = triton.infer("v2", order(5, start=7), request_id="a")
    batch = expected.sample(5, seed=3, start=7)
    close(answer.as_numpy("images"), batch.images)
    np.testing.assert_array_equal(answer.as_numpy("labels"), np.stack(batch.labels, axis=1))
    message = answer.get_response()
    assert message.id == "a"
    assert message.parameters["seed"].int64_param == 3


def test_class_names_and_parts(triton: Any, expected: cgnrt.Generator) -> None:
    name = expected.classes["texture"][1]
    outputs = [client.InferRequestedOutput(each) for each in ("mask", "labels")]
    inputs = [*order(3), tensor("texture", [name.encode()], "BYTES")]
    answer = triton.infer("v2", inputs, outputs=outputs)
    batch = expected.sample(3, seed=3, do={"texture": name}, parts=True)
    np.testing.assert_allclose(answer.as_numpy("mask"), batch.mask, atol=1e-4)
    assert answer.as_numpy("labels")[:, 1].tolist() == [1, 1, 1]
    assert answer.as_numpy("images") is None


def test_values_that_are_not_raw(server: Running, expected: cgnrt.Generator) -> None:
    """Other clients put values into `contents`."""
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    message = service_pb2.ModelInferRequest(model_name="v2")
    for name, field, values in (("count", "int64_contents", [2]), ("seed", "uint64_contents", [9])):
        entry = message.inputs.add(name=name, datatype="UINT64" if name == "seed" else "INT64", shape=[1])
        getattr(entry.contents, field).extend(values)
    entry = message.inputs.add(name="shape", datatype="BYTES", shape=[1])
    entry.contents.bytes_contents.append(expected.classes["shape"][2].encode())
    with grpc.insecure_channel(server.grpc) as channel:
        answer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(message)
    labels = np.frombuffer(answer.raw_output_contents[1], np.int64).reshape(2, 3)
    assert labels[:, 0].tolist() == [2, 2]


def test_streams_give_the_samples_in_pieces(triton: Any, expected: cgnrt.Generator) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    triton.start_stream(lambda result, error: answers.put((result, error)))
    triton.async_stream_infer("v2", order(40), request_id="x")
    triton.async_stream_infer("v2", [tensor("count", -1)], request_id="bad")
    triton.async_stream_infer("v2", order(1, seed=4), request_id="y")
    found = [answers.get(timeout=20) for _ in range(5)]
    triton.stop_stream()
    pieces = [result for result, error in found[:3] if error is None]
    assert [len(piece.as_numpy("images")) for piece in pieces] == [16, 16, 8]
    last = [piece.get_response().parameters["triton_final_response"].bool_param for piece in pieces]
    assert last == [False, False, True]
    close(np.concatenate([piece.as_numpy("images") for piece in pieces]), expected.sample(40, seed=3).images)
    assert "count is -1" in str(found[3][1])
    close(found[4][0].as_numpy("images"), expected.sample(1, seed=4).images)


@pytest.fixture
def region() -> Iterator[Any]:
    handle = shared_memory.create_shared_memory_region("cgnrt_test", REGION, 1 << 16)
    Path(f"/dev/shm{REGION}").chmod(0o666)
    yield handle
    shared_memory.destroy_shared_memory_region(handle)


def test_outputs_in_shared_memory(triton: Any, region: Any, expected: cgnrt.Generator) -> None:
    triton.register_system_shared_memory("here", REGION, 1 << 16)
    try:
        status = triton.get_system_shared_memory_status(as_json=True)["regions"]["here"]
        assert status["key"] == REGION
        images = client.InferRequestedOutput("images")
        images.set_shared_memory("here", 4 * 8 * 8 * 3, offset=64)
        labels = client.InferRequestedOutput("labels")
        answer = triton.infer("v2", order(4), outputs=[images, labels])
        batch = expected.sample(4, seed=3)
        close(shared_memory.get_contents_as_numpy(region, np.uint8, [4, 8, 8, 3], offset=64), batch.images)
        np.testing.assert_array_equal(answer.as_numpy("labels"), np.stack(batch.labels, axis=1))
        images.set_shared_memory("here", 10)
        with pytest.raises(InferenceServerException, match="bytes are 768, expected at most 10"):
            triton.infer("v2", order(4), outputs=[images])
        with pytest.raises(InferenceServerException, match=r"INVALID_ARGUMENT.*name is 'here'"):
            triton.register_system_shared_memory("here", REGION, 16)
        with pytest.raises(InferenceServerException, match=r"key is '/\.\./etc/passwd'"):
            triton.register_system_shared_memory("there", "/../etc/passwd", 16)
    finally:
        triton.unregister_system_shared_memory()
    with pytest.raises(InferenceServerException, match="NOT_FOUND"):
        triton.infer("v2", order(4), outputs=[images])


def test_inputs_in_shared_memory(triton: Any, region: Any) -> None:
    shared_memory.set_shared_memory_region(region, [np.array([3], np.int64)])
    triton.register_system_shared_memory("in", REGION, 1 << 10)
    try:
        count = client.InferInput("count", [1], "INT64")
        count.set_shared_memory("in", 8)
        assert len(triton.infer("v2", [count]).as_numpy("images")) == 3
        count.set_shared_memory("in", 1 << 10)  # which is not even read
        with pytest.raises(InferenceServerException, match="bytes are 1024, expected at most 8"):
            triton.infer("v2", [count])
    finally:
        triton.unregister_system_shared_memory("in")


REFUSED: list[tuple[str, list[Any], str]] = [
    ("count beyond the limit", order(65), r"\[StatusCode.INVALID_ARGUMENT\].*count is 65|RESOURCE_EXHAUSTED"),
    ("no count", [tensor("seed", 1, "UINT64")], "INVALID_ARGUMENT.*count"),
    ("unknown input", [*order(1), tensor("colour", 1)], "INVALID_ARGUMENT.*colour"),
    ("unknown class", [*order(1), tensor("shape", [b"elephant"], "BYTES")], "INVALID_ARGUMENT.*elephant"),
    ("twice", [*order(1), tensor("count", 2)], "INVALID_ARGUMENT.*'count' is given twice"),
    ("many values", [*order(1), tensor("shape", [0] * 500)], "RESOURCE_EXHAUSTED.*values are 500"),
]


@pytest.mark.parametrize(("inputs", "message"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_refused_requests(triton: Any, inputs: list[Any], message: str) -> None:
    with pytest.raises(InferenceServerException, match=message):
        triton.infer("v2", inputs)
    assert len(triton.infer("v2", order(1)).as_numpy("images")) == 1


def test_models_that_are_not_there(triton: Any) -> None:
    for call in (triton.get_model_metadata, triton.get_model_config):
        with pytest.raises(InferenceServerException, match=r"NOT_FOUND.*expected 'v2'"):
            call("v3")
    with pytest.raises(InferenceServerException, match="NOT_FOUND"):
        triton.infer("v2", order(1), model_version="7")


def test_bytes_that_are_no_message(server: Running) -> None:
    with grpc.insecure_channel(server.grpc) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError) as found:
            call(b"\xff" * 100, timeout=5)
        assert found.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.RpcError) as found:
            call(b"\n" + b"\0" * 200_000, timeout=5)
        assert found.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_deadline_leaves_the_server_working(triton: Any) -> None:
    with pytest.raises(InferenceServerException, match="Deadline Exceeded"):
        triton.infer("v2", order(64), client_timeout=1e-5)
    with pytest.raises(InferenceServerException, match="no answer within 1e-06 s") as found:
        triton.infer("v2", order(64), timeout=1)
    assert found.value.status() == "StatusCode.DEADLINE_EXCEEDED"
    assert len(triton.infer("v2", order(2)).as_numpy("images")) == 2


def test_however_requests_end_their_room_is_given_back(golden_plan: Path) -> None:
    limits = replace(LIMITS, requests=2, answer_bytes=64 * (8 * 8 * 3 + 3 * 8))
    service = Service(generator(golden_plan), "v2", limits=limits)

    def empty() -> bool:
        return b"cgnrt_answer_bytes 0.0\n" in service.metrics.text()

    with running(service, grpc=True) as found, client.InferenceServerClient(found.grpc) as triton:
        for timeout in (None, 1e-5, 1e-4, 1e-3, 2e-3, 5e-3) * 5:
            with contextlib.suppress(InferenceServerException):
                triton.infer("v2", order(64), client_timeout=timeout)
            with contextlib.suppress(InferenceServerException):
                triton.infer("v2", order(-1))
        with client.InferenceServerClient(found.grpc) as other:
            asked = [
                other.async_infer("v2", order(64), callback=lambda result, error: None) for _ in range(20)
            ]
            for call in asked[::2]:
                call.cancel()
        until(empty)
        until(lambda: service.active() == 0)
        assert len(triton.infer("v2", order(64)).as_numpy("images")) == 64


def test_a_few_requests_at_once(golden_plan: Path) -> None:
    shared, gate = generator(golden_plan), Gate()
    gate.hold(shared)
    service = Service(shared, "v2", limits=replace(LIMITS, requests=1))
    with running(service, grpc=True) as found, client.InferenceServerClient(found.grpc) as triton:
        answers: queue.Queue[Any] = queue.Queue()
        triton.async_infer("v2", order(1), callback=lambda result, error: answers.put((result, error)))
        gate.wait()
        with pytest.raises(InferenceServerException, match=r"RESOURCE_EXHAUSTED.*requests under way are 1"):
            triton.infer("v2", order(1))
        gate.open.set()
        assert answers.get(timeout=10)[1] is None
        assert len(triton.infer("v2", order(1)).as_numpy("images")) == 1


def test_a_stream_that_is_not_read(golden_plan: Path) -> None:
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    limits = replace(
        LIMITS, stream_images=100_000, piece=1024, batch=1024, queue=4096, streams=1, timeout_s=0.5
    )
    service = Service(generator(golden_plan), "v2", limits=limits)
    message = service_pb2.ModelInferRequest(model_name="v2")
    message.parameters["count"].int64_param = 100_000
    with running(service, grpc=True) as found, grpc.insecure_channel(found.grpc) as channel:
        wait_for_images(service)
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        pieces = stub.ModelStreamInfer(iter([message]))
        next(pieces)
        until(lambda: service.active() == 0)
        until(lambda: b"cgnrt_answer_bytes 0.0\n" in service.metrics.text())
        message.parameters["count"].int64_param = 2000
        assert len(list(stub.ModelStreamInfer(iter([message])))) == 2
        with pytest.raises(grpc.RpcError) as caught:
            for _ in pieces:
                pass
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert "not read in time" in caught.value.details()
    assert not found.events("failure")


def test_a_token(golden_plan: Path) -> None:
    service = Service(generator(golden_plan), "v2", limits=LIMITS, token="secret")
    with running(service, grpc=True) as found, client.InferenceServerClient(found.grpc) as triton:
        assert triton.is_server_live()
        with pytest.raises(InferenceServerException, match="UNAUTHENTICATED"):
            triton.infer("v2", order(1))
        with pytest.raises(InferenceServerException, match="UNAUTHENTICATED"):
            triton.infer("v2", order(1), headers={"authorization": "Bearer other"})
        answer = triton.infer("v2", order(1), headers={"authorization": "Bearer secret"})
        assert len(answer.as_numpy("images")) == 1
        answers: queue.Queue[Any] = queue.Queue()
        triton.start_stream(lambda result, error: answers.put(error))
        assert "authorize: token is missing" in str(answers.get(timeout=10))
        triton.stop_stream()


def test_a_port_that_is_taken(golden_plan: Path, server: Running) -> None:
    from cgnrt.serve.grpc import grpc_server
    from cgnrt.serve.shared_memory import Regions

    async def open_it() -> None:
        grpc_server(server.service, Regions(), "127.0.0.1", int(server.bound.grpc_port or 0))

    with pytest.raises(cgnrt.CgnrtError, match=r"cannot be used for gRPC\. Choose another --grpc-port"):
        asyncio.run(open_it())


def test_messages_that_do_not_end(golden_plan: Path) -> None:
    """They end with the time limit, and those who ask whether the server lives do not wait."""
    limits = replace(LIMITS, timeout_s=0.5, received_bytes=4 * LIMITS.body_bytes)
    service = Service(generator(golden_plan), "v2", limits=limits, token="secret")

    def endless(over: threading.Event) -> Iterator[bytes]:
        over.wait(30)
        yield b""

    over = threading.Event()
    with running(service, grpc=True) as found, grpc.insecure_channel(found.grpc) as channel:
        call = channel.stream_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError) as caught:  # the token is looked at first
            call(endless(over), timeout=20)
        assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
        metadata = (("authorization", "Bearer secret"),)
        asked = [call.future(endless(over), timeout=20, metadata=metadata) for _ in range(8)]
        live = channel.stream_unary("/inference.GRPCInferenceService/ServerLive")
        live(endless(over), timeout=20)  # its message is not waited for
        for answer in asked:
            assert answer.exception().code() == grpc.StatusCode.DEADLINE_EXCEEDED
            assert "not sent in time" in answer.exception().details()
        stream = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
        with pytest.raises(grpc.RpcError) as caught:
            list(stream(endless(over), timeout=20, metadata=metadata))
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        over.set()
    assert not found.events("failure")


def test_answers_that_are_not_read(golden_plan: Path) -> None:
    """Their connection is closed, and what they held is free."""
    limits = replace(LIMITS, images=20_000, batch=4096, queue=1 << 20, requests=3, timeout_s=1.0)
    service = Service(generator(golden_plan), "v2", limits=limits)
    message = service_pb2.ModelInferRequest(model_name="v2")
    message.parameters["count"].int64_param = 20_000
    body = message.SerializeToString()
    with running(service, grpc=True) as found:
        wait_for_images(service)
        host, port = found.grpc.split(":")
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            # A window of one byte for each stream, and three calls.
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"\0\4\0\0\0\1"))
            for stream in (1, 3, 5):
                fields = (
                    (":method", "POST"),
                    (":scheme", "http"),
                    (":path", "/inference.GRPCInferenceService/ModelInfer"),
                    (":authority", "localhost"),
                    ("te", "trailers"),
                    ("content-type", "application/grpc"),
                )
                head = b"".join(
                    b"\0" + bytes([len(n)]) + n.encode() + bytes([len(v)]) + v.encode() for n, v in fields
                )
                connection.sendall(frame(1, 4, stream, head))
                connection.sendall(frame(0, 1, stream, b"\0" + len(body).to_bytes(4, "big") + body))
            until(lambda: len(found.events("dropped")) > 0, 30)
            with contextlib.suppress(ConnectionResetError):
                while connection.recv(1 << 16):
                    pass
        until(lambda: service.under_way.count("requests") == 0, 30)
        assert service.under_way.count("bytes of answers") == 0
        with client.InferenceServerClient(found.grpc) as triton:
            assert len(triton.infer("v2", order(1)).as_numpy("images")) == 1


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """A frame of HTTP/2."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
