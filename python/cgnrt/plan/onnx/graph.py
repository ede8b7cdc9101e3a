"""Checks that a graph member is one that an engine may be given, and points its weights at mapped memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from cgnrt.errors import PlanError, refuse, show, within
from cgnrt.plan.limits import ALIGNMENT, MAX_ELEMENTS, MAX_LIVE_ELEMENTS, MAX_RANK
from cgnrt.plan.manifest import TensorSpec
from cgnrt.plan.onnx import wire
from cgnrt.plan.onnx.model import Model, Node, Value, parse_model
from cgnrt.plan.onnx.rules import RULES
from cgnrt.plan.onnx.shapes import Effort, Info, Operands, Rule, is_small, tensor_info
from cgnrt.plan.onnx.signatures import check_signature
from cgnrt.plan.onnx.sizes import Linear, Shape, Size, count_elements, fits, same
from cgnrt.plan.onnx.wire import DataType, External, Tensor, parse_tensor
from cgnrt.plan.weights import Weights


class ExternalInitializer(NamedTuple):
    """An initializer whose bytes lie in the weights member at `offset`."""

    name: str
    dtype: str
    dims: tuple[int, ...]
    offset: int
    length: int


def external_initializers(model: Model) -> list[ExternalInitializer]:
    """The initializers of a graph that lie in its weights member, in the order of the graph."""
    return [
        ExternalInitializer(name, tensor.dtype.name, tensor.dims, external.offset, external.length)
        for name, tensor in model.initializers.items()
        if (external := tensor.external) is not None
    ]


def validate_graph(
    graph: bytes | memoryview,
    *,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    location: str | None,
    weights: bytes | memoryview | Weights | None,
) -> Model:
    """Read a graph member and check it against the manifest and its weights.

    Args:
      graph: the ONNX model.
      inputs: what the graph must take, exactly; order does not matter.
      outputs: what it must give, exactly.
      location: the file name that external data must have (`shape.weights`); None without weights.
      weights: those that belong to it: a weights member that is stored in full, or `Weights`.

    Returns:
      The parsed graph, so that nothing has to parse it again.

    Raises:
      PlanError: the model is malformed, refers to anything else, or could grow beyond the format's limits.
    """
    model = parse_model(bytes(graph))
    if weights is not None and not isinstance(weights, Weights):
        weights = Weights(memoryview(weights).cast("B"))  # so that its length is in bytes
    _check_weights(model.initializers.values(), location, weights)
    _check_interface(model.inputs, inputs, "input")
    _check_interface(model.outputs, outputs, "output")
    _check_links(model)
    _check_shapes(model, weights, inputs, outputs)
    return model


def _check_weights(tensors: Iterable[Tensor], location: str | None, weights: Weights | None) -> None:
    """External data lies in the graph's own weights member, aligned, in bounds, and covers all of it."""
    size = weights.nbytes if weights is not None else 0
    half_from = weights.half_from if weights is not None else None
    ranges: set[tuple[int, int]] = set()
    for tensor in tensors:
        external = tensor.external
        if external is None:
            continue
        try:
            _check_external(external, location, size)
            _check_half(tensor.dtype, external, half_from)
        except PlanError as error:
            raise within(f"initializer {show(tensor.name)}", error) from None
        ranges.add((external.offset, external.offset + external.length))
    covered = 0
    for start, end in sorted(ranges):
        if start < covered:
            raise refuse("external data", f"overlapping at byte {start}", "separate or identical pieces")
        if start - covered >= ALIGNMENT:
            raise refuse(f"weights bytes {covered}..{start}", "used by no initializer", "no gaps")
        covered = end
    if size - covered >= ALIGNMENT:
        raise refuse(f"weights bytes {covered}..{size}", "used by no initializer", "no gaps")


def _check_external(external: External, location: str | None, size: int) -> None:
    """A piece of the weights member, which has `size` bytes, lies in it."""
    if location is None:
        rule = "no location (the mechanism has no weights member)"
        raise refuse("external data location", show(external.location), rule)
    if external.location != location:
        rule = f"{location!r}, the graph's own weights"
        raise refuse("external data location", show(external.location), rule)
    if external.offset % ALIGNMENT:
        raise refuse("external data offset", external.offset, f"a multiple of {ALIGNMENT}")
    if external.length < 1 or external.offset > size or external.length > size - external.offset:
        found = f"bytes {external.offset}..{external.offset + external.length}"
        raise refuse("external data", found, f"a part of the {size} bytes of {location!r}")


