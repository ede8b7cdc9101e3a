"""The engine of deep networks against torch in float64, step by step, on every instruction set of this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cgnrt import build_info

from .deep_nets import ACTIVATIONS, Map, N, Net

# fp32 sums of up to a thousand numbers in one order, relative to the largest result.
TOLERANCE = 3e-6
# The transforms of F(4x4, 3x3) multiply by up to 64 on the way in and out, and lose about a digit.
TOLERANCE_OF_TILES = 2e-5
ISAS = build_info()["cpu"]["isas"]
RELU = ("leaky_relu", 0.0)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Of torch: its threads cost more than these layers do."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def output(net: Net, picture: int) -> Net:
    net.outputs.append(picture)
    return net


# Convolutions.


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    ("channels", "outs", "height", "width"),
    [(8, 16, 4, 4), (5, 9, 3, 7), (24, 33, 1, 1), (17, 40, 9, 10), (3, 6, 21, 13), (64, 5, 4, 4)],
)
@pytest.mark.parametrize(
    "before", [None, (True, True, RELU), (False, True, ("sigmoid",)), (True, False, None)]
)
def test_1x1(isa: str, channels: int, outs: int, height: int, width: int, before: Map | None) -> None:
    """Also with the map of the input."""
    net = Net()
    x = net.start(channels, height, width)
    output(net, net.conv(x, outs, 1, before=before, after=(True, True, RELU))).check(isa, TOLERANCE)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dilation", [1, 2, 4, 9])
@pytest.mark.parametrize(
    ("channels", "outs", "height", "width"),
    [(16, 16, 8, 8), (5, 9, 6, 7), (20, 33, 1, 3), (17, 7, 13, 15), (8, 24, 33, 35)],
)
def test_direct_3x3(isa: str, dilation: int, channels: int, outs: int, height: int, width: int) -> None:
    """Small pictures, few channels, dilated taps, also further than the picture is wide."""
    net = Net()
    x = net.start(channels, height, width)
    output(net, net.conv(x, outs, 3, dilation)).check(isa, TOLERANCE)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    ("height", "width", "tolerance"),
    [
        (16, 16, TOLERANCE),
        (17, 23, TOLERANCE),
        (31, 16, TOLERANCE),
        (32, 32, TOLERANCE_OF_TILES),
        (33, 40, TOLERANCE_OF_TILES),
        (38, 35, TOLERANCE_OF_TILES),
    ],
)
@pytest.mark.parametrize(("channels", "outs"), [(16, 16), (19, 21), (40, 5)])
def test_transformed_3x3(
    isa: str, height: int, width: int, tolerance: float, channels: int, outs: int
) -> None:
    """Tiles that divide the picture and that do not."""
    net = Net()
    x = net.start(channels, height, width)
    y = net.conv(
        x, outs, after=(True, True, None), residual=net.start(outs, height, width), last=(True, True, RELU)
    )
    output(net, y).check(isa, tolerance)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    ("channels", "outs", "height", "width"),
    [(8, 16, 4, 4), (5, 9, 1, 1), (20, 33, 7, 5), (17, 3, 16, 17), (1, 1, 2, 9)],
)
@pytest.mark.parametrize("bias", [True, False])
def test_up_sampling_and_a_convolution(
    isa: str, channels: int, outs: int, height: int, width: int, bias: bool
) -> None:
    net = Net()
    x = net.start(channels, height, width)
    output(net, net.up_conv(x, outs, bias=bias, last=(True, True, ("tanh",)))).check(isa, TOLERANCE)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("outs", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("kernel", "dilation", "channels", "height", "width"),
    [(1, 1, 8, 5, 5), (3, 1, 20, 17, 19), (3, 3, 9, 6, 5), (3, 1, 16, 33, 34), (3, 1, 1, 1, 1)],
)
def test_few_result_channels(
    isa: str, outs: int, kernel: int, dilation: int, channels: int, height: int, width: int
) -> None:
    net = Net()
    x = net.start(channels, height, width)
    y = net.conv(
        x, outs, kernel, dilation, after=(True, True, ("tanh",)), residual=net.start(outs, height, width)
    )
    z = net.conv(x, outs, 1, before=(True, True, RELU))  # which has a map of the input
    net.outputs += [y, z]
    net.check(isa, TOLERANCE)


# Steps without weights.


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    ("channels", "height", "width"), [(8, 6, 6), (5, 7, 9), (21, 1, 1), (16, 2, 1), (9, 1, 4)]
)
def test_max_pool(isa: str, channels: int, height: int, width: int) -> None:
    """Odd sizes round up; a window at the edge has fewer pixels, not zeros, which shows where all are negative."""
    net = Net()
    x = net.start(channels, height, width)
    negative = net.pointwise(x, before=(False, False, ("clip", -9.0, -0.5)))
    net.outputs += [net.max_pool(x, last=(True, True, RELU)), net.max_pool(negative)]
    net.check(isa, TOLERANCE)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize(
    ("size", "to"),
    [
        ((4, 4), (8, 8)),
        ((5, 7), (13, 9)),
        ((1, 1), (4, 3)),
        ((8, 8), (4, 4)),
        ((9, 11), (4, 5)),
        ((6, 5), (1, 1)),
        ((7, 3), (7, 3)),
        ((2, 8), (9, 2)),
    ],
)
def test_resize(isa: str, align: bool, size: tuple[int, int], to: tuple[int, int]) -> None:
    net = Net()
    x = net.start(11, *size)
    output(net, net.resize(x, *to, align=align, last=(True, True, RELU))).check(isa, TOLERANCE)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    ("depth", "channels", "query", "key"),
    [
        (8, 16, (4, 4), (2, 2)),
        (8, 9, (8, 8), (4, 4)),
        (3, 20, (5, 7), (3, 4)),
        (16, 1, (1, 1), (1, 1)),
        (5, 24, (6, 9), (6, 9)),
    ],
)
def test_attention(isa: str, depth: int, channels: int, query: tuple[int, int], key: tuple[int, int]) -> None:
    net = Net()
    q, k, v = net.start(depth, *query), net.start(depth, *key), net.start(channels, *key)
    shown = net.attention(q, k, v, after=(True, False, None), residual=net.start(channels, *query))
    output(net, shown).check(isa, TOLERANCE)


@pytest.mark.parametrize("isa", ISAS)
def test_attention_to_one_pixel(isa: str) -> None:
    """Scores far apart: the softmax must neither overflow nor lose the sum."""
    net = Net()
    q, k = (net.start(8, 4, 4, after=(False, False, ("leaky_relu", 1.0))) for _ in range(2))
    q, k = (net.pointwise(p, before=(True, False, None)) for p in (q, k))
    for p in (q, k):
        (scale, _, _) = net.steps[p]["before"]
        net.vectors[scale] *= 30
        net.values[p] = net.values[p] * 30
    output(net, net.attention(q, k, net.start(8, 4, 4))).check(isa, 1e-4)  # scores of 1e4 in fp32


@pytest.mark.parametrize("isa", ISAS)
def test_attention_reads_its_own_channels_alone(isa: str) -> None:
    """Queries and keys of five channels, with others' values in the three beside them."""
    net = Net()
    x = net.start(8, 4, 4)
    q, k = (net.conv(x, 5, 1, residual=x) for _ in range(2))
    output(net, net.attention(q, k, x)).check(isa, TOLERANCE)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    "act", [RELU, ("leaky_relu", 0.2), ("tanh",), ("sigmoid",), ("clip", -1.0, 1.0)], ids=lambda act: act[0]
)
def test_nan_is_not_hidden(isa: str, act: Any) -> None:
    net = Net()
    net.outputs.append(net.start(8, 4, 4, after=(False, False, act)))
    engine = net.engine(isa)
    vectors = [np.full_like(vector[:1], np.nan) for vector in net.vectors]
    (found,) = engine.run(vectors, None, 1, [None])
    assert np.isnan(found).all()


