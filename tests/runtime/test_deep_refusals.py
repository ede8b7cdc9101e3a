"""What the engine of deep networks refuses, and in which words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cgnrt import _core

PICTURES = [
    [8, 4, 4, 0, 0],  # 0: of the start
    [16, 4, 4, 1, 0],  # 1: of the convolution
    [8, 2, 2, 2, 0],  # 2: of the pool
    [8, 4, 4, 3, 0],  # 3: never made
    [8, 8, 8, 4, 0],  # 4
]
VECTORS = [128, 16, 7]


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


START = {"kind": "start", "in": [], "out": 0, "vector": 0}
CONV = {"kind": "conv", "in": [0], "out": 1, "kernel": 3, "weight": zeros(16, 8, 3, 3), "bias": zeros(16)}
ONE = {"kind": "conv", "in": [0], "out": 1, "weight": zeros(16, 8, 1, 1)}
UP = {"kind": "up_conv", "in": [0], "out": 4, "weight": zeros(8, 8, 4, 4)}
POOL = {"kind": "max_pool", "in": [0], "out": 2}


def engine(**change: Any) -> Any:
    arguments: dict[str, Any] = {
        "vector_widths": VECTORS,
        "pictures": PICTURES,
        "steps": [START, CONV, POOL],
        "outputs": [1, 2],
    }
    return _core.PictureNetwork(**{**arguments, **change})


def after(step: dict[str, Any], **change: Any) -> dict[str, Any]:
    """A network of the start and one more step, changed."""
    return {"steps": [START, {**step, **change}], "outputs": [0]}


def picture(k: int, *content: int) -> dict[str, Any]:
    pictures = [list(p) for p in PICTURES]
    pictures[k] = list(content)
    return {"pictures": pictures}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vector_widths": [0]}, r"deep vectors: width is 0, expected 1 to 268435456"),
        ({"vector_widths": [1 << 29]}, r"deep vectors: width is 536870912, expected 1 to"),
        ({"vector_widths": [128]}, None),
        (after(POOL, vector=1 << 30), r"deep step 1: vector is 1073741824, expected none: only a start"),
        ({"image": 99}, r"deep network: image is 99, expected the picture of an image step"),
        (
            picture(0, 8, 4, 4),
            r"deep picture: length is 3, expected 5 \(channels, height, width, buffer, first",
        ),
        (picture(3, 0, 4, 4, 3, 0), r"deep picture 3: size is 0 x 4 x 4, expected channels and sides from 1"),
        (picture(3, 8, 4, 8193, 3, 0), r"deep picture 3: size is 8 x 4 x 8193"),
        (picture(3, 65537, 4, 4, 3, 0), r"deep picture 3: size is 65537 x 4 x 4"),
        (picture(3, 8, 4, 4, -1, 0), r"deep picture 3: buffer is -1, expected 0 to 16383"),
        (picture(3, 8, 4, 4, 16384, 0), r"deep picture 3: buffer is 16384"),
        (picture(3, 8, 4, 4, 3, 4), r"deep picture 3: first channel is 4, expected a multiple of 8"),
        (picture(3, 8, 4, 4, 3, -8), r"deep picture 3: first channel is -8"),
        (
            picture(3, 8, 4, 5, 0, 8),
            r"deep picture 3: size is 8 x 4 x 5, expected that of the others in its buffer",
        ),
        (
            after(POOL, kind="pool"),
            r"deep step 1 kind: kind is 'pool', expected one of 'start', 'image', 'conv'",
        ),
        (after(POOL, out=5), r"deep step 1: picture is 5, expected one of 5"),
        (after(POOL, out=-1), r"deep step 1: picture is -1, expected one of 5"),
        (after(POOL, **{"in": [99]}), r"deep step 1: picture is 99"),
        (after(POOL, residual=-2), r"deep step 1: picture is -2"),
        (after(POOL, **{"in": []}), r"deep step 1: inputs is 0, expected 1"),
        (after(POOL, **{"in": [0, 0]}), r"deep step 1: inputs is 2, expected 1"),
        (after(POOL, kind="attention"), r"deep step 1: inputs is 1, expected 3"),
        (after(START, **{"in": [0]}, out=3), r"deep step 1: inputs is 1, expected 0"),
        (after(START, out=3, vector=3), r"deep step 1: vector is 3, expected one of 3"),
        (after(START, out=3, vector=-1), r"deep step 1: vector is -1, expected one of 3"),
        (
            after(START, out=3, vector=1),
            r"deep step 1: result is 8 x 4 x 4, expected the size that its input gives",
        ),
        (after({"kind": "image", "in": [], "out": 3}), r"deep step 1: result is 8 x 4 x 4"),
        (after(POOL, out=3), r"deep step 1: result is 8 x 4 x 4"),
        (after(CONV, out=2), r"deep step 1: result is 8 x 2 x 2"),
        (after(CONV, out=2, kind="up_conv"), r"deep step 1: result is 8 x 2 x 2"),
        (after(POOL, kind="resize", out=1), r"deep step 1: result is 16 x 4 x 4"),
        (after(POOL, kind="pointwise"), r"deep step 1: result is 8 x 2 x 2"),
        (after(POOL, kind="attention", **{"in": [0, 0, 0]}), r"deep step 1: result is 8 x 2 x 2"),
        (after(CONV, kernel=5), r"deep step 1: kernel is 5, expected 1 or 3, dilated by 1 or more"),
        (after(CONV, dilation=0), r"deep step 1: kernel is 3, expected 1 or 3, dilated by 1 or more"),
        (after(CONV, weight=zeros(16, 8, 3)), r"deep step 1: weight is 384 numbers, expected 1152"),
        (after(UP, weight=zeros(8, 8, 3, 3)), r"deep step 1: weight is 576 numbers, expected 1024"),
        (after(POOL, weight=zeros(1)), r"deep step 1: weight is 1 numbers, expected 0"),
        (after(CONV, bias=zeros(8)), r"deep step 1: bias is 8 numbers, expected 16 or none"),
        (after(POOL, bias=zeros(8)), r"deep step 1: bias is 8 numbers, expected 0 or none"),
        (
            after(CONV, weight=np.zeros((16, 8, 3, 3))),
            r"deep step 1 weight: dtype is float64, expected float32",
        ),
        (
            after(CONV, weight=zeros(3, 3, 8, 16).T),
            r"deep step 1 weight: memory layout is strided, expected C-cont",
        ),
        (after(CONV, bias=np.zeros(16)), r"deep step 1 bias: dtype is float64, expected float32"),
        (
            after(CONV, before=(None, None, ("tanh",))),
            r"deep step 1: map of the input is set, expected none: only 1x1",
        ),
        (after(POOL, before=(1, None, None)), r"deep step 1: map of the input is set"),
        (after(ONE, before=(1, None, None)), r"deep step 1: vector width is 16, expected 8"),
        (after(CONV, after=(3, None, None)), r"deep step 1: vector is 3, expected one of 3"),
        (after(CONV, after=(None, 0, None)), r"deep step 1: vector width is 128, expected 16"),
        (after(CONV, last=(2, None, None)), r"deep step 1: vector width is 7, expected 16"),
        (after(CONV, last=(None, -2, None)), r"deep step 1: vector is -2, expected one of 3"),
        (
            after(CONV, after=(None, None, ("gelu",))),
            r"deep step 1 activation: activation is 'gelu', expected one",
        ),
        (
            after(CONV, residual=0),
            r"deep step 1: residual is 8 x 4 x 4, expected that of the result, 16 x 4 x 4",
        ),
        (
            after(UP, residual=0),
            r"deep step 1: residual is 8 x 4 x 4, expected that of the result, 8 x 8 x 8",
        ),
        (after(POOL, residual=0, residual_up=1), r"deep step 1: residual is 8 x 4 x 4"),
        (
            after(UP, residual=3, residual_up=1),
            r"deep step 1: picture is 3, expected one that was made before",
        ),
        (after(POOL, **{"in": [3]}), r"deep step 1: picture is 3, expected one that was made before"),
        ({"steps": [CONV, START]}, r"deep step 0: picture is 0, expected one that was made before"),
        ({"steps": [START, CONV, CONV]}, r"deep step 2: picture is 1, expected one that is made once"),
        (
            {**picture(3, 8, 4, 4, 1, 8), **after(CONV), "outputs": [3]},
            None,
        ),
        (
            {**picture(3, 8, 4, 4, 0, 8), **after(POOL, **{"in": [3]})},
            r"deep step 1: picture is 3, expected one that was made before",
        ),
        ({"outputs": [5]}, r"deep network: output is 5, expected one of its pictures"),
        ({"outputs": [-1]}, r"deep network: output is -1, expected one of its pictures"),
        ({"outputs": [3]}, r"deep network: picture is 3, expected one that was made before"),
        ({"isa": "mmx"}, r"implementation is 'mmx'"),
    ],
)
def test_networks(change: dict[str, Any], message: str | None) -> None:
    if message is None:  # next to what is refused
        engine(**change)
        return
    with pytest.raises(ValueError, match=message):
        engine(**change)


def test_what_is_no_activation_name() -> None:
    with pytest.raises(
        TypeError, match=r"deep step 1 activation: type is int, expected one of 'none', 'leaky_relu'"
    ):
        engine(**after(CONV, after=(None, None, (1,))))


IMAGE = {"kind": "image", "in": [], "out": 4}
GIVEN = [zeros(2, 128), zeros(2, 16), zeros(2, 7)]


def with_image() -> Any:
    return engine(steps=[START, CONV, POOL, IMAGE], image=4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vectors": GIVEN[:2]}, r"deep vectors: count is 2, expected 3"),
        (
            {"vectors": [zeros(2, 127), *GIVEN[1:]]},
            r"deep vector 0: shape is \(2, 127\), expected \(2, 128\)",
        ),
        ({"vectors": [*GIVEN[:2], zeros(3, 7)]}, r"deep vector 2: shape is \(3, 7\), expected \(2, 7\)"),
        (
            {"vectors": [*GIVEN[:2], zeros(14)]},
            r"deep vector 2: shape is \(14\)|deep vector 2: shape is \(14,\)",
        ),
        (
            {"vectors": [GIVEN[0].astype(float), *GIVEN[1:]]},
            r"deep vector 0: dtype is float64, expected float32",
        ),
        ({"vectors": [zeros(128, 2).T, *GIVEN[1:]]}, r"deep vector 0: memory layout is strided"),
        ({"image": zeros(2, 8, 8, 7)}, r"deep image: shape is \(2, 8, 8, 7\), expected \(2, 8, 8, 8\)"),
        ({"image": zeros(2, 8, 8, 8).astype(np.float16)}, r"deep image: dtype is float16, expected float32"),
        ({"n": -1}, r"deep n: n is -1, expected 0..1048576"),
        ({"n": 3}, r"deep vector 0: shape is \(2, 128\), expected \(3, 128\)"),
        ({"threads": -1}, r"deep threads: threads is -1, expected 0.."),
        ({"outs": [None]}, r"deep outs: count is 1, expected 2"),
        (
            {"outs": [zeros(2, 16, 4, 5), None]},
            r"deep out 0: shape is \(2, 16, 4, 5\), expected \(2, 16, 4, 4\)",
        ),
        ({"outs": [None, np.zeros((2, 8, 2, 2))]}, r"deep out 1: dtype is float64, expected float32"),
        ({"outs": [None, zeros(2, 2, 2, 8).transpose(0, 3, 1, 2)]}, r"deep out 1: memory layout is strided"),
        (
            {"outs": [None, np.frombuffer(bytes(256), np.float32).reshape(2, 8, 2, 2)]},
            r"deep out 1: memory is read",
        ),
        (
            {"outs": [None, GIVEN[0].reshape(-1)[:64].reshape(2, 8, 2, 2)]},
            r"deep run out: memory is shared with an input, expected memory of its own",
        ),
    ],
)
def test_runs(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "vectors": GIVEN,
        "image": zeros(2, 8, 8, 8),
        "n": 2,
        "outs": [None, None],
        **change,
    }
    with pytest.raises(ValueError, match=message):
        with_image().run(**arguments)


def test_images_where_there_are_none_and_the_other_way_round() -> None:
    with pytest.raises(
        ValueError, match=r"deep image: value is an array, expected None: the network takes none"
    ):
        engine().run(GIVEN, zeros(2, 8, 8, 8), 2, [None, None])
    with pytest.raises(TypeError, match=r"deep image: type is NoneType, expected a tensor"):
        with_image().run(GIVEN, None, 2, [None, None])
    with pytest.raises(TypeError, match=r"deep n: type is float, expected an int"):
        engine().run(GIVEN, None, 2.0, [None, None])


def test_two_results_in_one_place_are_refused() -> None:
    out = np.zeros((1, 16, 4, 4), np.float32)
    two = engine(
        steps=[START, CONV, {**CONV, "out": 5}], pictures=[*PICTURES, [16, 4, 4, 5, 0]], outputs=[1, 5]
    )
    vectors = [zeros(1, width) for width in VECTORS]
    with pytest.raises(ValueError, match=r"deep run out: memory is shared with another out"):
        two.run(vectors, None, 1, [out, out])
