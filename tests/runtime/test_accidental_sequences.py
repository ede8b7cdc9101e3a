"""What has a length or a buffer by accident is not a label, number or array; what is meant well works."""

from __future__ import annotations

import array
import re
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cgnrt import Generator, audit, ops, real
from cgnrt.backends import load_engine
from cgnrt.request.options import SampleOptions

MASKED = np.ma.masked_array([1, 2], mask=[False, True])
ACCIDENTS: list[Any] = [
    b"c7",
    bytearray(b"\1\2"),
    memoryview(b"\1\2"),
    memoryview(np.array([1, 2])),
    {1, 2},
    frozenset({1, 2}),
    {1: 2},
    {1: 2}.keys(),
    (k for k in (1, 2)),
    iter([1, 2]),
    map(int, "12"),
    deque([1, 2]),
    array.array("d", [1, 2]),
    MASKED,
    np.ma.masked_array([1, 2]),
    np.array([1.0, 2.0]),
    np.array([True, False]),
    np.array([b"a", b"b"]),
    np.array([1 + 0j, 2]),
    np.array([[1, 2]]),
    np.array(1),
    np.array([1, 2.5], object),
    np.array([1, True], object),
    np.zeros(2, [("a", int)]),
    torch.tensor([1.0, 2.0]),
    torch.tensor([True, False]),
    torch.tensor([[1, 2]]),
    torch.tensor(1),
    [1, 2.0],
    [True, False],
    [b"c", b"7"],
    [[1, 2], [0, 1]],
    [None, 1],
    1.0,
    True,
    object(),
]


def kind(value: Any) -> str:
    """Without addresses: each process has to give a test the same name."""
    return re.sub(r" at 0x\w+", "", f"{type(value).__name__}-{value!r}")[:40]


@pytest.mark.parametrize("value", ACCIDENTS, ids=kind)
def test_no_labels(gen: Generator, value: Any) -> None:
    with pytest.raises(TypeError, match=r"sample: texture"):
        gen(texture=value, seed=0)
    with pytest.raises(TypeError, match=r"classes\['texture'\]"):
        gen.sample(2, seed=0, classes={"texture": value})
    with pytest.raises(TypeError, match=r"texture"):
        gen.interpolate(2, seed=0, texture=value)
    with pytest.raises(TypeError, match=r"do\['texture'\]"):
        gen.sample(2, seed=0, do={"texture": value})


NAMES = ["plain", "dots"]  # of the golden plan, 2 and 1


@pytest.mark.parametrize(
    "value",
    [
        [2, 1],
        (2, 1),
        [np.int64(2), np.uint8(1)],
        np.array([2, 1]),
        np.array([2, 1], np.uint16),
        np.array([2, 1], object),
        torch.tensor([2, 1]),
        torch.tensor([2, 1], dtype=torch.uint8),
        torch.tensor([2, 1]).float().requires_grad_().long(),
        array.array("q", [2, 1]),
        range(2, 0, -1),
        NAMES,
        np.array(NAMES),
        np.array(NAMES, object),
        np.array([2, "dots"], object),
        ["plain", 1],
        [np.str_("plain"), 1],
    ],
    ids=kind,
)
def test_labels(gen: Generator, value: Any) -> None:
    assert gen(texture=value, seed=0).labels.texture.tolist() == [2, 1]
    assert set(gen.sample(30, seed=0, classes={"texture": value}).labels.texture) == {1, 2}
    assert gen.interpolate(2, seed=0, texture=value).labels.texture.tolist() == [2, 1]


@pytest.mark.parametrize("value", [1, np.int64(1), np.uint8(1), "dots", np.str_("dots")], ids=kind)
def test_one_label(gen: Generator, value: Any) -> None:
    assert gen(texture=value, seed=0).labels.texture.tolist() == [1]
    assert gen.sample(2, seed=0, do={"texture": value}).labels.texture.tolist() == [1, 1]
    assert gen.interpolate(2, seed=0, texture=value).labels.texture.tolist() == [1, 1]


def test_nothing_is_no_label_at_all(gen: Generator) -> None:
    for nothing in ([], (), np.array([]), np.array([], np.int64), torch.tensor([], dtype=torch.int64)):
        assert len(gen(texture=nothing, seed=0)) == 0


