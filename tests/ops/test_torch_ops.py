"""The ops as torch operations: every case of the compiled ops, on the CPU and on the stand-in for a device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import standin_device
import torch
from compose_cases import SPECIAL, ComposeCase
from module_ops import ModuleOps
from patch_grid_cases import CASES as GRIDS
from patch_grid_cases import PatchGridCase

from cgnrt import ops, torch_ops

HERE, THERE = "cpu", f"{standin_device.NAME}:0"


@pytest.fixture(params=[HERE, THERE])
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    standin_device.install()
    with standin_device.fresh():
        yield torch.device(request.param)


@pytest.fixture
def send(device: torch.device) -> Callable[[Any], Any]:
    def to(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(to(item) for item in value)
        return None if value is None else torch.from_numpy(np.ascontiguousarray(value)).to(device)

    return to


def call(name: str, *arguments: Any, **options: Any) -> Any:
    """By `cgnrt.ops`; of the CPU, for which that has compiled ops, by the same signature."""
    there = str(arguments[0].device) == THERE
    return getattr(ops if there else ModuleOps(torch_ops), name)(*arguments, **options)


def bits(result: torch.Tensor) -> np.ndarray:
    """On the host; bfloat16 as the compiled ops have it."""
    result = result.cpu()
    return (result.view(torch.uint16) if result.dtype == torch.bfloat16 else result).numpy()


def test_compose(compose_case: ComposeCase, send: Callable[[Any], Any]) -> None:
    made = compose_case
    found = call(
        "compose",
        *send(made.pools),
        send(made.index),
        rolls=send(made.rolls),
        place=send(made.place),
        **made.options,
    )
    np.testing.assert_array_equal(bits(found), made.expected())


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "uint8"])
def test_special_values(dtype: str, send: Callable[[Any], Any]) -> None:
    pixels = SPECIAL.reshape(1, 1, 1, -1)
    arrays = np.ones_like(pixels), pixels, np.full_like(pixels, -0.0)
    found, expected = bits(call("compose", *send(arrays), dtype=dtype)), ops.compose(*arrays, dtype=dtype)
    real = (
        ~np.isnan(SPECIAL) if dtype != "uint8" else np.full(SPECIAL.shape, True)
    )  # payloads of NaNs may differ
    np.testing.assert_array_equal(found.reshape(-1)[real], expected.reshape(-1)[real])


@pytest.mark.parametrize("grid", GRIDS, ids=lambda case: case["name"])
def test_patch_grid(grid: dict[str, Any], send: Callable[[Any], Any]) -> None:
    made = PatchGridCase(grid)
    sizes = {"size": made.size, "patch": made.patch, "grid": made.grid, "top": made.top}
    arrays = send((made.masks, made.images, made.picks)), send(made.index), send(made.over)
    found = call("patch_grid", *arrays[0], arrays[1], over=arrays[2], **sizes, **made.form)
    expected = made.run()
    np.testing.assert_array_equal(bits(found), expected)


def test_resize(send: Callable[[Any], Any]) -> None:
    images = np.random.default_rng(0).uniform(-1, 1, (2, 3, 9, 7)).astype(np.float32)
    options: dict[str, Any] = {"size": (12, 5), "layout": "NHWC", "scale": 2.0, "bias": [0.0, 1.0, -1.0]}
    found = call("resize", send(images), **options)
    np.testing.assert_array_equal(bits(found), ops.resize(images, **options))


@pytest.mark.parametrize("name", ["normal", "truncated_normal", "integers", "philox"])
def test_draws_have_the_bits_of_the_cpu(name: str, send: Callable[[Any], Any]) -> None:
    indices = np.array([0, 7, -1, 2**40])
    more = {"integers": (5, 3), "philox": (2,)}.get(name, (6,))
    there = send(indices)
    made = getattr(ops if str(there.device) == THERE else ModuleOps(torch_ops), name)(3, there, 2, *more)
    assert made.device == there.device
    np.testing.assert_array_equal(made.cpu().numpy(), getattr(ops, name)(3, indices, 2, *more))


def test_a_draw_goes_where_it_is_asked_to(send: Callable[[Any], Any]) -> None:
    out = send(np.zeros((2, 4), np.float32))
    indices = send(np.array([1, 2]))
    assert ModuleOps(torch_ops).normal(0, indices, 0, 4, out=out) is out
    np.testing.assert_array_equal(out.cpu().numpy(), ops.normal(0, np.array([1, 2]), 0, 4))


def test_what_does_not_exist_is_nan(send: Callable[[Any], Any]) -> None:
    rng = np.random.default_rng(0)
    pools = send(tuple(rng.random((2, c, 4, 4), dtype=np.float32) for c in (1, 3, 3)))
    index = send(np.array([[0, 1, 1], [2, 0, 0], [0, -1, 0]]))
    found = call("compose", *pools, index).cpu()
    assert not found[0].isnan().any()
    assert found[1:].isnan().all()
    assert not call("compose", *pools, index, dtype="uint8").cpu()[1:].any()
    none = send(np.zeros((0, 1, 4, 4), np.float32))
    assert call("compose", none, *pools[1:], index).cpu().isnan().all()
    grid = {"size": 8, "patch": 2, "grid": 1, "top": 3}
    picks = send(np.array([[0], [3]]))
    found = call("patch_grid", *pools[:2], picks, send(np.array([[0], [1]])), **grid).cpu()
    assert not found[0].isnan().any()
    assert found[1].isnan().all()


def test_what_is_no_place_is_nan(send: Callable[[Any], Any]) -> None:
    pools = send(tuple(np.ones((5, c, 4, 4), np.float32) for c in (1, 3, 3)))
    place = np.zeros((5, 4), np.float32)
    place[:, 2] = 1
    place[[1, 2, 3], [0, 2, 3]] = [np.nan, 0, 2]
    found = call("compose", *pools, place=send(place)).cpu()
    assert found[[1, 2, 3]].isnan().all()
    assert not found[[0, 4]].isnan().any()


def test_memory_of_the_caller(send: Callable[[Any], Any]) -> None:
    rng = np.random.default_rng(0)
    arrays = tuple(rng.random((2, c, 4, 4), dtype=np.float32) for c in (1, 3, 3))
    pools, out = send(arrays), send(np.zeros((2, 3, 4, 4), np.uint16))
    assert call("compose", *pools, dtype="bfloat16", out=out) is out
    np.testing.assert_array_equal(out.cpu().numpy(), ops.compose(*arrays, dtype="bfloat16"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"masks": (2, 3, 4, 4)}, r"compose masks: shape is \(0, 3, 4, 4\), expected"),
        ({"foregrounds": (2, 3, 4, 5)}, "compose foregrounds: shape is"),
        ({"foregrounds": (3, 3, 4, 4)}, "compose foregrounds: length is 3, expected 2 as masks, since index is None"),
        ({"layout": "CHWN"}, "layout is 'CHWN'"),
        ({"dtype": "int8"}, "dtype is 'int8'"),
        ({"scale": (1.0, 2.0)}, r"compose scale: length is 2, expected 3, one for each channel"),
        ({"clamp": (1.0, 0.0)}, r"compose clamp: range is \(1, 0\), expected"),
        ({"index": (2, 2)}, "compose index: shape is"),
        ({"index": (2, 3), "rolls": (3, 2, 2)}, "compose rolls: length is 3, expected 2, one for each sample"),
        ({"index": (2, 3), "place": (3, 4)}, "compose place: length is 3, expected 2, one for each sample"),
        ({"index": (2, 3), "place": (2, 3)}, r"compose place: shape is \(0, 3\), expected \(n, 4\)"),
        ({"out": (2, 3, 4, 5)}, r"compose out: shape is \(2, 3, 4, 5\), expected \(2, 3, 4, 4\)"),
    ],
)  # fmt: skip
def test_bad_arguments(change: dict[str, Any], message: str, send: Callable[[Any], Any]) -> None:
    def made(name: str, shape: tuple[int, ...] | None, dtype: Any = np.float32) -> Any:
        shape = change.get(name, shape)
        return None if shape is None else send(np.zeros(shape, dtype))

    pools = [made(name, (2, c, 4, 4)) for name, c in (("masks", 1), ("foregrounds", 3), ("backgrounds", 3))]
    tensors = {"rolls": made("rolls", None, np.int32), "place": made("place", None), "out": made("out", None)}
    options = {key: value for key, value in change.items() if key in ("dtype", "layout", "scale", "clamp")}
    with pytest.raises(ValueError, match=message):
        call("compose", *pools, made("index", None, np.int32), **tensors, **options)


def test_other_bad_arguments(send: Callable[[Any], Any], device: torch.device) -> None:
    rng = np.random.default_rng(0)
    pools = send(tuple(rng.random((2, c, 8, 8), dtype=np.float32) for c in (1, 3, 3)))
    with pytest.raises(
        ValueError, match=r"compose out: strides are \(192, 1, 24, 3\), expected C-contiguous"
    ):
        call("compose", *pools, out=send(np.zeros((2, 8, 8, 3), np.float32)).permute(0, 3, 1, 2))
    with pytest.raises(ValueError, match="compose out: dtype is float64, expected float32"):
        call("compose", *pools, out=send(np.zeros((2, 3, 8, 8))))
    with pytest.raises(TypeError, match="compose out: type is ndarray, expected a tensor on"):
        call("compose", *pools, out=np.zeros((2, 3, 8, 8), np.float32))
    with pytest.raises(TypeError, match="compose foregrounds: type is ndarray, expected a torch tensor"):
        call("compose", pools[0], np.zeros((2, 3, 8, 8), np.float32), pools[2])
    with pytest.raises(
        ValueError, match="compose masks: dtype is bfloat16, expected one of float32, float16"
    ):
        call("compose", pools[0].bfloat16(), *pools[1:])
    grid = {"size": 8, "patch": 2, "grid": 1, "top": 3}
    picks = send(np.zeros((3, 1), np.int64))
    with pytest.raises(ValueError, match="patch_grid masks: length is 2, expected 3 as in picks"):
        call("patch_grid", *pools[:2], picks, **grid)
    with pytest.raises(
        ValueError, match="patch_grid index: length is 2, expected 3, one row for each of picks"
    ):
        call("patch_grid", *pools[:2], picks, send(np.zeros((2, 1), np.int64)), **grid)
    with pytest.raises(ValueError, match=r"patch_grid top: top is 50, expected 1\.\.49"):
        call("patch_grid", *pools[:2], picks, **{**grid, "top": 50})
    if str(device) == THERE:
        with pytest.raises(ValueError, match="compose backgrounds: device is cpu, expected standin:0"):
            call("compose", *pools[:2], pools[2].cpu())
        with pytest.raises(ValueError, match="compose out: device is cpu, expected standin:0, as the other"):
            call("compose", *pools, out=torch.zeros(2, 3, 8, 8))
