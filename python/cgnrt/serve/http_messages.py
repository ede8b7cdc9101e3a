"""Inference requests and responses as HTTP carries them: JSON, with tensors as bytes behind it where asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from cgnrt.serve.protocol import InferRequest, InferResponse, Parameter, ServeError, Tensor, Wanted
from cgnrt.serve.shared_memory import Regions, from_region, region_slice
from cgnrt.serve.tensors import from_json, from_raw, to_json, to_raw

Buffer = bytes | memoryview

_MOST_TENSORS = 64


def read_json(body: Buffer) -> dict[str, Any]:
    """A JSON object.

    Raises:
      ServeError: it is none.
    """
    try:
        found = json.loads(bytes(body) or b"{}", parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ServeError("invalid", f"read body: {str(error)[:200]}, expected a JSON object.") from error
    if not isinstance(found, dict):
        raise ServeError("invalid", f"read body: JSON is a {type(found).__name__}, expected an object.")
    return found


def read_infer(
    body: bytes, header_length: str | None, model: str, version: str, regions: Regions, *, most_values: int
) -> InferRequest:
    """An inference request.

    Args:
      header_length: `Inference-Header-Content-Length`, how many bytes of the body are JSON; None is all.
      most_values: limit of each input.
    Raises:
      ServeError: it is malformed.
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
            raise ServeError("invalid", f"read inputs: '{tensor.name}' is there twice, expected once.")
        inputs[tensor.name] = tensor
    if len(rest):
        raise ServeError(
            "invalid", f"read body: {len(rest)} bytes are of no input, expected binary_data_size."
        )
    wanted = []
    for entry in _entries(message, "outputs"):
        name, parameters = entry.get("name"), _parameters(entry)
        if not isinstance(name, str):
            raise ServeError("invalid", "read outputs: a name is missing or no text, expected one.")
        if "classification" in parameters:
            raise ServeError("invalid", f"read outputs: '{name}' has a classification, expected none.")
        wanted.append(Wanted(name, parameters))
    identity = message.get("id", "")
    if not isinstance(identity, str):
        raise ServeError("invalid", "read body: id is no text, expected one.")
    return InferRequest(model, version, identity, inputs, _parameters(message), tuple(wanted))


def write_infer(
    response: InferResponse, request: InferRequest, regions: Regions
) -> tuple[bytes, list[Buffer]]:
    """The JSON of a response, and the bytes that follow it, in order.

    Raises:
      ServeError: an output does not fit its shared memory, or JSON.
    """
    wanted = {output.name: output.parameters for output in request.outputs}
    binary_usually = request.parameters.get("binary_data_output") is True
    outputs: list[dict[str, Any]] = []
    buffers: list[Buffer] = []
    for tensor in response.outputs:
        asked = wanted.get(tensor.name, {})
        entry: dict[str, Any] = {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": list(tensor.shape),
        }
        where = region_slice(tensor.name, asked)
        if where is not None:
            raw = to_raw(tensor)
            if len(raw) > where.byte_size:
                raise ServeError(
                    "invalid",
                    f"write '{tensor.name}': bytes are {len(raw)}, expected at most {where.byte_size}.",
                )
            regions.write(where.region, where.offset, raw)
            entry["parameters"] = {
                "shared_memory_region": where.region,
                "shared_memory_offset": where.offset,
                "shared_memory_byte_size": len(raw),
            }
        elif asked.get("binary_data", binary_usually) is True:
            raw = to_raw(tensor)
            entry["parameters"] = {"binary_data_size": len(raw)}
            buffers.append(raw)
        else:
            entry["data"] = to_json(tensor)
        outputs.append(entry)
    message: dict[str, Any] = {
        "model_name": response.model,
        "model_version": response.version,
        "parameters": dict(response.parameters),
        "outputs": outputs,
    }
    if response.id:
        message["id"] = response.id
    return json.dumps(message).encode(), buffers


def _read_tensor(
    entry: Mapping[str, Any], rest: memoryview, regions: Regions, most_values: int
) -> tuple[Tensor, memoryview]:
    """An input, and the bytes behind its own."""
    name, datatype, shape = entry.get("name"), entry.get("datatype"), entry.get("shape")
    parameters = _parameters(entry)
    ways = [
        key
        for key, here in (
            ("data", entry),
            ("binary_data_size", parameters),
            ("shared_memory_region", parameters),
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
        raise ServeError("invalid", f"read body: {field} are no list of objects, expected one.")
    if len(entries) > _MOST_TENSORS:
        raise ServeError(
            "invalid", f"read body: {field} are {len(entries)}, expected at most {_MOST_TENSORS}."
        )
    return entries


def _parameters(entry: Mapping[str, Any]) -> dict[str, Parameter]:
    found = entry.get("parameters", {})
    if not isinstance(found, dict):
        raise ServeError("invalid", "read body: parameters are no object, expected one.")
    for name, value in found.items():
        if not isinstance(value, bool | int | float | str):
            raise ServeError(
                "invalid", f"read body: parameter {name[:60]!r} is no single value, expected one."
            )
    return found


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is no JSON")
