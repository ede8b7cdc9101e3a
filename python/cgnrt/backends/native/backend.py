"""The native backend: which of the two engines runs a network, and the one for small generators."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cgnrt import _core
from cgnrt.backends.base import Device, Engine, Setup
from cgnrt.backends.native.graph import (
    Graph,
    UnsupportedGraphError,
    check_up_taps,
    check_window,
    floats,
    number,
)
from cgnrt.backends.native.periodic import Border, LayerProgram, unpack_windows
from cgnrt.errors import BackendError
from cgnrt.plan import Network
from cgnrt.plan.onnx.model import Node


@dataclass(frozen=True)
class NativeCandidate:
    """A network that one of the two engines runs: `make` makes it, from what was compiled, for a number of threads."""

    name: str
    make: Callable[[int | None], Engine]

    def load(self, threads: int | None = None, stream: Any = None) -> Engine:
        try:
            return self.make(threads)
        except (UnsupportedGraphError, ValueError) as error:
            raise BackendError(
                f"mechanism '{self.name}': the native engine does not support {error}"
            ) from error


def examine(network: Network) -> NativeCandidate:
    """Compile a network for the engine that runs it.

    Raises:
      BackendError: neither does; the message has both reasons.
    """
    try:
        layers = compile_layers(network)
    except UnsupportedGraphError as error:
        small = error
    else:
        return NativeCandidate(network.name, lambda threads: NativeEngine(network, layers, threads))
    from cgnrt.backends.native.deep import (  # not needed by small generators
        NativeDeepEngine,
        compile_pictures,
    )

    try:
        pictures = compile_pictures(network)
    except UnsupportedGraphError as error:
        raise BackendError(
            f"mechanism '{network.name}': the native engine for small generators does not support {small}; the one "
            f"for deep networks does not support {error}"
        ) from error
    return NativeCandidate(network.name, lambda threads: NativeDeepEngine(network, pictures, threads))


class NativeBackend:
    def version(self) -> str:
        return str(_core.build_info()["version"])

    def refusal(self, device: Device, precision: str) -> str | None:
        return None if precision == "fp32" else f"it has no {precision}"

    def examine(self, network: Network, setup: Setup) -> NativeCandidate:
        return examine(network)


def compile_layers(network: Network) -> LayerProgram:
    """Read Concat, Gemm, Reshape, then a chain of the layers that the engine has.

    Raises:
      UnsupportedGraphError: the graph is anything else.
    """
    graph = _Chain(network)
    program = _head(graph, network)
    border = Border(program)
    while (node := graph.take()) is not None:
        compile_node = _LAYERS.get(node.op)
        if compile_node is None:
            raise UnsupportedGraphError(f"operator {node.op}")
        layer = compile_node(graph, node)
        border.follow(layer)
        before = program.layers[-1] if program.layers else {"kind": ""}
        if layer["kind"] == "leaky_relu" and before["kind"] in ("up_conv", "conv3") and "slope" not in before:
            before["slope"] = layer["slope"]
        else:
            program.layers.append(layer)
    border.finish()
    return program


class _Chain:
    """The graph's nodes one behind the other, each fed by the one before and by constants."""

    def __init__(self, network: Network) -> None:
        graph = Graph(network)
        self.model = graph.model
        self.constant = graph.constant
        if len(self.model.outputs) != 1:
            raise UnsupportedGraphError("graphs with more than one output")
        self._nodes = list(self.model.nodes)
        self.value = ""

    def take(self, op: str | None = None) -> Node | None:
        """The next node; it must take the value of the last one, and be an `op` if one is asked for."""
        if not self._nodes:
            if self.value != self.model.outputs[0].name:
                raise UnsupportedGraphError("graphs whose last node is not their output")
            return None
        node = self._nodes.pop(0)
        if op is not None and node.op != op:
            raise UnsupportedGraphError(
                f"operator {node.op} among the first three (expected Concat, Gemm, Reshape)"
            )
        if not node.inputs or (
            self.value and (node.inputs[0] != self.value or self.value in node.inputs[1:])
        ):
            raise UnsupportedGraphError("graphs that are not a chain of layers")
        self.value = node.outputs[0]
        return node


def _head(graph: _Chain, network: Network) -> LayerProgram:
    concat = graph.take("Concat")
    sizes = {spec.name: spec.shape[1] for spec in network.spec.inputs}
    if concat is None or set(concat.inputs) != set(sizes) or concat.attributes.get("axis") not in (1, -1):
        raise UnsupportedGraphError("graphs that do not begin with Concat of their inputs")
    gemm = graph.take("Gemm")
    attributes: Mapping[str, Any] = gemm.attributes if gemm is not None else {}
    plain = attributes.get("alpha", 1.0) == attributes.get("beta", 1.0) == 1.0 and not attributes.get(
        "transA", 0
    )
    if gemm is None or not plain:
        raise UnsupportedGraphError("matrix products other than a linear layer")
    weight = graph.constant(gemm.inputs[1])
    weight = floats(weight if attributes.get("transB", 0) else weight.T)
    reshape = graph.take("Reshape")
    shape = graph.constant(reshape.inputs[1]).tolist() if reshape is not None else []
    if len(shape) != 4 or min(shape[1:]) < 1:
        raise UnsupportedGraphError("a Reshape to another shape than (n, channels, height, width)")
    return LayerProgram(
        list(concat.inputs),
        [int(sizes[name]) for name in concat.inputs],
        weight,
        _bias(graph, gemm, len(weight)),
        [int(size) for size in shape[1:]],
    )


