"""Inference requests and responses over HTTP: JSON, followed by the bytes of binary tensors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cgnrt.serve.protocol import (
    MOST_TENSORS,
    InferRequest,
    InferResponse,
    Parameter,
    ServeError,
    Tensor,
    Wanted,
)
from cgnrt.serve.shared_memory import REGION, Regions, from_region, region_slice, to_region
from cgnrt.serve.tensors import from_json, from_raw, to_json, to_raw

Buffer = bytes | bytearray | memoryview


_MOST_JSON_BYTES = 1 << 22
_BYTE_CHARACTERS, _VALUE_CHARACTERS = 5, 24  # of a value of one byte and of a larger one, at most


def read_json(body: Buffer) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
      ServeError: the body is not one.
    """
    if len(body) > _MOST_JSON_BYTES:  # nothing else runs while it is parsed
        raise ServeError(
            "too_large",
            f"read body: bytes of JSON are {len(body)}, expected at most {_MOST_JSON_BYTES}. Send binary data.",
        )
    try:
        found = json.loads(bytes(body) or b"{}", parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ServeError("invalid", f"read body: {str(error)[:200]}, expected a JSON object.") from error
    if not isinstance(found, dict):
        raise ServeError("invalid", f"read body: JSON is a {type(found).__name__}, expected an object.")
    return found


def read_infer(
    body: Buffer, header_length: str | None, model: str, version: str, regions: Regions, *, most_values: int
) -> InferRequest:
    """Read an inference request.

    Args:
      header_length: `Inference-Header-Content-Length`, the bytes of the body that are JSON; None is all.
      most_values: limit of the values of each input.
    Raises:
      ServeError: the request is malformed.
    """
    json_size = len(body)
    if header_length is not None:
        json_size = int(header_length) if header_length.isascii() and header_length.isdecimal() else -1
        if not 0 <= json_size <= len(body):
            raise ServeError(
                "invalid",
                f"read body: Inference-Header-Content-Length is {header_length[:40]!r}, expected 0..{len(body)}.",
            )
    message = read_json(memoryview(body)[:json_size])
    rest = memoryview(body)[json_size:]
    inputs: dict[str, Tensor] = {}
    for entry in _entries(message, "inputs"):
        tensor, rest = _read_tensor(entry, rest, regions, most_values)
        if tensor.name in inputs:
            raise ServeError("invalid", f"read inputs: '{tensor.name}' is given twice, expected once.")
        inputs[tensor.name] = tensor
    if len(rest):
        raise ServeError("invalid", f"read body: {len(rest)} bytes belong to no input. Set binary_data_size.")
    wanted = []
    for entry in _entries(message, "outputs"):
        name, parameters = entry.get("name"), _parameters(entry)
        if not isinstance(name, str):
            raise ServeError("invalid", "read outputs: a name is missing or not a string.")
        if "classification" in parameters:
            raise ServeError(
                "invalid", f"read outputs: '{name}' has a classification, which is not supported."
            )
        wanted.append(Wanted(name, parameters))
    identity = message.get("id", "")
    if not isinstance(identity, str):
        raise ServeError("invalid", "read body: id is not a string.")
    return InferRequest(model, version, identity, inputs, _parameters(message), tuple(wanted))


def write_infer(
    response: InferResponse, request: InferRequest, regions: Regions
) -> tuple[bytes, list[Buffer]]:
    """Make the JSON of a response, and the bytes that follow it, in order.

    Raises:
      ServeError: an output is larger than its shared memory, or JSON does not support it.
    """
    outputs: list[str] = []
    buffers: list[Buffer] = []
    for tensor, asked, way in _ways(response, request):
        entry: dict[str, Any] = {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": list(tensor.shape),
        }
        data = ""
        if way == "region":
            where = region_slice(tensor.name, asked)
            assert where is not None
            entry["parameters"] = to_region(tensor, where, regions)
        elif way == "binary":
            raw = to_raw(tensor)
            entry["parameters"] = {"binary_data_size": len(raw)}
            buffers.append(raw)
        else:
            data = f', "data": [{to_json(tensor)}]'
        outputs.append(json.dumps(entry)[:-1] + data + "}")
    message: dict[str, Any] = {
        "model_name": response.model,
        "model_version": response.version,
        "parameters": dict(response.parameters),
    }
    if response.id:
        message["id"] = response.id
    text = json.dumps(message)[:-1] + ', "outputs": [' + ", ".join(outputs) + "]}"
    return text.encode(), buffers


def json_bytes(response: InferResponse, request: InferRequest) -> int:
    """The memory of a response's JSON, roughly."""
    return sum(
        tensor.data.size * (_BYTE_CHARACTERS if tensor.data.itemsize == 1 else _VALUE_CHARACTERS)
        for tensor, _, way in _ways(response, request)
        if way == "json"
    )


def _ways(
    response: InferResponse, request: InferRequest
) -> Iterator[tuple[Tensor, Mapping[str, Parameter], str]]:
    """Each output, its parameters in the request, and how it is sent: "region", "binary" or "json"."""
    wanted = {output.name: output.parameters for output in request.outputs}
    binary_usually = request.parameters.get("binary_data_output") is True
    for tensor in response.outputs:
        asked = wanted.get(tensor.name, {})
        binary = asked.get("binary_data", binary_usually) is True
        yield tensor, asked, "region" if REGION in asked else "binary" if binary else "json"


def _read_tensor(
    entry: Mapping[str, Any], rest: memoryview, regions: Regions, most_values: int
) -> tuple[Tensor, memoryview]:
    """Read an input; give it and the bytes after its own."""
    name, datatype, shape = entry.get("name"), entry.get("datatype"), entry.get("shape")
    parameters = _parameters(entry)
    ways = [
        key
        for key, here in (
            ("data", entry),
            ("binary_data_size", parameters),
            (REGION, parameters),
        )
        if key in here
    ]
    if len(ways) != 1:
        raise ServeError(
            "invalid",
            f"read '{str(name)[:60]}': it has {' and '.join(ways) or 'no data'}, expected data, binary_data_size or "
            "shared_memory_region.",
        )
    if ways == ["data"]:
        return from_json(name, datatype, shape, entry["data"], most_values=most_values), rest
    where = region_slice(str(name)[:60], parameters)
    if where is not None:
        return from_region(name, datatype, shape, where, regions, most_values=most_values), rest
    size = parameters["binary_data_size"]
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= len(rest):
        raise ServeError(
            "invalid",
            f"read '{str(name)[:60]}': binary_data_size is {str(size)[:40]}, expected 0..{len(rest)}.",
        )
    return from_raw(name, datatype, shape, rest[:size], most_values=most_values), rest[size:]


def _entries(message: Mapping[str, Any], field: str) -> Sequence[dict[str, Any]]:
    entries = message.get(field, [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ServeError("invalid", f"read body: {field} is not a list of objects.")
    if len(entries) > MOST_TENSORS:
        raise ServeError(
            "invalid", f"read body: number of {field} is {len(entries)}, expected at most {MOST_TENSORS}."
        )
    return entries


def _parameters(entry: Mapping[str, Any]) -> dict[str, Parameter]:
    found = entry.get("parameters", {})
    if not isinstance(found, dict):
        raise ServeError("invalid", "read body: parameters is not an object.")
    for name, value in found.items():
        if not isinstance(value, bool | int | float | str):
            raise ServeError("invalid", f"read body: parameter {name[:60]!r} is not a single value.")
    return found


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is not JSON")
