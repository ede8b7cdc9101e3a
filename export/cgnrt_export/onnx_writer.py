"""An inference form as ONNX: the graph and its weights as bytes, the same on every run and every machine."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxscript  # noqa: F401  torch.onnx needs it: better missed here than half-way
import torch
from onnx import numpy_helper
from torch import Tensor, fx

from cgnrt_export.causes import first_cause
from cgnrt_export.errors import ExportError

OPSET = 18
ALIGNMENT = 64  # bytes: engines take views of the mapped weights, and vector loads want them aligned
EXTERNAL_FROM = (
    1024  # bytes: smaller tensors (shapes, biases) stay in the graph, where engines fold them early
)


@dataclass(frozen=True)
class OnnxGraph:
    """A serialised ONNX model, and the file that its external tensors lie in (None where it has none)."""

    graph: bytes
    weights: bytes | None


def write_onnx(
    module: fx.GraphModule, inputs: Mapping[str, Tensor], outputs: Sequence[str], *, weights_name: str
) -> OnnxGraph:
    """Convert a traced module.

    Args:
      module: from `inference_form`.
      inputs: example inputs by the names that the graph's inputs get; batch first, two or more, dynamic in
        the graph.
      outputs: names for the module's outputs, in order.
      weights_name: the relative file name by which the graph refers to its external tensors.
    Raises:
      ExportError: an operation has no ONNX form; the message has the first cause.
    """
    model = _convert(module, inputs, outputs)
    _strip(model)
    _shuffle_blocks(model)
    _name_batch_axis(model)
    _check(model)
    weights = _move_weights(model, weights_name)
    return OnnxGraph(model.SerializeToString(deterministic=True), weights or None)


def _convert(module: fx.GraphModule, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> onnx.ModelProto:
    batch = torch.export.Dim("n", min=1)
    shapes = tuple({0: batch} for _ in inputs)
    try:
        with _quiet():
            program = torch.export.export(module, tuple(inputs.values()), dynamic_shapes=shapes, strict=False)
            exported = torch.onnx.export(
                program,
                dynamo=True,
                input_names=list(inputs),
                output_names=list(outputs),
                opset_version=OPSET,
                verbose=False,
            )
            if exported is None:
                raise ExportError("torch.onnx.export gave no program")
            return exported.model_proto
    except Exception as error:
        raise ExportError(f"it cannot be written as ONNX opset {OPSET}: {first_cause(error)}") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep to itself what torch's exporter says about itself, whatever the module."""
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registration.level
    registration.setLevel(logging.ERROR)  # "torchvision is not installed", four times
    try:
        with warnings.catch_warnings():
            # torch copies its own tree specs in a way that torch deprecates.
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning)
            yield
    finally:
        registration.setLevel(level)


def _strip(model: onnx.ModelProto) -> None:
    """Remove what is not computed: stack traces with this machine's paths, and guesses at inner shapes."""
    del model.metadata_props[:]
    model.ClearField("doc_string")
    graphs = [model.graph]
    while graphs:
        graph = graphs.pop()
        graph.ClearField("doc_string")
        del graph.metadata_props[:]
        del graph.value_info[:]
        for entry in (*graph.input, *graph.output, *graph.initializer, *graph.node):
            entry.ClearField("doc_string")
            del entry.metadata_props[:]
        for node in graph.node:
            for attribute in node.attribute:
                attribute.ClearField("doc_string")
                graphs.extend(attribute.graphs)
                if attribute.type == onnx.AttributeProto.GRAPH:
                    graphs.append(attribute.g)


def _shuffle_blocks(model: onnx.ModelProto) -> None:
    """Let depth-to-space read whole blocks of channels (DCR), by reordering the convolution's before it.

    Engines keep pictures in blocks of channels and copy these fastest.
    """
    made = {name: node for node in model.graph.node for name in node.output}
    readers: dict[str, int] = {}
    for node in model.graph.node:
        for name in node.input:
            readers[name] = readers.get(name, 0) + 1
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for shuffle in model.graph.node:
        mode = next((entry for entry in shuffle.attribute if entry.name == "mode"), None)
        if shuffle.op_type != "DepthToSpace" or mode is None or mode.s != b"CRD":
            continue
        source = made.get(shuffle.input[0])
        while (
            source is not None and source.op_type in ("LeakyRelu", "Relu") and readers[source.output[0]] == 1
        ):
            source = made.get(source.input[0])
        if source is None or source.op_type != "Conv" or readers[source.output[0]] != 1:
            continue
        group = next((entry.i for entry in source.attribute if entry.name == "group"), 1)
        weights = list(source.input[1:])
        if group != 1 or not all(name in constants and readers[name] == 1 for name in weights):
            continue
        size = next(entry.i for entry in shuffle.attribute if entry.name == "blocksize")
        for name in weights:
            value = numpy_helper.to_array(constants[name])
            ordered = value.reshape(-1, size * size, *value.shape[1:]).swapaxes(0, 1).reshape(value.shape)
            constants[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(ordered), name))
        mode.s = b"DCR"


def _name_batch_axis(model: onnx.ModelProto) -> None:
    """Call the batch axis `n` instead of the number that tracing gave it."""
    for value in (*model.graph.input, *model.graph.output):
        for axis, dimension in enumerate(value.type.tensor_type.shape.dim):
            if axis == 0:
                dimension.dim_param = "n"
            elif dimension.dim_param:
                raise ExportError(
                    f"axis {axis} of {value.name} varies with the batch size, expected a fixed size"
                )


def _check(model: onnx.ModelProto) -> None:
    used = {node.domain for node in model.graph.node}
    if model.functions or used - {"", "ai.onnx"}:
        names = ", ".join(
            sorted({f"{node.domain}::{node.op_type}" for node in model.graph.node if node.domain})
        )
        raise ExportError(
            f"its ONNX form uses {names or 'local functions'}, expected operators of ONNX itself"
        )
    kept = [entry for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:
        raise ExportError(f"its ONNX form is not valid: {first_cause(error)}") from error


def _move_weights(model: onnx.ModelProto, location: str) -> bytes:
    """Move large initializers out of a model; returns the file that the model then refers to."""
    weights = bytearray()
    for tensor in model.graph.initializer:
        raw = numpy_helper.to_array(tensor).tobytes()
        if len(raw) < EXTERNAL_FROM:
            continue
        weights.extend(bytes(-len(weights) % ALIGNMENT))
        external = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        external.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", len(weights)), ("length", len(raw))):
            external.external_data.add(key=key, value=str(value))
        weights.extend(raw)
        tensor.CopyFrom(external)
    return bytes(weights)
