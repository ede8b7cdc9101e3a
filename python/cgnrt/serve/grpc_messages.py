"""The protobuf messages of gRPC, and inference requests and responses read from and written to them.

The messages are those of open_inference.proto, which ships compiled to a descriptor set. Generated Python modules would
need the protobuf version that generated them, and would register names that `tritonclient` registers too; messages
made from a descriptor set have a pool of their own.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any

import numpy as np

from cgnrt.serve import serve_extra
from cgnrt.serve.protocol import (
    MOST_TENSORS,
    InferRequest,
    InferResponse,
    Parameter,
    ServeError,
    Tensor,
    Wanted,
)
from cgnrt.serve.shared_memory import Regions, RegionSlice, from_region, region_slice, to_region
from cgnrt.serve.tensors import check_header, from_json, from_raw, to_raw

with serve_extra("google", "google.protobuf"):
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SERVICE = "inference.GRPCInferenceService"

Buffer = bytes | memoryview

_DESCRIPTORS = "open_inference.binpb"

# Numbers of fields in open_inference.proto, and protobuf's type of a field that begins with its size.
_RAW_OUTPUT_CONTENTS, _INFER_RESPONSE, _SIZED = 6, 2, 2

# The field of `InferTensorContents` with the values of a tensor that is not sent as raw bytes.
_CONTENTS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


@functools.cache
def messages() -> dict[str, Any]:
    """The message classes, by name without the package."""
    pool = descriptor_pool.DescriptorPool()
    raw = files("cgnrt.serve").joinpath(_DESCRIPTORS).read_bytes()
    (file,) = descriptor_pb2.FileDescriptorSet.FromString(raw).file
    pool.Add(file)
    package = file.package
    return {
        found.name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{found.name}"))
        for found in file.message_type
    }


def read_infer(message: Any, regions: Regions, *, most_values: int) -> InferRequest:
    """Read an inference request.

    Args:
      message: a `ModelInferRequest`.
      most_values: limit of the values of each input.
    Raises:
      ServeError: the request is malformed.
    """
    for field, entries in (("inputs", message.inputs), ("outputs", message.outputs)):
        if len(entries) > MOST_TENSORS:
            raise ServeError(
                "invalid",
                f"read request: number of {field} is {len(entries)}, expected at most {MOST_TENSORS}.",
            )
    raw = iter(message.raw_input_contents)
    inputs: dict[str, Tensor] = {}
    for entry in message.inputs:
        tensor = _read_tensor(entry, raw, regions, most_values)
        if tensor.name in inputs:
            raise ServeError("invalid", f"read inputs: '{tensor.name}' is given twice, expected once.")
        inputs[tensor.name] = tensor
    if next(raw, None) is not None:
        raise ServeError(
            "invalid", "read inputs: raw_input_contents are more than the inputs, expected one for each."
        )
    outputs = tuple(Wanted(entry.name, _parameters(entry.parameters)) for entry in message.outputs)
    if any("classification" in output.parameters for output in outputs):
        raise ServeError("invalid", "read outputs: one has a classification, which is not supported.")
    return InferRequest(
        message.model_name,
        message.model_version,
        message.id,
        inputs,
        _parameters(message.parameters),
        outputs,
    )


def output_slices(request: InferRequest) -> dict[str, RegionSlice]:
    """The shared memory of the outputs that the client wants there, by output."""
    found = {output.name: region_slice(output.name, output.parameters) for output in request.outputs}
    return {name: where for name, where in found.items() if where is not None}


def write_infer(response: InferResponse, slices: dict[str, RegionSlice], regions: Regions) -> list[Buffer]:
    """The parts of a serialized `ModelInferResponse`. `slices` move behind what was written, for a stream's next piece.

    The tensors' own bytes are among the parts: protobuf would copy them into a message, and again to serialize it.

    Raises:
      ServeError: an output is larger than its shared memory.
    """
    message = messages()["ModelInferResponse"](
        model_name=response.model, model_version=response.version, id=response.id
    )
    write_parameters(message.parameters, response.parameters)
    contents: list[Buffer] = []
    for tensor in response.outputs:
        entry = message.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        where = slices.get(tensor.name)
        if where is None:
            raw = to_raw(tensor)
            contents += [_field_start(_RAW_OUTPUT_CONTENTS, len(raw)), raw]
            continue
        parameters = to_region(tensor, where, regions)
        write_parameters(entry.parameters, parameters)
        slices[tensor.name] = where.after(int(parameters["shared_memory_byte_size"]))
        contents.append(_field_start(_RAW_OUTPUT_CONTENTS, 0))  # clients find them by the output's position
    return [message.SerializeToString(), *contents]


def stream_piece(parts: Sequence[Buffer]) -> list[Buffer]:
    """The parts of a serialized `ModelStreamInferResponse` with the response of `write_infer`."""
    return [_field_start(_INFER_RESPONSE, sum(map(len, parts))), *parts]


def write_parameters(target: Any, values: Mapping[str, Parameter]) -> None:
    """Set the parameters of a message."""
    for name, value in values.items():
        if isinstance(value, str):
            target[name].string_param = value
        elif isinstance(value, bool):
            target[name].bool_param = value
        elif isinstance(value, float):
            target[name].double_param = value
        elif value < 1 << 63:
            target[name].int64_param = value
        else:
            target[name].uint64_param = value


def _field_start(number: int, size: int) -> bytes:
    """What is before the bytes of a field in protobuf's format: number and type, and the size in groups of 7 bits."""
    start = bytearray([number << 3 | _SIZED])
    while size > 0x7F:
        start.append(size & 0x7F | 0x80)
        size >>= 7
    start.append(size)
    return bytes(start)


def _parameters(found: Any) -> dict[str, Parameter]:
    values: dict[str, Parameter] = {}
    for name, parameter in found.items():
        kind = parameter.WhichOneof("parameter_choice")
        if kind is None:
            raise ServeError("invalid", f"read parameters: {name[:60]!r} has no value.")
        values[name] = getattr(parameter, kind)
    return values


def _read_tensor(entry: Any, raw: Iterator[bytes], regions: Regions, most_values: int) -> Tensor:
    """Read an input. One that is sent as raw bytes takes the next of the raw contents."""
    name, datatype, shape = entry.name, entry.datatype, list(entry.shape)
    where = region_slice(name[:60], _parameters(entry.parameters))
    if where is not None:
        return from_region(name, datatype, shape, where, regions, most_values=most_values)
    count = check_header(name, datatype, shape, most_values)
    if entry.HasField("contents"):
        if datatype not in _CONTENTS:
            raise ServeError("invalid", f"read '{name}': contents do not support {datatype}. Send raw bytes.")
        values = list(getattr(entry.contents, _CONTENTS[datatype]))
        if datatype != "BYTES":
            return from_json(name, datatype, shape, values, most_values=most_values)
        if len(values) != count:
            raise ServeError("invalid", f"read '{name}': values are {len(values)}, expected {count}.")
        array = np.empty(count, object)
        array[:] = values
        return Tensor(name, datatype, tuple(shape), array.reshape(tuple(shape)))
    own = next(raw, None)
    if own is None:
        raise ServeError(
            "invalid",
            f"read '{name}': it has no data, expected raw_input_contents, contents or shared memory.",
        )
    return from_raw(name, datatype, shape, own, most_values=most_values)