def _check_half(dtype: DataType, external: External, half_from: int | None) -> None:
    """A piece that is stored in half precision is float32, and is so stored altogether."""
    if half_from is None or external.offset + external.length <= half_from:
        return
    if external.offset < half_from:
        found = f"bytes {external.offset}..{external.offset + external.length}"
        raise refuse("external data", found, f"all before byte {half_from} of the weights or all behind it")
    if dtype.name != "float32":
        rule = f"float32 (bytes behind {half_from} are stored as float16)"
        raise refuse("data type", dtype.name, rule)


def _check_interface(values: Sequence[Value], specs: Sequence[TensorSpec], what: str) -> None:
    """The graph's inputs or outputs are those of the manifest by name, element type and dimensions."""
    expected = {spec.name: spec for spec in specs}
    names = [value.name for value in values]
    if sorted(names) != sorted(expected):
        raise refuse(f"graph {what}s", show(names), f"{sorted(expected)} (the manifest's)")
    for value in values:
        spec = expected[value.name]
        subject = f"graph {what} {value.name!r}"
        if value.dtype.name != spec.dtype:
            raise refuse(f"{subject}: element type", value.dtype.name, spec.dtype)
        if len(value.dims) != len(spec.shape):
            raise refuse(f"{subject}: shape", show(list(value.dims)), show(list(spec.shape)))
        for index, (found, rule) in enumerate(zip(value.dims, spec.shape, strict=True)):
            if index == 0 and isinstance(found, int):
                raise refuse(f"{subject}: batch", found, "a named dimension (dynamic batch)")
            if index and found != rule and (what == "input" or isinstance(found, int)):
                raise refuse(f"{subject}: shape", show(list(value.dims)), show(list(spec.shape)))


def _check_links(model: Model) -> None:
    """Nodes come in order, every value is made once, and every output is made."""
    made = {value.name for value in model.inputs}
    for name in model.initializers:
        if name in made or not name:
            raise refuse(f"initializer {show(name)}", "an input or without a name", "a name of its own")
        made.add(name)
    if not model.nodes:
        raise refuse("graph", "without nodes", "a network")
    for index, node in enumerate(model.nodes):
        try:
            _check_node(node, made)
        except PlanError as error:
            raise within(f"node {index} ({show(node.op)})", error) from None
    for value in model.outputs:
        if value.name not in made:
            raise refuse(f"graph output {show(value.name)}", "made by no node", "a node's output")


def _check_node(node: Node, made: set[str]) -> None:
    """A node reads values that are made, and adds its own to them."""
    for name in node.inputs:
        if name and name not in made:
            raise refuse("input", show(name), "a value made before")
    if not node.outputs or not node.outputs[0]:
        raise refuse("outputs", "0", ">= 1")
    for name in node.outputs:
        if name and name in made:
            raise refuse("output", f"{show(name)} again", "each value once")
        made.add(name)


def _check_shapes(
    model: Model,
    weights: Weights | None,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
) -> None:
    """No tensor is larger than the limit, nor are those that are needed at a time, by rules that hold for every batch.

    The links must be sound. Refused are also unknown operators, operands that do not fit theirs, and outputs of
    another shape than the manifest's.
    """
    known: dict[str, Info | None] = {"": None}
    for spec in inputs:
        known[spec.name] = Info(_dims(spec))
    for name, tensor in model.initializers.items():
        known[name] = tensor_info(tensor, model.data, weights)
    effort, memory = Effort(), _Memory(model)
    for index, node in enumerate(model.nodes):
        try:
            rule = RULES.get(node.op)
            if rule is None:
                raise refuse("operator", show(node.op), "one that docs/plan-format.md lists")
            check_signature(node, model.opset)
            operands = Operands(node, [known[name] for name in node.inputs], model.data, model.opset, effort)
            constant = all(info is None or _is_constant(info) for info in operands.inputs)
            results = _apply(rule, operands)
            if len(node.outputs) > len(results):
                raise refuse("number of outputs", len(node.outputs), f"<= {len(results)}")
            for name, info in zip(node.outputs, results, strict=False):
                elements = _check_size(info.dims)
                memory.add(name, elements, constant)
                known[name] = Info(info.dims, info.values if is_small(info.dims) else None, constant)
            known[""] = None
            memory.release(index)
        except PlanError as error:
            raise within(f"node {index} ({show(node.op)})", error) from None
    for spec in outputs:
        result = known[spec.name]
        if result is None or not same(result.dims, _dims(spec)):
            found = show(list(result.dims)) if result else "unknown"
            raise refuse(f"graph output {spec.name!r}: computed shape", found, str(list(_dims(spec))))


def _dims(spec: TensorSpec) -> Shape:
    """The dimensions of an input or output, its batch as n."""
    return tuple(dim if isinstance(dim, int) else Linear(1) for dim in spec.shape)


