"""A plan's float32 graph as one whose precision is in the graph itself: strongly typed float16 or bfloat16.

Engines on a GPU compute as typed: TensorRT 11 knows no other way. `rules` says which nodes are half; Casts lie around
the others. Inputs and outputs stay float32.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from cgnrt.backends.typed.constants import Constants
from cgnrt.backends.typed.rules import HalfRules, late_activations
from cgnrt.backends.typed.transposed import split_transposed
from cgnrt.errors import MissingDependencyError
from cgnrt.plan import CgnManifest, Network

if TYPE_CHECKING:
    import onnx

# What computes in half: layers, by the operands that matrix units take.
_LAYERS = {"fp16": ("Conv", "ConvTranspose", "MatMul"), "bf16": ("Conv", "MatMul")}
# Inputs that are always float32.
_ALWAYS_FLOAT = {("Resize", 1), ("Resize", 2)}
# The operator set from which convolutions may be bfloat16, and the IR version that it needs.
_BF16_OPSET, _BF16_IR = 22, 10
_GROUP_NORM_OPSET = 21  # where its scale and bias changed their shape


def typed_graph(
    network: Network, precision: str, fp32_layers: Collection[str] = ()
) -> tuple[bytes, bytes | memoryview | None]:
    """A network's graph at a precision, and its weights.

    Args:
      network: of an open plan.
      precision: "fp32" (the graph as it is), "fp16" or "bf16".
      fp32_layers: names of weights whose layers stay float32; see `planned_fp32_layers`.
    Returns:
      The ONNX model, whose external data has the location of the plan's own graph, and that data: None where the plan
      has none. Inputs and outputs have the names, types and shapes of the plan's graph.
    Raises:
      MissingDependencyError: the onnx package is not installed.
    """
    if precision == "fp32":
        return network.model.data, network.weights
    if precision not in ("fp16", "bf16"):
        raise ValueError(f"type the graph: precision is {precision!r}, expected 'fp32', 'fp16' or 'bf16'.")
    try:
        import onnx
    except ImportError as error:
        if error.name != "onnx":
            raise
        raise MissingDependencyError(
            f"load mechanism '{network.name}': package 'onnx' is not installed, expected it for {precision}. "
            "Run: pip install onnx"
        ) from error
    model = onnx.load_model_from_string(network.model.data)
    constants = Constants(model, network.weights, precision)
    if precision == "bf16":
        split_transposed(model, constants, fp32_layers)
        _raise_opset(model)
    _Typing(model, constants, frozenset(fp32_layers)).run()
    weights = constants.write()
    return model.SerializeToString(deterministic=True), weights


def planned_fp32_layers(manifest: CgnManifest, mechanism: str, precision: str) -> tuple[str, ...]:
    """The layers that the plan's precision plan keeps in float32; it is made for bfloat16, the coarser of the two."""
    if precision != "bf16":
        return ()
    plan = manifest.parity.get("precision_plan")
    layers = plan.get("fp32_layers") if isinstance(plan, Mapping) else None
    found = layers.get(mechanism, ()) if isinstance(layers, Mapping) else ()
    return tuple(name for name in found if isinstance(name, str)) if isinstance(found, list) else ()


class _Typing:
    """One pass over the nodes, which gives each its type and brings its operands to it."""

    def __init__(self, model: onnx.ModelProto, constants: Constants, fp32_layers: frozenset[str]) -> None:
        import onnx

        self._onnx = onnx
        self._graph = model.graph
        self._constants = constants
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
        self._floats: set[str] = set()
        self._shapes: dict[str, tuple[int | str, ...]] = {}
        for value in (*inferred.input, *inferred.value_info, *inferred.output):
            tensor = value.type.tensor_type
            if tensor.elem_type == onnx.TensorProto.FLOAT:
                self._floats.add(value.name)
            self._shapes[value.name] = tuple(
                d.dim_value if d.HasField("dim_value") else d.dim_param for d in tensor.shape.dim
            )
        self._floats |= constants.floats
        self._copies: dict[tuple[str, bool], str] = {}  # of values, in the other type
        self._outputs = {value.name for value in self._graph.output}
        backwards = ((node.op_type, node.input, node.output) for node in reversed(self._graph.node))
        self._rules = HalfRules(
            _LAYERS[constants.suffix],
            shape_of=lambda name: self._shapes.get(name, ()),
            is_float=self._floats.__contains__,
            constants=constants,
            fit=constants.fit,
            fp32_layers=fp32_layers,
            late=late_activations(backwards, self._outputs),
        )
        self._half = self._rules.half  # values that are made in half
        self._nodes: list[Any] = []

    def run(self) -> None:
        """Replace the graph's nodes by typed ones."""
        for node in self._graph.node:
            half = self._rules.is_half(node.op_type, node.input, node.output)
            for position, name in enumerate(node.input):
                if name in self._floats:
                    wanted = half and (node.op_type, position) not in _ALWAYS_FLOAT
                    node.input[position] = self._as(name, wanted)
            made = [name for name in node.output if half and name in self._floats]
            self._half.update(made)
            self._nodes.append(node)
            for name in made:
                if name in self._outputs:
                    self._move_aside(node, name)
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)
        del self._graph.value_info[:]

    def _as(self, name: str, half: bool) -> str:
        """The name of a value in the type wanted; made from it where need be."""
        if (name, half) not in self._copies:
            if (name in self._half) == half:
                return name
            if name in self._constants:
                self._copies[name, half] = self._constants.in_half(name)
            else:
                copy = self._fresh(name, half)
                self._cast(name, copy, half)
                self._copies[name, half] = copy
        return self._copies[name, half]

    def _move_aside(self, node: onnx.NodeProto, name: str) -> None:
        """Give the half value another name, and its own to a float32 copy: it is an output of the graph."""
        aside = self._fresh(name, True)
        node.output[list(node.output).index(name)] = aside
        self._cast(aside, name, False)
        self._copies |= {(name, True): aside, (name, False): name}

    def _cast(self, source: str, target: str, half: bool) -> None:
        to = self._constants.half_type if half else self._onnx.TensorProto.FLOAT
        self._nodes.append(self._onnx.helper.make_node("Cast", [source], [target], to=to))

    def _fresh(self, name: str, half: bool) -> str:
        return self._constants.fresh(f"{name}.{self._constants.suffix if half else 'fp32'}")


def _raise_opset(model: onnx.ModelProto) -> None:
    """Name the operator set in which convolutions may be bfloat16; what these graphs use means the same in it."""
    opset = next(entry for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    changed = opset.version < _GROUP_NORM_OPSET and any(
        node.op_type == "GroupNormalization" for node in model.graph.node
    )
    if not changed:
        opset.version = max(opset.version, _BF16_OPSET)
        model.ir_version = max(model.ir_version, _BF16_IR)
