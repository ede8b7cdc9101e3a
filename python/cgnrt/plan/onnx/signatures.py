"""The inputs and attributes that each operator has in each operator set, from 13 on.

An engine either refuses what the specification does not have, or reads it in its own way. So a graph may have
nothing else: what a rule reads is then what the engine reads. The table is that of the ONNX specification,
except for attributes of types that plans do not have; a test compares the two.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import NamedTuple

from cgnrt.errors import refuse, show
from cgnrt.plan.limits import MIN_OPSET
from cgnrt.plan.onnx.model import Attribute, Node
from cgnrt.plan.onnx.wire import Tensor

# Operators without attributes, by the number of their inputs and the set that they are in from.
_PLAIN = """
1: Abs Acos Acosh Asin Asinh Atan Atanh Ceil Cos Cosh Erf Exp Floor GlobalAveragePool GlobalMaxPool Identity
    IsNaN Log Neg Not Reciprocal Relu Round Sigmoid Sign Sin Sinh Size Softplus Softsign Sqrt Tan Tanh
1@14: HardSwish
1@18: Mish
1-*: Max Mean Min Sum
1-2: Squeeze
1-3: Clip
2: Add And Div Equal Expand Greater GreaterOrEqual Less LessOrEqual MatMul Mul Or PRelu Pow Sub Tile Unsqueeze
    Xor
2@18: BitwiseAnd BitwiseOr BitwiseXor
3: Range Where
3-5: Slice
"""
# The others, a line each: `@18` is "from set 18 on", `<18` "before".
_LINES = """
ArgMax 1 axis:int keepdims:int select_last_index:int
ArgMin 1 axis:int keepdims:int select_last_index:int
AveragePool 1 auto_pad:text ceil_mode:int count_include_pad:int dilations:ints@19 kernel_shape:ints pads:ints
    strides:ints
BatchNormalization 5 epsilon:float momentum:float training_mode:int@14
BitShift 2 direction:text
Cast 1 round_mode:text@24 saturate:int@19 to:int
CastLike@15 2 round_mode:text@24 saturate:int@19
Celu 1 alpha:float
Concat 1-* axis:int
Constant 0 value:tensor value_float:float value_floats:floats value_int:int value_ints:ints value_string:text
ConstantOfShape 1 value:tensor
Conv 2-3 auto_pad:text dilations:ints group:int kernel_shape:ints pads:ints strides:ints
ConvTranspose 2-3 auto_pad:text dilations:ints group:int kernel_shape:ints output_padding:ints output_shape:ints
    pads:ints strides:ints
CumSum 2 exclusive:int reverse:int
DepthToSpace 1 blocksize:int mode:text
DequantizeLinear 2-3 axis:int block_size:int@21 output_dtype:int@23
Dropout 1-3 seed:int
Einsum 1-* equation:text
Elu 1 alpha:float
Flatten 1 axis:int
Gather 2 axis:int
GatherElements 2 axis:int
GatherND 2 batch_dims:int
Gelu@20 1 approximate:text
Gemm 2-3 alpha:float beta:float transA:int transB:int
GridSample@16 2 align_corners:int mode:text padding_mode:text
GroupNormalization@18 3 epsilon:float num_groups:int stash_type:int@21
HardSigmoid 1 alpha:float beta:float
Hardmax 1 axis:int
InstanceNormalization 3 epsilon:float
IsInf 1 detect_negative:int detect_positive:int
LRN 1 alpha:float beta:float bias:float size:int
LayerNormalization@17 2-3 axis:int epsilon:float stash_type:int
LeakyRelu 1 alpha:float
LogSoftmax 1 axis:int
LpNormalization 1 axis:int p:int
LpPool 1 auto_pad:text ceil_mode:int@18 dilations:ints@18 kernel_shape:ints p:int pads:ints strides:ints
MaxPool 1 auto_pad:text ceil_mode:int dilations:ints kernel_shape:ints pads:ints storage_order:int strides:ints
MeanVarianceNormalization 1 axes:ints
Mod 2 fmod:int
OneHot 3 axis:int
Pad 2-3,2-4@18 mode:text
QuantizeLinear 2-3 axis:int block_size:int@21 output_dtype:int@21 precision:int@23 saturate:int@19
RMSNormalization@23 2 axis:int epsilon:float stash_type:int
ReduceL1 1,1-2@18 axes:ints<18 keepdims:int noop_with_empty_axes:int@18
ReduceL2 1,1-2@18 axes:ints<18 keepdims:int noop_with_empty_axes:int@18
ReduceLogSum 1,1-2@18 axes:ints<18 keepdims:int noop_with_empty_axes:int@18
ReduceLogSumExp 1,1-2@18 axes:ints<18 keepdims:int noop_with_empty_axes:int@18
ReduceMax 1,1-2@18 axes:ints<18 keepdims:int noop_with_empty_axes:int@18
ReduceMean 1,1-2@18 axes:ints<18 keepdims:int noop_with_empty_axes:int@18
ReduceMin 1,1-2@18 axes:ints<18 keepdims:int noop_with_empty_axes:int@18
ReduceProd 1,1-2@18 axes:ints<18 keepdims:int noop_with_empty_axes:int@18
ReduceSum 1-2 keepdims:int noop_with_empty_axes:int
ReduceSumSquare 1,1-2@18 axes:ints<18 keepdims:int noop_with_empty_axes:int@18
Reshape 2 allowzero:int@14
Resize 1-4 antialias:int@18 axes:ints@18 coordinate_transformation_mode:text cubic_coeff_a:float
    exclude_outside:int extrapolation_value:float keep_aspect_ratio_policy:text@18 mode:text nearest_mode:text
