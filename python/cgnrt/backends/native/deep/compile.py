"""From a plan's graph to the steps of the deep engine, or why it is not such a graph.

Nodes are read in their order. What depends on no picture is left to NumPy (`vectors`); everything else must be one
of the operators here. An element-wise operator goes into the step that made its operand, where nothing else reads
that operand and the step has room for it (`program.SCALE` and the places after it).
"""

from __future__ import annotations

import numpy as np

from cgnrt.backends.native.deep.operators import OPERATORS_OF_PICTURES
from cgnrt.backends.native.deep.program import TRY, PictureProgram
from cgnrt.backends.native.deep.state import Compiler
from cgnrt.backends.native.deep.vectors import OPERATORS, run_node, shape_part
from cgnrt.backends.native.graph import UnsupportedGraphError
from cgnrt.plan import Network
from cgnrt.plan.onnx.model import Node


def compile_pictures(network: Network) -> PictureProgram:
    """Read a graph whose pictures are made of the engine's steps.

    Raises:
      UnsupportedGraphError: the graph has anything else.
    """
    state = Compiler(network)
    small = []
    for node in state.graph.model.nodes:
        if not any(state.is_picture(name) for name in node.inputs) or node.op == "Shape":
            if _is_picture_operator(state, node):
                state.read(node.inputs[0])
            else:
                _run_small(state, node)
                small.append(node)
                continue
        compile_node = OPERATORS_OF_PICTURES.get(node.op)
        if compile_node is None:
            raise UnsupportedGraphError(f"operator {node.op}")
        compile_node(state, node)
    if not any(step.weight is not None for step in state.steps):
        raise UnsupportedGraphError("graphs without convolutions")
    outputs = [(value.name, state.read(value.name)) for value in state.graph.model.outputs]
    _check_outputs(state, network, outputs)
    wanted = {vector.name for vector in state.widths}
    nodes = []
    for node in reversed(small):
        if wanted.intersection(node.outputs):
            wanted.update(node.inputs)
            nodes.append(node)
    if any(name in state.values and name not in state.arrays for node in nodes for name in node.inputs):
        raise UnsupportedGraphError("vectors that are computed from pictures")
    return PictureProgram(state.pictures, state.steps, state.widths, nodes[::-1], outputs, state.image)


def _check_outputs(state: Compiler, network: Network, outputs: list[tuple[str, int]]) -> None:
    wanted = {spec.name: spec.shape[1:] for spec in network.spec.outputs}
    for name, picture in outputs:
        made = state.pictures[picture]
        found = (made.channels, made.height, made.width)
        if name in wanted and found != tuple(wanted[name]):
            sizes = (" x ".join(map(str, shape)) for shape in (found, wanted[name]))
            raise UnsupportedGraphError(f"a picture {name} of {' where the plan says '.join(sizes)}")


def _is_picture_operator(state: Compiler, node: Node) -> bool:
    """Whether a node's operand is a small array that is large enough to be a picture from here on."""
    return node.op in ("Conv", "ConvTranspose", "MaxPool", "Resize") and node.inputs[0] in state.arrays


def _run_small(state: Compiler, node: Node) -> None:
    if node.op not in OPERATORS:
        raise UnsupportedGraphError(f"operator {node.op}")
    if node.op == "Shape" and state.is_picture(node.inputs[0]):
        picture = state.pictures[state.read(node.inputs[0])]
        shape = [TRY, picture.channels, picture.height, picture.width]
        state.arrays[node.outputs[0]] = np.asarray(shape_part(node, shape), np.int64)
        return
    try:
        run_node(state.graph, node, state.arrays)
    except (IndexError, TypeError, ValueError) as error:
        raise UnsupportedGraphError(f"{node.op} that fails for a batch of 0 ({error})") from error
    if node.op != "Shape" and state.varying.intersection(node.inputs):
        state.varying.update(node.outputs)
