"""Sizes hold for every batch: what does not grow in step with it is refused, whatever one batch makes of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from cgnrt.errors import PlanError
from cgnrt.plan import Plan
from cgnrt.plan.onnx.sizes import Linear, count_elements, fits, fixed, is_one, same

N = Linear(1)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (N + 3, Linear(1, 3)),
        (3 + N, Linear(1, 3)),
        (N - 3, Linear(1, -3)),
        (3 - N, Linear(-1, 3)),
        (N - N, 0),
        (N * 4 + N, Linear(5)),
        (0 * N, 0),
        (N * 4 // 2, Linear(2)),
        ((N * 4 + 8) // (N + 2), 4),
        ((N * 4 + 7) % 4, 3),
        (count_elements([N, 3, 4]), Linear(12)),
        (count_elements([]), 1),
    ],
)
def test_arithmetic(found: object, expected: object) -> None:
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("calculate", "message"),
    [
        (lambda: N * N, r"size is \(n\) x \(n\), expected one that is linear in the batch n"),
        (lambda: count_elements([N, N]), r"size is \(n\) x \(n\)"),
        (lambda: N // 2, r"size is \(n\) / 2, expected a whole number for every batch n"),
        (lambda: N // 0, r"size is \(n\) / 0"),
        (lambda: N // (N + 1), r"size is \(n\) / \(n \+ 1\)"),
        (lambda: 8 // N, r"size is 8 / \(n\)"),
        (lambda: N % 2, r"size is \(n\) modulo 2, expected one that is the same for every batch n"),
        (lambda: 8 % N, r"size is 8 modulo \(n\)"),
        (lambda: N * 1.5, r"size is calculated with 1\.5, expected whole numbers"),
        (lambda: N + True, r"size is calculated with True"),
        (lambda: N == 11, r"comparison is n with 11, expected one that every batch n decides alike"),
        (lambda: N * 2 == N + 4, r"comparison is 2n with n \+ 4"),
        (lambda: N > 1, r"comparison is n with 1"),
        (lambda: N < 11, r"comparison is n with 11"),
        (lambda: bool(N - 3), r"comparison is n - 3 with 0"),
        (lambda: fixed((N, 3)), r"shape is \[n, 3\], expected one that is the same for every batch"),
    ],
)
def test_what_is_not_the_same_for_every_batch(calculate: Callable[[], object], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        calculate()


def test_what_every_batch_decides_alike() -> None:
    assert N >= 1
    assert N > 0
    assert not N < 1
    assert N * 2 > N
    assert N != 0
    assert N * 2 != 11
    assert N != "n"
    assert 4 - N * 4 <= 0
    assert not is_one(N)
    assert not same((N,), (11,))
    assert not same((N,), (5 * N,))
    assert same((N, 3), (Linear(1), 3))
    assert fits(N * 8, 8)
    assert not fits(N * 8 + 1, 8)
    assert not fits(N * 9 - 5, 8)
    assert fits(8, 8)
    assert not fits(9, 8)
    assert [str(size) for size in (N, N * -1, N * 3 - 2, N + 1)] == ["n", "-n", "3n - 2", "n + 1"]


def batch(*nodes: onnx.NodeProto) -> list[onnx.NodeProto]:
    """The batch as `n` and as a list `n1`, and then these nodes."""
    return [
        helper.make_node("Shape", ["noise"], ["a"]),
        helper.make_node("Gather", ["a", "zero"], ["n"]),
        helper.make_node("Gather", ["a", "zeros"], ["n1"]),
        *nodes,
    ]


def node(op: str, *inputs: str, out: str = "big", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, list(inputs), [out], **attributes)


CONSTANTS: dict[str, NDArray[Any]] = {
    "zero": np.array(0),
    "zeros": np.array([0]),
    "unit": np.array(1),
    "one": np.array([1]),
    "eleven": np.array([11]),
    "many": np.array([2**26]),
    "huge": np.array([2**36]),
    "back": np.array([-1]),
    "end": np.array([2**31 - 1]),
    "minus7": np.array([-7]),
    "minus9": np.array([-9]),
    "two": np.array([2]),
    "ones": np.array([1, 1]),
    "eleven_rows": np.zeros((11, 4), np.float32),
    "pads": np.array([1, 0, 0, 0]),
    "scales": np.array([1, 1, 1, 1], np.float32),
    "sizes": np.array([1, 1, 64, 64]),
    "wide": np.array([2**24]),
    "row": np.array([1, 2**26]),
}


def opened(parts: Any, *nodes: onnx.NodeProto, opset: int = 18) -> str:
    """What is said of a plan with these nodes before the last; "" if it is taken."""
    parts = parts.copy()
    model = parts.graph()
    model.opset_import[0].version = opset
    for name, array in CONSTANTS.items():
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    for index, item in enumerate(batch(*nodes)):
        model.graph.node.insert(3 + index, item)
    try:
        Plan.open(parts.set_graph(model).save()).close()
    except PlanError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        # (n - 11)^2 x 2^26: nothing for the 11 images that sizes were once worked out for.
        (
            [
                node("Sub", "n1", "eleven", out="d"),
                node("Mul", "d", "d", out="square"),
                node("Mul", "square", "many", out="s"),
                node("ConstantOfShape", "s"),
            ],
            r"input 0 \(which sets the size\) is unknown",
        ),
        (
            [
                node("Equal", "n1", "eleven", out="is"),
                node("Where", "is", "one", "many", out="s"),
                node("Expand", "one", "s"),
            ],
            r"input 1 \(which sets the size\) is unknown",
        ),
        ([node("Mod", "n1", "two", out="s"), node("Expand", "one", "s")], r"input 1 .* is unknown"),
        ([node("Div", "many", "n1", out="s"), node("Expand", "one", "s")], r"input 1 .* is unknown"),
        ([node("Min", "n1", "eleven", out="s"), node("Expand", "one", "s")], r"input 1 .* is unknown"),
        ([node("Sub", "n1", "eleven", out="s"), node("Expand", "one", "s")], r"comparison is n - 11 with 1"),
        ([node("Concat", "n1", "n1", out="s", axis=0), node("Expand", "one", "s")], r"size is \(n\) x \(n\)"),
        ([node("MatMul", "noise", "noise")], r"shapes is \[n, 4\] and \[n, 4\], expected equal inner"),
        (
            [node("Transpose", "noise", out="t", perm=[1, 0]), node("MatMul", "noise", "t")],
            r"size is \(n\) x \(n\)",
        ),
        ([node("Squeeze", "noise")], r"axes is missing, expected those that go from \[n, 4\]"),
        ([node("Slice", "noise", "one", "eleven", "zeros")], r"comparison is n with 11"),
        ([node("Slice", "noise", "zeros", "eleven", "zeros")], r"comparison is n with 11"),
        ([node("Split", "noise", "eleven", axis=0)], r"comparison is n with 11"),
        ([node("Add", "noise", "eleven_rows")], r"comparison is n with 11|comparison is 11 with n"),
        ([node("Mul", "n1", "many", out="s"), node("Expand", "one", "s")], r"input 1 .* is unknown"),
        ([node("Pad", "noise", "pads")], r"pads is \[1, 0, 0, 0\], expected no pads for axis 0, which grows"),
        # Slice goes backwards from before the first element: one element, in engines, where Python has none.
        (
            [
                node("Slice", "a", "minus7", "minus9", "zeros", "back", out="b"),
                node("Shape", "b", out="c"),
                node("Mul", "c", "huge", out="s"),
                node("ConstantOfShape", "s"),
            ],
            r"input 0 \(which sets the size\) is unknown",
        ),
    ],
)
def test_sizes_that_do_not_grow_in_step(parts: Any, nodes: list[onnx.NodeProto], message: str) -> None:
    found = opened(parts, *nodes)
    assert re.search(message, found), found


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Mul", "n1", "eleven", out="s"), node("Expand", "one", "s")],
        [node("Add", "n1", "n1", out="s"), node("Div", "s", "two", out="t"), node("ConstantOfShape", "t")],
        [
            node("Equal", "n1", "back", out="is"),
            node("Where", "is", "one", "n1", out="s"),
            node("Expand", "one", "s"),
        ],
        [node("Slice", "noise", "zeros", "n1", "zeros")],
        [node("Slice", "noise", "zeros", "one", "zeros")],
        [node("Slice", "noise", "back", "end", "zeros")],
        [node("Concat", "noise", "noise", out="t", axis=0), node("Split", "t", axis=0, num_outputs=1)],
        [node("ReduceMax", "n1", out="m", keepdims=0), node("Range", "zero", "m", "unit")],
        [node("Tile", "noise", "ones")],
    ],
)
def test_sizes_that_grow_in_step(parts: Any, nodes: list[onnx.NodeProto]) -> None:
    assert opened(parts, *nodes) == ""


def test_a_resize_by_scales_and_sizes_both(parts: Any) -> None:
    found = opened(parts, node("Resize", "logits", "", "scales", "sizes"))
    assert "scales and sizes is both given, expected one of them" in found
    assert "scales and sizes is both missing" in opened(parts, node("Resize", "logits"))


def test_a_split_into_another_number_than_its_outputs(parts: Any) -> None:
    split = helper.make_node("Split", ["noise"], ["p", "q"], axis=1, num_outputs=4)
    assert "attribute num_outputs is 4, expected 2, as many as outputs" in opened(parts, split)
    split = helper.make_node("Split", ["noise"], ["p", "q"], axis=1)
    assert "attribute num_outputs is missing, expected it, or the parts" in opened(parts, split)
    assert opened(parts, split, opset=17) == ""
    split = helper.make_node("Split", ["noise"], ["p", "q", "r"], axis=1)
    assert "length is 4, expected a multiple of 3" in opened(parts, split, opset=17)


def test_constants_that_follow_from_shapes_are_bounded_together(parts: Any) -> None:
    """An engine may fold what does not depend on the batch."""
    nodes = [node("Slice", "a", "one", "two", out="four"), node("Mul", "four", "wide", out="s")]
    nodes += [node("ConstantOfShape", "s", out=f"big{k}") for k in range(3)]
    assert "constants computed so far is" in opened(parts, *nodes)


def test_what_is_needed_at_a_time_is_bounded(parts: Any) -> None:
    wide = [node("Expand", "column", "row", out=f"big{k}") for k in range(40)]
    first = node("Unsqueeze", "n1", "one", out="column")
    sums = [node("Sum", *(f"big{k}" for k in range(40)), out="sum")]
    found = opened(parts, first, *wide, *sums)
    assert "tensors that are needed at a time is" in found
    one_by_one = [item for k in range(40) for item in (wide[k], node("Relu", f"big{k}", out=f"small{k}"))]
    assert "needed at a time" not in opened(parts, first, *one_by_one)