ScatterElements 3 axis:int reduction:text@16
ScatterND 3 reduction:text@16
Selu 1 alpha:float gamma:float
Shape 1 end:int@15 start:int@15
Shrink 1 bias:float lambd:float
Softmax 1 axis:int
SpaceToDepth 1 blocksize:int
Split 1-2 axis:int num_outputs:int@18
Swish@24 1 alpha:float
ThresholdedRelu 1 alpha:float
TopK 2 axis:int largest:int sorted:int
Transpose 1 perm:ints
Trilu@14 1-2 upper:int
"""
_KINDS: Mapping[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (float,),
    "text": (str,),
    "ints": (list,),
    "floats": (list,),
    "tensor": (Tensor,),
}
_ANY = 1 << 16  # inputs of an operator that takes any number of them


class _Inputs(NamedTuple):
    since: int
    low: int
    high: int


class _Attribute(NamedTuple):
    name: str
    kind: str
    since: int
    before: int


class Signature(NamedTuple):
    """What an operator may have: inputs by operator set, and attributes."""

    since: int
    inputs: tuple[_Inputs, ...]
    attributes: Mapping[str, _Attribute]


@functools.cache
def signatures() -> Mapping[str, Signature]:
    """The signatures by operator."""
    found: dict[str, Signature] = {}
    for line in _joined(_PLAIN):
        head, _, names = line.partition(": ")
        counts, _, since = head.partition("@")
        for name in names.split():
            found[name] = _parse(name, since, counts, [])
    for line in _joined(_LINES):
        head, counts, *attributes = line.split()
        name, _, since = head.partition("@")
        found[name] = _parse(name, since, counts, attributes)
    return found


def _joined(text: str) -> list[str]:
    """The lines of a table, with those that go on joined."""
    return text.strip().replace("\n    ", " ").splitlines()


def _parse(name: str, since: str, counts: str, attributes: list[str]) -> Signature:
    first = int(since or MIN_OPSET)
    inputs = []
    for part in counts.split(","):
        count, _, start = part.partition("@")
        low, dash, high = count.partition("-")
        most = _ANY if high == "*" else int(high if dash else low)
        inputs.append(_Inputs(int(start or first), int(low), most))
    known = {}
    for attribute in attributes:
        rest, _, before = attribute.partition("<")
        rest, _, start = rest.partition("@")
        key, _, kind = rest.partition(":")
        known[key] = _Attribute(key, kind, int(start or first), int(before or 1 << 16))
    return Signature(first, tuple(inputs), known)


def check_signature(node: Node, opset: int) -> None:
    """Refuse a node with inputs or attributes that its operator does not have in this operator set.

    Raises:
      PlanError: naming the first of them.
    """
    signature = signatures()[node.op]
    if opset < signature.since:
        raise refuse("operator set", opset, f">= {signature.since}, which has {node.op}")
    _, low, high = next(found for found in reversed(signature.inputs) if found.since <= opset)
    count = len(node.inputs)
    if not low <= count <= high:
        rule = f"{low}" if low == high else f"{low}..{high}" if high < _ANY else f">= {low}"
        raise refuse("number of inputs", count, rule)
    required = node.inputs if high == _ANY else node.inputs[:low]
    if "" in required:
        raise refuse(f"input {required.index('')}", "missing", f"an operand of {node.op}")
    for name, value in node.attributes.items():
        _check_attribute(signature, name, value, opset)


def _check_attribute(signature: Signature, name: str, value: Attribute, opset: int) -> None:
    known = signature.attributes.get(name)
    if known is None or not known.since <= opset < known.before:
        names = [a.name for a in signature.attributes.values() if a.since <= opset < a.before]
        raise refuse("attribute", show(name), f"one of {', '.join(names)}" if names else "no attribute")
    if type(value) not in _KINDS[known.kind]:
        raise refuse(f"attribute {name}", show(value), f"of kind {known.kind}")
    if isinstance(value, list) and value:
        wanted = int if known.kind == "ints" else float
        if any(type(item) is not wanted for item in value):
            raise refuse(f"attribute {name}", show(value), f"of kind {known.kind}")
