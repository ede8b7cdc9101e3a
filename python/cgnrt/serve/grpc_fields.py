"""The messages of `inference.GRPCInferenceService`, built when they are first asked for.

They are written down here and not generated: generated modules need the protobuf they were generated with or a newer
one, and register themselves for the whole process, where `tritonclient` has the same names. Those of this module have
a pool of their own. Fields and numbers are those of Triton's grpc_service.proto and model_config.proto; fields that
are not here are skipped when they are read.
"""

from __future__ import annotations

import functools
import re
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SERVICE = "inference.GRPCInferenceService"
_PACKAGE = "inference"
_FIELD = re.compile(r"(?:(repeated|map|oneof) )?(\w+) (\w+) = (\d+)")
_DATATYPES = (
    *("INVALID", "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"),
    *("FP16", "FP32", "FP64", "STRING", "BF16"),
)
_SCALARS = frozenset(descriptor_pb2.FieldDescriptorProto.Type.keys())

# Beside the language of .proto files: `map T f` is map<string, T> f, and the `oneof` fields of a message are one group.
_MESSAGES: dict[str, tuple[str, ...]] = {
    "ServerLiveRequest": (),
    "ServerLiveResponse": ("bool live = 1",),
    "ServerReadyRequest": (),
    "ServerReadyResponse": ("bool ready = 1",),
    "ModelReadyRequest": ("string name = 1", "string version = 2"),
    "ModelReadyResponse": ("bool ready = 1",),
    "ServerMetadataRequest": (),
    "ServerMetadataResponse": ("string name = 1", "string version = 2", "repeated string extensions = 3"),
    "ModelMetadataRequest": ("string name = 1", "string version = 2"),
    "TensorMetadata": ("string name = 1", "string datatype = 2", "repeated int64 shape = 3"),
    "ModelMetadataResponse": (
        "string name = 1",
        "repeated string versions = 2",
        "string platform = 3",
        "repeated TensorMetadata inputs = 4",
        "repeated TensorMetadata outputs = 5",
    ),
    "InferParameter": (
        "oneof bool bool_param = 1",
        "oneof int64 int64_param = 2",
        "oneof string string_param = 3",
        "oneof double double_param = 4",
        "oneof uint64 uint64_param = 5",
    ),
    "InferTensorContents": (
        "repeated bool bool_contents = 1",
        "repeated int32 int_contents = 2",
        "repeated int64 int64_contents = 3",
        "repeated uint32 uint_contents = 4",
        "repeated uint64 uint64_contents = 5",
        "repeated float fp32_contents = 6",
        "repeated double fp64_contents = 7",
        "repeated bytes bytes_contents = 8",
    ),
    "InferTensor": (  # InferInputTensor and InferOutputTensor, which have the same fields
        "string name = 1",
        "string datatype = 2",
        "repeated int64 shape = 3",
        "map InferParameter parameters = 4",
        "InferTensorContents contents = 5",
    ),
    "InferRequestedOutputTensor": ("string name = 1", "map InferParameter parameters = 2"),
    "ModelInferRequest": (
        "string model_name = 1",
        "string model_version = 2",
        "string id = 3",
        "map InferParameter parameters = 4",
        "repeated InferTensor inputs = 5",
        "repeated InferRequestedOutputTensor outputs = 6",
        "repeated bytes raw_input_contents = 7",
    ),
    "ModelInferResponse": (
        "string model_name = 1",
        "string model_version = 2",
        "string id = 3",
        "map InferParameter parameters = 4",
        "repeated InferTensor outputs = 5",
        "repeated bytes raw_output_contents = 6",
    ),
    "ModelStreamInferResponse": ("string error_message = 1", "ModelInferResponse infer_response = 2"),
    "ModelConfigRequest": ("string name = 1", "string version = 2"),
    "ModelInput": (
        "string name = 1",
        "DataType data_type = 2",
        "repeated int64 dims = 4",
        "bool optional = 8",
    ),
    "ModelOutput": ("string name = 1", "DataType data_type = 2", "repeated int64 dims = 3"),
    "ModelTransactionPolicy": ("bool decoupled = 1",),
    "ModelParameter": ("string string_value = 1",),
    "ModelConfig": (
        "string name = 1",
        "string platform = 2",
        "int32 max_batch_size = 4",
        "repeated ModelInput input = 5",
        "repeated ModelOutput output = 6",
        "map ModelParameter parameters = 14",
        "string backend = 17",
        "ModelTransactionPolicy model_transaction_policy = 19",
    ),
    "ModelConfigResponse": ("ModelConfig config = 1",),
    "SystemSharedMemoryStatusRequest": ("string name = 1",),
    "RegionStatus": ("string name = 1", "string key = 2", "uint64 offset = 3", "uint64 byte_size = 4"),
    "SystemSharedMemoryStatusResponse": ("map RegionStatus regions = 1",),
    "SystemSharedMemoryRegisterRequest": (
        "string name = 1",
        "string key = 2",
        "uint64 offset = 3",
        "uint64 byte_size = 4",
    ),
    "SystemSharedMemoryRegisterResponse": (),
    "SystemSharedMemoryUnregisterRequest": ("string name = 1",),
    "SystemSharedMemoryUnregisterResponse": (),
}


@functools.cache
def messages() -> dict[str, Any]:
    """The message classes by name."""
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(_file().SerializeToString())
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in _MESSAGES
    }


def _file() -> Any:
    """All messages as one .proto file."""
    file = descriptor_pb2.FileDescriptorProto(name="cgnrt/serve.proto", package=_PACKAGE, syntax="proto3")
    datatypes = file.enum_type.add(name="DataType")
    for number, name in enumerate(_DATATYPES):
        datatypes.value.add(name=f"TYPE_{name}", number=number)
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for text in fields:
            _add_field(message, text)
    return file


def _add_field(message: Any, text: str) -> None:
    found = _FIELD.fullmatch(text)
    if found is None:
        raise ValueError(f"messages: field is {text!r}, expected 'type name = number'.")
    kind, type_name, name, number = found.groups()
    field = message.field.add(name=name, number=int(number), label=3 if kind in ("repeated", "map") else 1)
    if kind == "map":
        entry = message.nested_type.add(name=f"{name.capitalize()}Entry")
        entry.options.map_entry = True
        _add_field(entry, "string key = 1")
        _add_field(entry, f"{type_name} value = 2")
        type_name = f"{message.name}.{entry.name}"
    elif kind == "oneof":
        if not message.oneof_decl:
            message.oneof_decl.add(name="parameter_choice")
        field.oneof_index = 0
    scalar = f"TYPE_{type_name.upper()}"
    if scalar in _SCALARS:
        field.type = field.Type.Value(scalar)
    else:
        field.type = field.TYPE_ENUM if type_name == "DataType" else field.TYPE_MESSAGE
        field.type_name = f".{_PACKAGE}.{type_name}"