def _up_conv(graph: _Chain, node: Node) -> dict[str, Any]:
    weight = floats(graph.constant(node.inputs[1]))
    _check_window(node, weight, kernel=4, strides=[2, 2])
    check_up_taps(weight)
    return {"kind": "up_conv", "weight": weight, "bias": _bias(graph, node, weight.shape[1])}


def _conv(graph: _Chain, node: Node) -> dict[str, Any]:
    weight = floats(graph.constant(node.inputs[1]))
    if weight.ndim == 4 and weight.shape[2:] == (2, 2):
        return _window_conv(graph, node, weight)
    # Without padding, the picture has its border already: `Border` checks that.
    wrap = node.attributes.get("pads", [0, 0, 0, 0]) == [0, 0, 0, 0]
    _check_window(node, weight, kernel=3, strides=[1, 1], pad=0 if wrap else 1)
    return {"kind": "conv3", "weight": weight, "bias": _bias(graph, node, weight.shape[0]), "wrap": wrap}


def _window_conv(graph: _Chain, node: Node, weight: np.ndarray) -> dict[str, Any]:
    """A 2x2 convolution with four outputs a channel, a leaky ReLU if there is one, and depth-to-space."""
    _check_window(node, weight, kernel=2, strides=[1, 1], pad=0)
    bias = _bias(graph, node, weight.shape[0])
    layer: dict[str, Any] = {"kind": "up_conv", "wrap": True}
    following = graph.take()
    if following is not None and following.op in ("LeakyRelu", "Relu"):
        layer |= {"slope": _LAYERS[following.op](graph, following)["slope"]}
        following = graph.take()
    if following is None or following.op != "DepthToSpace" or number(following, "blocksize", 0) != 2:
        raise UnsupportedGraphError("2x2 convolutions without depth-to-space by 2")
    taps, offsets = unpack_windows(weight, bias, following.attributes.get("mode", "DCR"))
    check_up_taps(taps)
    return layer | {"weight": taps, "bias": offsets}


def _instance_norm(graph: _Chain, node: Node) -> dict[str, Any]:
    return {
        "kind": "instance_norm",
        "weight": floats(graph.constant(node.inputs[1])),
        "bias": floats(graph.constant(node.inputs[2])),
        "epsilon": number(node, "epsilon", 1e-5),
    }


def _leaky_relu(graph: _Chain, node: Node) -> dict[str, Any]:
    return {"kind": "leaky_relu", "slope": number(node, "alpha", 0.01)}


def _relu(graph: _Chain, node: Node) -> dict[str, Any]:
    return {"kind": "leaky_relu", "slope": 0.0}


def _tanh(graph: _Chain, node: Node) -> dict[str, Any]:
    return {"kind": "tanh"}


def _clip(graph: _Chain, node: Node) -> dict[str, Any]:
    limits = [float("-inf"), float("inf")]
    for k, name in enumerate(node.inputs[1:3]):
        if name:
            limit = graph.constant(name)
            if limit.size != 1:
                raise UnsupportedGraphError(f"Clip with limits {limit.shape}")
            limits[k] = float(limit.reshape(()))
    return {"kind": "clip", "low": limits[0], "high": limits[1]}


_LAYERS = {
    "ConvTranspose": _up_conv,
    "Conv": _conv,
    "InstanceNormalization": _instance_norm,
    "LeakyRelu": _leaky_relu,
    "Relu": _relu,
    "Tanh": _tanh,
    "Clip": _clip,
}


def _check_window(node: Node, weight: np.ndarray, *, kernel: int, strides: list[int], pad: int = 1) -> None:
    if weight.ndim != 4 or weight.shape[2:] != (kernel, kernel):
        raise UnsupportedGraphError(f"{node.op} with weights {weight.shape}")
    check_window(node, [kernel, kernel], strides=strides, pads=[pad] * 4)


def _bias(graph: _Chain, node: Node, channels: int) -> np.ndarray:
    return floats(graph.constant(node.inputs[2])) if len(node.inputs) > 2 else np.zeros(channels, np.float32)


class NativeEngine:
    """A small generator."""

    reentrant = True

    def __init__(self, network: Network, program: LayerProgram, threads: int | None) -> None:
        self._engine = _core.SmallGenerator(
            program.widths, program.weight, program.bias, program.shape, program.layers
        )
        wanted = tuple(network.spec.outputs[0].shape[1:])
        if (found := tuple(self._engine.output_shape)) != wanted:
            raise UnsupportedGraphError(f"a picture of {found} where the plan says {wanted}")
        self._inputs = program.inputs
        self._output = network.spec.outputs[0].name
        self._threads = threads or 0

    def run(
        self,
        inputs: Mapping[str, np.ndarray],
        outputs: Mapping[str, np.ndarray] | None = None,
        stream: Any = None,
    ) -> dict[str, np.ndarray]:
        out = None if outputs is None else outputs.get(self._output)
        try:
            found = self._engine.run([inputs[name] for name in self._inputs], out=out, threads=self._threads)
        except (KeyError, TypeError, ValueError, MemoryError) as error:
            raise BackendError(f"run: the native engine failed: {error}") from error
        return {self._output: found}