U = np.zeros((2, 4), np.float32)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"indices": MASKED}, "indices is a masked array, expected one without a mask"),
        ({"indices": memoryview(np.array([1, 2]))}, "indices is <memory"),
        ({"indices": bytearray(b"\1\2")}, "indices is bytearray"),
        ({"indices": {1, 2}}, "indices is {1, 2}, expected an array"),
        ({"indices": "12"}, "indices is '12', expected an array"),
        ({"indices": iter([1])}, "indices is <list_iterator"),
        ({"n": 2, "noise": "abc"}, "noise is 'abc', expected"),
        ({"n": 2, "noise": b"abc"}, "noise is b'abc', expected"),
        ({"n": 2, "noise": {0: U, 1: U, 2: U}}, "noise is {"),
        ({"n": 2, "noise": (U, np.ma.masked_array(U), U)}, "noise of texture is a masked array"),
        ({"n": 2, "noise": (U, memoryview(U), U)}, "noise of texture is <memory"),
        (
            {"n": 2, "noise": (U, U, U, np.ma.zeros((2, 2, 2), np.int32))},
            "rolls is a masked array",
        ),
        ({"n": 1, "pool": np.ma.masked_array([1, 2, 3])}, "pool is a masked array"),
        ({"n": 2, "out": np.ma.zeros((2, 3, 8, 8), np.float32)}, "out is a masked array"),
    ],
    ids=kind,
)
def test_sample(gen: Generator, options: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        gen.sample(**{"seed": 0, **options})


@pytest.mark.parametrize("pool", ["abc", b"\1\2\3", bytearray(b"\1\2\3"), memoryview(b"\1\2\3"), {1, 2, 3}])
def test_no_pool(pool: Any) -> None:
    with pytest.raises(ValueError, match="expected three sizes of at least 1"):
        SampleOptions(pool=pool)


def test_pools() -> None:
    for pool in ([1, 2, 3], np.array([1, 2, 3]), (np.int32(1), 2, 3)):
        assert SampleOptions(pool=pool).pool_sizes == (1, 2, 3)  # type: ignore[arg-type]
    assert SampleOptions(pool=np.int64(4)).pool_sizes == (4, 4, 4)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", ["0.5", b"0.5", True, {0.5}, np.ma.masked_array([0.5]), ["0.5"]], ids=kind)
def test_no_truncation(imagenet_like: Path, value: Any) -> None:
    with pytest.raises(TypeError, match="truncation is"):
        Generator(imagenet_like).sample(1, seed=0, truncation=value)


def test_truncations(imagenet_like: Path) -> None:
    truncated = Generator(imagenet_like)
    expected = truncated.sample(2, seed=0, truncation=0.5).images
    for value in (np.float32(0.5), np.array(0.5), [0.5, 0.5], torch.tensor([0.5, 0.5])):
        np.testing.assert_array_equal(truncated.sample(2, seed=0, truncation=value).images, expected)
        (batch,) = truncated.batches(2, 2, seed=0, truncation=value)
        np.testing.assert_array_equal(batch.images, expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"range": "01"}, "range is '01', expected"),
        ({"range": b"01"}, "range is b'01', expected"),
        ({"range": {0, 1}}, "range is {0, 1}, expected"),
        ({"range": ["0", "1"]}, "range is .*, expected numbers"),
        ({"range": np.ma.masked_array([0, 1])}, "range is a masked array"),
        ({"normalize": "ab"}, "normalize is 'ab', expected"),
        ({"normalize": b"ab"}, "normalize is b'ab', expected"),
        ({"normalize": {"mean": 0, "std": 1}}, "normalize is {"),
        ({"normalize": ("123", "123")}, "normalize mean is '123', expected"),
        ({"normalize": (b"123", b"123")}, "normalize mean is b'123', expected"),
        ({"normalize": (np.ma.zeros(3), [1, 1, 1])}, "normalize mean is a masked array"),
        ({"engine_batches": "123"}, "engine_batches is '123', expected"),
        ({"engine_batches": b"123"}, "engine_batches is b'123', expected"),
        ({"engine_batches": 8}, "engine_batches is 8, expected a list"),
        ({"engine_batches": {1, 2}}, "engine_batches is {1, 2}, expected"),
        ({"engine_batches": [1.5]}, r"engine_batches is \[1.5\], expected"),
    ],
    ids=kind,
)
def test_generator(golden_plan: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Generator(golden_plan, **options)


def test_generators(golden_plan: Path) -> None:
    images = Generator(golden_plan, range=(0, 1)).sample(2, seed=0).images
    for bounds in ([0, 1], np.array([0, 1]), torch.tensor([0.0, 1.0])):
        again = Generator(golden_plan, range=bounds, engine_batches=np.array([1, 2, 3]))  # type: ignore[arg-type]
        np.testing.assert_array_equal(again.sample(2, seed=0).images, images)
    for number in (np.int64(1), np.int32(1), np.uint8(1)):
        gen = Generator(golden_plan, threads=number)  # type: ignore[arg-type]
        assert gen.threads == gen.with_threads(number).threads == 1  # type: ignore[arg-type]
        assert type(gen.threads) is int
        gen.sample(1, seed=0)
        network = gen.plan.mechanisms["shape"]
        load_engine(network, backend="onnxruntime", threads=number)  # type: ignore[arg-type]
    for wrong in (True, np.float64(1), "1", b"1", np.array([1]), 0):
        with pytest.raises(ValueError, match="threads is"):
            Generator(golden_plan, threads=wrong)  # type: ignore[arg-type]


def test_ops_do_not_lose_masks() -> None:
    plane, pixels = np.ones((1, 1, 4, 4), np.float32), np.ones((1, 3, 4, 4), np.float32)
    masked = np.ma.masked_array
    for operands in ((masked(plane), pixels, pixels), (plane, masked(pixels), pixels)):
        with pytest.raises(TypeError, match=r"compose: \w+ is a masked array"):
            ops.compose(*operands)
    with pytest.raises(TypeError, match="compose: out is a masked array"):
        ops.compose(plane, pixels, pixels, out=masked(pixels))
    with pytest.raises(TypeError, match="resize: images is a masked array"):
        ops.resize(masked(pixels), 8)
    for op in (ops.normal, ops.truncated_normal):
        with pytest.raises(TypeError, match="indices is a masked array"):
            op(0, MASKED, 0, 4)
    with pytest.raises(TypeError, match="indices is a masked array"):
        ops.integers(0, MASKED, 0, 4)
    with pytest.raises(TypeError, match="indices is a masked array"):
        ops.philox(0, MASKED, 0, 4)


def test_photos_do_not_lose_masks() -> None:
    images, masks = np.zeros((2, 8, 8, 3), np.uint8), np.zeros((2, 8, 8), np.uint8)
    masks[:, 2:4, 2:4] = 255
    for given, message in (
        ((np.ma.masked_array(images), masks), "images is a masked array"),
        ((images, np.ma.masked_array(masks)), "masks is a masked array"),
    ):
        with pytest.raises(TypeError, match=message):
            real.counterfactuals(*given, seed=0)
    with pytest.raises(TypeError, match="masks is a masked array"):
        real.usable(np.ma.masked_array(masks))
    with pytest.raises(TypeError, match="labels is"):
        real.counterfactuals(images, masks, seed=0, labels=b"ab")
    with pytest.raises(TypeError, match="range is '01'"):
        real.counterfactuals(images / 255, masks, seed=0, range="01")


@pytest.mark.parametrize(
    "answer",
    [
        lambda images: np.ma.zeros((len(images), 3)),
        lambda images: bytes(len(images)),
        lambda images: bytearray(len(images)),
        lambda images: set(range(len(images))),
        lambda images: (0 for _ in images),
    ],
)
def test_answers_of_a_classifier(gen: Generator, answer: Any) -> None:
    with pytest.raises(TypeError, match="audit: answer of the classifier is"):
        audit(answer, gen, 4)


def test_related_images(gen: Generator) -> None:
    related = gen.related(seed=0, indices=[1, 2])
    with pytest.raises(TypeError, match="render: labels is a masked array"):
        related.render([related.labels._replace(texture=MASKED)])
