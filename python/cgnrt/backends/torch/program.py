"""From a plan's graph to a torch module: each operator recorded, pictures in the precision asked for."""

from __future__ import annotations

import ctypes
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import fx

from cgnrt.backends.torch.library import first_line
from cgnrt.backends.torch.operands import TYPES, Operands, UnsupportedError
from cgnrt.backends.torch.operators import OPERATORS
from cgnrt.backends.torch.rewrites import rewrite
from cgnrt.backends.torch.tracer import Constant, Tracer, Value
from cgnrt.backends.typed.rules import HalfRules, fits_half, late_activations
from cgnrt.errors import BackendError
from cgnrt.plan import Network
from cgnrt.plan.onnx.model import Node
from cgnrt.plan.onnx.wire import Tensor as OnnxTensor

HALVES = {"fp16": torch.float16, "bf16": torch.bfloat16}
# The layers that compute in half; torch has each of them in fp16 and in bf16.
_LAYERS = ("Conv", "ConvTranspose", "MatMul")


@dataclass(frozen=True, eq=False)
class Program:
    """A network as torch operations, without its weights.

    Attributes:
      constants: what is to be uploaded, by name.
      inputs, outputs: names, in the order of the module's arguments and results.
    """

    graph: fx.Graph
    constants: dict[str, Constant]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    network: Network
    weights: memoryview | None  # the network's: constants lie in them

    def load(self, device: torch.device, *, channels_last: bool) -> fx.GraphModule:
        """A module with weights of its own on a device.

        Args:
          channels_last: whether weights of convolutions have the channels last; pictures then have them last, too.
        """
        root = torch.nn.Module()
        for name, (tensor, dtype) in self.constants.items():
            there = tensor.to(device, dtype, copy=True)
            if channels_last and there.dim() == 4:
                there = there.contiguous(memory_format=torch.channels_last)
            root.register_buffer(name, there, persistent=False)
        return fx.GraphModule(root, self.graph)


def trace(
    network: Network, device: torch.device, precision: str, fp32_layers: Collection[str] = ()
) -> Program:
    """Record a network's graph for a device.

    Args:
      fp32_layers: names of weights whose layers stay float32.
    Raises:
      BackendError: the message names the operator.
    """
    translation = _Translation(network, device, precision, frozenset(fp32_layers))
    for node in network.model.nodes:
        translation.add(node)
    return translation.finish()


class _Translation:
    """Values by the graph's names, one node after the other."""

    def __init__(
        self, network: Network, device: torch.device, precision: str, fp32_layers: frozenset[str]
    ) -> None:
        self._network, self._model = network, network.model
        self._weights = network.weights
        self._tracer = Tracer(device)
        self._precision = precision
        self._values: dict[str, Value] = {}
        self._fits: dict[str, bool] = {}
        self._inputs = tuple(spec.name for spec in network.spec.inputs)
        self._outputs = tuple(spec.name for spec in network.spec.outputs)
        for spec in network.spec.inputs:
            self._values[spec.name] = self._tracer.placeholder([int(size) for size in spec.shape[1:]])
        self._tracer.take_batch(self._values[self._inputs[0]])
        backwards = ((node.op, node.inputs, node.outputs) for node in reversed(self._model.nodes))
        self._rules = HalfRules(
            () if precision == "fp32" else _LAYERS,
            shape_of=lambda name: self._value(name).shape if name else (),
            is_float=lambda name: bool(name) and self._value(name).dtype.is_floating_point,
            constants=self._model.initializers,
            fit=self._fit,
            fp32_layers=fp32_layers,
            late=late_activations(backwards, self._outputs),
        )

    def add(self, node: Node) -> None:
        """Record one node."""
        operator = OPERATORS.get(node.op)
        if operator is None:
            raise self._refusal(f"operator {node.op}")
        half = self._precision != "fp32" and self._rules.is_half(node.op, node.inputs, node.outputs)
        dtype = HALVES[self._precision] if half else torch.float32
        values = [self._value(name) if name else None for name in node.inputs]
        operands = Operands(self._tracer, node, values, dtype, self._model.opset, self._read)
        try:
            made = operator(operands)
        except UnsupportedError as error:
            raise self._refusal(str(error)) from error
        except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
            raise self._refusal(f"this {node.op}: {first_line(error)}") from error
        for name, value in zip(node.outputs, made if isinstance(made, list) else [made], strict=False):
            self._values[name] = value
            if half and value.dtype == dtype:
                self._rules.half.add(name)

    def finish(self) -> Program:
        """The program, rewritten for speed."""
        self._tracer.finish([self._value(name) for name in self._outputs])
        graph = self._tracer.graph
        rewrite(graph)
        return Program(
            graph, self._tracer.constants, self._inputs, self._outputs, self._network, self._weights
        )

    def _value(self, name: str) -> Value:
        if name not in self._values:
            self._values[name] = self._tracer.host(self._read(self._model.initializers[name]))
        return self._values[name]

    def _fit(self, names: Iterable[str]) -> bool:
        """Whether half holds the float32 constants among these."""
        initializers = self._model.initializers
        for name in names:
            if name in initializers and name not in self._fits:
                value = self._value(name).examples[0]
                self._fits[name] = value.dtype != torch.float32 or fits_half(value.numpy(), self._precision)
        return all(self._fits[name] for name in names if name in initializers)

    def _read(self, tensor: OnnxTensor) -> torch.Tensor:
        """A constant's values. Those in the plan's weights are not copied, and must not be written to."""
        dtype, name = TYPES[tensor.dtype.name], tensor.dtype.numpy or "<u2"
        if tensor.numbers is not None:
            return torch.from_numpy(np.asarray(tensor.numbers, name)).view(dtype).reshape(tensor.dims)
        if tensor.external is not None and self._weights is not None:
            start = tensor.external.offset
            raw = np.frombuffer(self._weights, np.uint8)[start : start + tensor.external.length]
        else:
            raw = np.array(bytearray(self._model.data[slice(*tensor.span)] if tensor.span else b""), np.uint8)
        if not raw.size:
            return torch.empty(tensor.dims, dtype=dtype)
        if raw.flags.writeable:
            return torch.from_numpy(raw).view(dtype).reshape(tensor.dims)
        # torch has no read-only tensors, and warns of memory that is.
        lent = (ctypes.c_uint8 * raw.size).from_address(raw.ctypes.data)
        return torch.frombuffer(lent, dtype=dtype).reshape(tensor.dims)

    def _refusal(self, what: str) -> BackendError:
        return BackendError(f"mechanism '{self._network.name}': the torch backend does not support {what}")