# What every step does with its result.

ADDERS: dict[str, Callable[..., int]] = {
    "start": lambda net, x, **more: net.start(*net.pictures[x][:3], **more),
    "image": lambda net, x, **more: net.take_image(*net.pictures[x][:3], **more),
    "1x1": lambda net, x, **more: net.conv(x, net.pictures[x][0], 1, **more),
    "direct": lambda net, x, **more: net.conv(x, net.pictures[x][0], 3, 2, **more),
    "transformed": lambda net, x, **more: net.conv(x, net.pictures[x][0], **more),
    "resize": lambda net, x, **more: net.resize(x, *net.pictures[x][1:3], align=False, **more),
    "attention": lambda net, x, **more: net.attention(x, x, x, **more),
    "pointwise": lambda net, x, **more: net.pointwise(x, before=(True, True, ("tanh",)), **more),
}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", ADDERS)
def test_maps_and_residuals(isa: str, kind: str) -> None:
    """Every activation in both maps, and every kind of residual between them."""
    net = Net()
    size = (16, 18)
    x = net.start(18, *size)
    more_channels = net.start(27, *size)
    half = net.start(20, 8, 9)
    whole = net.start(26, *size)
    residuals: list[dict[str, Any]] = [
        {},
        {"residual": x},
        {"residual": more_channels},
        {"residual": half, "up": True},
        {"residual": net.part(whole, 8, 18)},
    ]
    add = ADDERS[kind]
    for k, act in enumerate([*ACTIVATIONS, None]):
        if kind == "image" and k:
            break  # a network has one
        other = ACTIVATIONS[(k + 2) % len(ACTIVATIONS)]
        for maps in (
            {"after": (True, True, act), "last": (True, True, other)},
            {"after": (k % 2 == 0, k % 3 == 0, other), "last": (k % 3 == 0, k % 2 == 0, act)},
        )[: 1 if kind == "image" else 2]:
            net.outputs.append(add(net, x, **maps, **residuals[k % len(residuals)]))
    net.check(isa, TOLERANCE_OF_TILES)


