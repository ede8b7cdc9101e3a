"""Shape rules of the operators that combine a tensor with parameters: products, normalizations, quantization.

What combines element by element has the shape of the tensor: engines that write such an operator as several
others would broadcast a parameter of another shape, and the result with it.
"""

from __future__ import annotations

from collections.abc import Mapping

from cgnrt.errors import refuse, show
from cgnrt.plan.onnx.shapes import Info, Operands, Rule, broadcast, resolve_axis
from cgnrt.plan.onnx.sizes import Linear, Size, is_one, same


def _prelu(op: Operands) -> list[Info]:
    op.check_within(1)
    return [Info(op.dims(0))]


def _batch_normalization(op: Operands) -> list[Info]:
    if op.flag("training_mode", False):
        raise refuse("training_mode", "set", "an inference graph")
    op.check_vectors(op.dims(0, 2)[1], 1, 2, 3, 4)
    return [Info(op.dims(0))]


def _instance_normalization(op: Operands) -> list[Info]:
    op.check_vectors(op.dims(0, 3)[1], 1, 2)
    return [Info(op.dims(0))]


def _group_normalization(op: Operands) -> list[Info]:
    dims, groups = op.dims(0, 3), op.integer("num_groups", 0)
    channels = dims[1]
    if isinstance(channels, Linear) or groups < 1 or channels % groups:
        raise refuse("attribute num_groups", groups, f"a divisor of {channels} channels")
    op.check_vectors(groups if op.opset < 21 else channels, 1, 2)
    return [Info(op.dims(0))]


def _layer_normalization(op: Operands) -> list[Info]:
    """Scale and bias have the shape of what is normalized, as exporters write them: some engines broadcast them."""
    dims = op.dims(0, 1)
    axis = resolve_axis(op.integer("axis", -1), len(dims))
    for index in (1, 2):
        info = op.get(index)
        if info is not None and not same(info.dims, dims[axis:]):
            raise refuse(f"shape of input {index}", show(list(info.dims)), str(list(dims[axis:])))
    return [Info(op.dims(0))]


def _quantization(op: Operands) -> list[Info]:
    """One scale, or one for each slice along an axis."""
    dims, scale = op.dims(0), op.dims(1)
    if op.integer("block_size", 0):
        raise refuse("attribute block_size", op.integer("block_size", 0), "0")
    if not all(map(is_one, scale)) or len(scale) > 1:
        op.check_vectors(dims[resolve_axis(op.integer("axis", 1), len(dims))], 1)
    if op.get(2) is not None and not same(op.dims(2), scale):
        raise refuse("shape of the zero point", show(list(op.dims(2))), str(list(scale)))
    return [Info(op.dims(0))]


def _matmul(op: Operands) -> list[Info]:
    a, b = op.dims(0, 1), op.dims(1, 1)
    left = a if len(a) > 1 else (1, *a)
    right = b if len(b) > 1 else (*b, 1)
    if not same(left[-1:], right[-2:-1]):
        raise refuse("shapes", f"{list(a)} and {list(b)}", "equal inner dimensions")
    dims = list(broadcast([left[:-2], right[:-2]])) if len(left) > 2 or len(right) > 2 else []
    if len(a) > 1:
        dims.append(left[-2])
    if len(b) > 1:
        dims.append(right[-1])
    return [Info(tuple(dims))]


def _gemm(op: Operands) -> list[Info]:
    a, b = op.dims(0), op.dims(1)
    if len(a) != 2 or len(b) != 2:
        raise refuse("shapes", f"{list(a)} and {list(b)}", "two matrices")
    rows, inner = a[::-1] if op.flag("transA", False) else a
    inner_b, columns = b[::-1] if op.flag("transB", False) else b
    if not same((inner,), (inner_b,)):
        raise refuse("shapes", f"{list(a)} and {list(b)}", "equal inner dimensions")
    bias = op.get(2)
    if bias is not None and (
        len(bias.dims) > 2 or not same(broadcast([bias.dims, (rows, columns)]), (rows, columns))
    ):
        raise refuse("shape of C", list(bias.dims), f"one that broadcasts to {[rows, columns]}")
    return [Info((rows, columns))]


def _einsum(op: Operands) -> list[Info]:
    """One or two operands. Nothing is summed before it is multiplied, so that no product is larger than the result."""
    equation = op.text("equation", "").replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    sizes: dict[str, Size] = {}
    operands = op.all()
    letters = equation.replace(",", "").replace("->", "")
    if not arrow or not (letters.isascii() and letters.isalpha()) or len(terms) != len(operands):
        raise refuse("equation", show(equation), "letters, one term an input, and ->")
    for term, info in zip(terms, operands, strict=True):
        if len(term) != len(info.dims) or len(set(term)) < len(term):
            raise refuse(
                "equation", show(equation), f"{len(info.dims)} different letters for {list(info.dims)}"
            )
        for letter, dim in zip(term, info.dims, strict=True):
            if not same((sizes.setdefault(letter, dim),), (dim,)):
                raise refuse(f"size of {letter!r}", show(dim), str(sizes[letter]))
    if not set(right) <= set(sizes) or len(set(right)) < len(right):
        raise refuse("equation", show(equation), "output letters that the inputs have, each once")
    summed = [letter for letter in sizes if letter not in right]
    if len(terms) > 2 or any(letter not in term for letter in summed for term in terms):
        raise refuse(
            "equation", show(equation), "up to two terms, and sums over letters that all of them have"
        )
    return [Info(tuple(sizes[letter] for letter in right))]


LAYER_RULES: Mapping[str, Rule] = {
    "BatchNormalization": _batch_normalization,
    "DequantizeLinear": _quantization,
    "Einsum": _einsum,
    "Gemm": _gemm,
    "GroupNormalization": _group_normalization,
    "InstanceNormalization": _instance_normalization,
    "LayerNormalization": _layer_normalization,
    "MatMul": _matmul,
    "PRelu": _prelu,
    "QuantizeLinear": _quantization,
    "RMSNormalization": _layer_normalization,
}
