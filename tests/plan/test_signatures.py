"""The inputs and attributes of every operator, against those of the ONNX package; what an operator lacks is refused."""

from __future__ import annotations

import onnx.defs
import pytest

from cgnrt.errors import PlanError
from cgnrt.plan.limits import MAX_OPSET, MIN_OPSET
from cgnrt.plan.onnx.model import Node
from cgnrt.plan.onnx.rules import RULES
from cgnrt.plan.onnx.signatures import check_signature, signatures

OPSETS = range(MIN_OPSET, MAX_OPSET + 1)
Kind = onnx.defs.OpSchema.AttrType
KINDS = {
    Kind.INT: "int",
    Kind.FLOAT: "float",
    Kind.STRING: "text",
    Kind.INTS: "ints",
    Kind.FLOATS: "floats",
    Kind.TENSOR: "tensor",
}
UNLIMITED = 2**31 - 1  # how the package writes it


def test_operators() -> None:
    assert sorted(signatures()) == sorted(RULES)


@pytest.mark.parametrize("op", sorted(RULES))
def test_the_table_is_the_specification(op: str) -> None:
    signature = signatures()[op]
    for opset in OPSETS:
        if opset < signature.since:
            with pytest.raises(onnx.defs.SchemaError):
                onnx.defs.get_schema(op, opset, "")
            continue
        schema = onnx.defs.get_schema(op, opset, "")
        inputs = next(found for found in reversed(signature.inputs) if found.since <= opset)
        high = inputs.high if schema.max_input != UNLIMITED else UNLIMITED
        assert (inputs.low, high) == (schema.min_input, schema.max_input), opset
        known = {a.name: a.kind for a in signature.attributes.values() if a.since <= opset < a.before}
        wanted = {name: KINDS[a.type] for name, a in schema.attributes.items() if a.type in KINDS}
        assert known == wanted, opset


@pytest.mark.parametrize(
    ("node", "opset", "message"),
    [
        (Node("Gelu", "", ("x",), ("y",), {}), 19, r"operator set is 19, expected >= 20, which has Gelu"),
        (Node("Relu", "", ("x", "x"), ("y",), {}), 18, r"number of inputs is 2, expected 1\."),
        (Node("Clip", "", ("x",) * 4, ("y",), {}), 18, r"number of inputs is 4, expected 1\.\.3"),
        (Node("Sum", "", (), ("y",), {}), 18, r"number of inputs is 0, expected >= 1"),
        (Node("Sum", "", ("x", ""), ("y",), {}), 18, r"input 1 is missing, expected an operand of Sum"),
        (Node("Slice", "", ("x", "", "x"), ("y",), {}), 18, r"input 1 is missing"),
        (Node("ReduceMax", "", ("x", "a"), ("y",), {}), 17, r"number of inputs is 2, expected 1\."),
        (Node("ReduceMax", "", ("x",), ("y",), {"axes": [1]}), 18, r"attribute is 'axes', expected one of"),
        (
            Node("Relu", "", ("x",), ("y",), {"alpha": 1.0}),
            18,
            r"attribute is 'alpha', expected no attribute",
        ),
        (Node("Elu", "", ("x",), ("y",), {"alpha": 1}), 18, r"attribute alpha is 1, expected of kind float"),
        (Node("Transpose", "", ("x",), ("y",), {"perm": [1.0]}), 18, r"attribute perm is .* of kind ints"),
    ],
)
def test_refusals(node: Node, opset: int, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        check_signature(node, opset)
