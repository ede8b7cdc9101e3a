"""Small ONNX graphs as mechanisms, and what ONNX Runtime makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
from onnx import helper, numpy_helper

from cgnrt.backends.base import Device, Engine, Setup
from cgnrt.backends.torch.backend import TorchBackend
from cgnrt.plan.onnx.model import parse_model

Shape = Sequence[int | str]


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> Any:
    """A node whose inputs and outputs are names between blanks; `-` is an input that is left out."""
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(op, names, outputs.split(), **attributes)


def mechanism(
    nodes: Sequence[Any],
    inputs: Mapping[str, Shape],
    outputs: Mapping[str, Shape],
    constants: Mapping[str, Any],
    opset: int = 18,
) -> Any:
    """What the engines take for a mechanism: all inputs and outputs are float32, `n` is the batch."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        list(nodes),
        "g",
        [value(name, 1, list(shape)) for name, shape in inputs.items()],
        [value(name, 1, list(shape)) for name, shape in outputs.items()],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    specs = [
        [SimpleNamespace(name=name, shape=tuple(shape)) for name, shape in values.items()]
        for values in (inputs, outputs)
    ]
    spec = SimpleNamespace(inputs=specs[0], outputs=specs[1])
    raw = model.SerializeToString()
    return SimpleNamespace(name="shape", graph=raw, model=parse_model(raw), weights=None, spec=spec)


def torch_engine(made: Any, precision: str = "fp32") -> Engine:
    return TorchBackend().examine(made, Setup(Device(), precision)).load(1)


def run_onnx_runtime(made: Any, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(made.graph, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in made.spec.outputs]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))