# Pictures that share memory.


@pytest.mark.parametrize("isa", ISAS)
def test_concatenated_pictures(isa: str) -> None:
    """Of every kind of step, in one buffer, the last of which is not a multiple of 8; and parts of the whole."""
    net = Net()
    x = net.start(16, 16, 16, where=(100, 0))
    small = net.max_pool(x)
    parts = [x]
    for add in (
        lambda where: net.conv(x, 8, where=where),
        lambda where: net.conv(x, 16, 3, 2, where=where),
        lambda where: net.conv(x, 24, 1, where=where),
        lambda where: net.up_conv(small, 8, where=where),
        lambda where: net.resize(small, 16, 16, align=True, where=where),
        lambda where: net.attention(x, small, small, where=where),
        lambda where: net.pointwise(x, where=where),
        lambda where: net.conv(x, 3, where=where),
    ):
        parts.append(add((100, sum(net.pictures[k][0] for k in parts))))
    whole = net.whole(parts)
    middle = net.part(whole, 16, 40)
    net.outputs += [whole, net.conv(whole, 10), net.conv(middle, 9, 1), net.max_pool(middle), parts[1]]
    net.check(isa, TOLERANCE)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("channels_last", [False, True])
def test_starts_and_an_image(isa: str, channels_last: bool) -> None:
    net = Net()
    a = net.start(12, 5, 3, channels_last=channels_last, after=(True, True, RELU))
    b = net.take_image(3, 5, 3, last=(True, True, ("tanh",)))
    net.outputs += [a, b, a, net.conv(b, 12, 1, residual=a)]
    net.check(isa, TOLERANCE)


