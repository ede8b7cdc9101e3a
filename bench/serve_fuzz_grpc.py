"""The requests of `serve_fuzz` over gRPC: protobuf messages, and bytes that are not protobuf."""

from __future__ import annotations

import collections
import random
from typing import Any

import grpc
from serve_clients import Server
from serve_requests import infer_message, mutate
from tritonclient.grpc import service_pb2

_SERVICE = "/inference.GRPCInferenceService/"
_METHODS = (
    "ModelReady",
    "ModelMetadata",
    "ModelConfig",
    "SystemSharedMemoryRegister",
    "SystemSharedMemoryStatus",
)
_REFUSED = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.UNIMPLEMENTED,
)
_CONTENTS = ("int64_contents", "int_contents", "fp32_contents", "bytes_contents", "bool_contents")


def fuzz_grpc(server: Server, n: int, rng: random.Random) -> collections.Counter[str]:
    """gRPC requests, some of them in streams; a status that blames the server counts as failed."""
    found: collections.Counter[str] = collections.Counter()
    with grpc.insecure_channel(server.grpc) as channel:
        stream = channel.stream_stream(f"{_SERVICE}ModelStreamInfer")
        for _ in range(n):
            body = request(server.model, rng).SerializeToString()
            if rng.random() < 0.3:
                body = mutate(body, rng)
            try:
                if rng.random() < 0.1:
                    answers = list(stream(iter([body] * rng.randrange(3)), timeout=60))
                    parsed = [service_pb2.ModelStreamInferResponse.FromString(answer) for answer in answers]
                    failed = any("Its log says why" in answer.error_message for answer in parsed)
                    found[
                        "failed" if failed else "refused" if any(a.error_message for a in parsed) else "ok"
                    ] += 1
                    continue
                name = "ModelInfer" if rng.random() < 0.9 else rng.choice((*_METHODS, "Nothing"))
                channel.unary_unary(f"{_SERVICE}{name}")(body, timeout=60)
                found["ok"] += 1
            except grpc.RpcError as error:
                found[_kind(error)] += 1
    return found


def request(model: str, rng: random.Random) -> Any:
    """A `ModelInferRequest`, more or less like a good one."""
    message = infer_message(rng)
    found = service_pb2.ModelInferRequest(
        model_name=model if rng.random() < 0.97 else rng.choice(("", "..", "\x00"))
    )
    _set(found.parameters, message.get("parameters"), rng)
    for entry in _dicts(message.get("inputs")):
        tensor = found.inputs.add(name=_text(entry.get("name")), datatype=_text(entry.get("datatype")))
        shape = entry.get("shape")
        tensor.shape.extend(_long(extent) for extent in (shape if isinstance(shape, list) else ()))
        _set(tensor.parameters, entry.get("parameters"), rng)
        if rng.random() < 0.5:
            found.raw_input_contents.append(rng.randbytes(rng.choice((0, 1, 4, 8, 8, 8, 40))))
        else:
            value = {"fp32_contents": 1e30, "bytes_contents": b"\xff", "bool_contents": True}
            name = rng.choice(_CONTENTS)
            getattr(tensor.contents, name).extend([value.get(name, 3)] * rng.randrange(4))
    for entry in _dicts(message.get("outputs")):
        output = found.outputs.add(name=_text(entry.get("name")))
        if rng.random() < 0.3:
            output.parameters["shared_memory_region"].string_param = "nothing"
            output.parameters["shared_memory_byte_size"].int64_param = rng.choice((0, -1, 10, 2**63 - 1))
    return found


def _set(target: Any, values: Any, rng: random.Random) -> None:
    for name, value in values.items() if isinstance(values, dict) else ():
        if isinstance(value, bool):
            target[name].bool_param = value
        elif isinstance(value, int):
            target[name].int64_param = _long(value)
        elif isinstance(value, float):
            target[name].double_param = value
        elif isinstance(value, str):
            target[name].string_param = _text(value)
        elif rng.random() < 0.5:
            target[name].SetInParent()


def _dicts(entries: Any) -> list[dict[str, Any]]:
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def _text(value: Any) -> str:
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else ""


def _long(value: Any) -> int:
    return max(-(2**63), min(2**63 - 1, value)) if isinstance(value, int) else 0


def _kind(error: grpc.RpcError) -> str:
    code, text = error.code(), error.details() or ""
    if code == grpc.StatusCode.DEADLINE_EXCEEDED or (
        code == grpc.StatusCode.RESOURCE_EXHAUSTED and "images that wait" in text
    ):
        return "busy"
    if code in _REFUSED or code == grpc.StatusCode.RESOURCE_EXHAUSTED:
        return "refused"
    return "failed"