def _is_constant(info: Info) -> bool:
    """Whether an engine can know the value while it loads the graph: a constant, or what follows from fixed shapes."""
    return info.constant or (
        info.values is not None and not any(isinstance(value, Linear) for value in info.values.reshape(-1))
    )


def _apply(rule: Rule, operands: Operands) -> list[Info]:
    try:
        return rule(operands)
    except (ArithmeticError, IndexError, TypeError, ValueError) as error:
        # A rule calculates with numbers from the file: those that its arithmetic cannot take are malformed.
        raise refuse("operands", f"malformed ({error})", f"those of {operands.node.op}") from None


def _check_size(dims: Shape) -> Size:
    """The number of elements of a result, within the limit for each image of the batch."""
    if len(dims) > MAX_RANK:
        raise refuse("rank of the result", len(dims), f"<= {MAX_RANK}")
    elements = count_elements(dims)
    for dim in dims:
        # Nothing is empty but lists of numbers, such as no axes: engines differ in what they make of it.
        if not dim >= (0 if len(dims) == 1 and isinstance(dim, int) else 1):
            raise refuse("shape of the result", show(list(dims)), "sizes >= 1")
    if not fits(elements, MAX_ELEMENTS) or not all(fits(dim, MAX_ELEMENTS) for dim in dims):
        found = f"{show(list(dims))}, {elements} elements"
        raise refuse("shape of the result", found, f"<= {MAX_ELEMENTS} elements for each image")
    return elements


class _Memory:
    """The elements of the results that are still needed after each node, and of constants, which stay."""

    def __init__(self, model: Model) -> None:
        self._last: dict[str, int] = {}
        for index, node in enumerate(model.nodes):
            for name in (*node.inputs, *node.outputs):
                self._last[name] = index
        for value in model.outputs:
            self._last[value.name] = len(model.nodes)
        self._ending: dict[int, Size] = {}
        self._live: Size = 0
        self._folded: Size = 0

    def add(self, name: str, elements: Size, constant: bool) -> None:
        """Count a result; it goes after the last node that reads it."""
        if constant:
            self._folded = self._folded + elements
            if not fits(self._folded, MAX_ELEMENTS):
                found = f"{self._folded} elements"
                raise refuse("constants computed so far", found, f"<= {MAX_ELEMENTS} in all")
            return
        self._live = self._live + elements
        if not fits(self._live, MAX_LIVE_ELEMENTS):
            found = f"{self._live} elements"
            raise refuse("tensors that are needed at a time", found, f"<= {MAX_LIVE_ELEMENTS} for each image")
        last = self._last.get(name, 0)
        self._ending[last] = self._ending.get(last, 0) + elements

    def release(self, index: int) -> None:
        """Forget what no later node reads."""
        self._live = self._live - self._ending.pop(index, 0)


def relocate(model: Model, location: str, base_address: int) -> bytes:
    """The graph with its external data moved: another location, and `base_address` added to every offset.

    With `location="*/_ORT_MEM_ADDR_/*"` and the address of the mapped weights, OpenVINO's ONNX reader takes the
    weights from memory, without a file. (Version 2026.4 copies them while it reads the model. ONNX Runtime does
    not take such graphs; it has `SessionOptions.add_external_initializers_from_files_in_memory`.) The graph must
    come from a checked plan, and the memory must outlive the model: whoever reads the result trusts both.

    Args:
      model: a parsed graph member.
      location: the new location of every external initializer.
      base_address: what to add to their offsets, >= 0.

    Returns:
      New bytes; equal to the graph where it has no external data.
    """
    if base_address < 0:
        raise ValueError(f"relocate: base_address is {base_address}, expected >= 0.")
    data = model.data
    if not any(tensor.external for tensor in model.initializers.values()):
        return data
    start, end = model.graph
    body = bytearray()
    done = start
    for item in wire.fields(data, start, end):
        if item.number != 5:
            continue
        tensor = parse_tensor(data, item, "initializer")
        if tensor.external is None:
            continue
        body += data[done : item.tag]
        moved = bytearray()
        copied = item.value
        for part in wire.fields(data, item.value, item.end):
            if part.number == 13:
                moved += data[copied : part.tag]
                copied = part.end
        moved += data[copied : item.end]
        offset = tensor.external.offset + base_address
        for key, text in (
            ("location", location),
            ("offset", str(offset)),
            ("length", str(tensor.external.length)),
        ):
            pair = wire.message(1, key.encode()) + wire.message(2, text.encode())
            moved += wire.message(13, pair)
        body += wire.message(5, bytes(moved))
        done = item.end
    body += data[done:end]
    return data[: model.graph_tag] + wire.message(7, bytes(body)) + data[end:]