def test_memory_is_shared_and_runs_leave_nothing_behind() -> None:
    """A deep chain takes the memory of two pictures; NaNs of one run are not seen by the next."""
    net = Net()
    x = net.start(13, 9, 9)
    one = net.engine().workspace_bytes
    for _ in range(10):
        x = net.conv(x, 13, last=(True, True, ("leaky_relu", 0.2)))
    engine = output(net, x).engine()
    assert one < engine.workspace_bytes <= 2.1 * one  # whatever n is: images go one after the other
    (clean,) = net.run(engine, N)
    vectors = net.vectors
    net.vectors = [vector * np.float32(np.nan) for vector in vectors]
    assert np.isnan(net.run(engine, N)[0]).all()
    net.vectors = vectors
    for n in (N, 2):
        np.testing.assert_array_equal(net.run(engine, n)[0], clean[:n])
    assert len(engine.seconds) == len(net.steps)


def test_results_go_where_they_are_wanted() -> None:
    net = Net()
    x = net.start(8, 4, 4)
    net.outputs += [net.conv(x, 3, 1), x]
    engine = net.engine()
    expected = net.run(engine, 2)
    out = np.full((2, 3, 4, 4), np.nan, np.float32)
    found = net.run(engine, 2, outs=[out, None])
    assert found[0] is out
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    target = torch.zeros(2, 8, 4, 4)
    assert net.run(engine, 2, outs=[None, target])[1] is target
    np.testing.assert_array_equal(target.numpy(), expected[1])


# Networks of any shape.


def grow(net: Net, choose: Callable[[int], int]) -> None:
    """Add a step on pictures made before; `choose(k)` is one of k."""
    known = list(range(len(net.pictures)))
    source = known[choose(len(known))]
    channels, height, width = net.pictures[source][:3]
    same = [k for k in known if net.pictures[k][1:3] == [height, width]]
    kind = choose(9)
    maps: dict[str, Any] = {}
    if choose(2):
        maps = {"after": (True, True, RELU), "last": (False, True, ("leaky_relu", 0.2))}
    outs = (3, 8, 16, 21)[choose(4)]
    if kind <= 2:
        fitting = [k for k in same if net.pictures[k][0] >= outs]
        if fitting:
            maps["residual"] = fitting[choose(len(fitting))]
        net.conv(source, outs, (1, 3, 3)[kind], (1, 1, 2)[kind], **maps)
    elif kind == 3 and height <= 10 and width <= 10:
        if channels >= outs:
            maps |= {"residual": source, "up": True}
        net.up_conv(source, outs, **maps)
    elif kind == 4:
        net.max_pool(source, **maps)
    elif kind == 5:
        net.resize(source, 1 + choose(12), 1 + choose(12), align=bool(choose(2)), **maps)
    elif kind == 6:
        first = same[choose(len(same))]
        buffer = len(net.pictures) + 1000
        a = net.pointwise(first, where=(buffer, 0), **maps)
        start = -(-net.pictures[first][0] // 8) * 8
        if start == net.pictures[first][0]:
            net.whole([a, net.conv(source, 9, 1, where=(buffer, start))])
    elif kind == 7 and channels > 8:
        net.part(source, 8, 1 + choose(channels - 8))
    else:
        net.pointwise(source, before=(True, True, ("tanh",)), **maps)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 2**32), st.integers(3, 14), st.data())
def test_any_network(seed: int, steps: int, data: st.DataObject) -> None:
    """Skip connections and concatenations of any depth: no picture's memory is taken while it is still read."""
    net = Net(seed % 1000)
    net.start(16, 6, 7)
    numbers = np.random.default_rng(seed)
    for _ in range(steps):
        grow(net, lambda k: int(numbers.integers(k)))
    outputs = data.draw(st.sets(st.integers(0, len(net.pictures) - 1), min_size=1, max_size=3))
    net.outputs = sorted({*outputs, len(net.pictures) - 1})
    net.check(ISAS[0], TOLERANCE_OF_TILES, runs=((2, 1), (3, 2)))
