"""dtype, layout, range and normalize; what leaves as NumPy, torch and DLPack."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cgnrt import BFloat16Array, Generator, MissingDependencyError


def images(plan: Path, **options: Any) -> Any:
    return Generator(plan, **options).sample(20, seed=2).images


@pytest.fixture(scope="module")
def plain(golden_plan: Path) -> np.ndarray:
    found: np.ndarray = images(golden_plan)
    return found


def test_default_is_float32_nchw_in_minus_one_to_one(plain: np.ndarray) -> None:
    assert plain.dtype == np.float32
    assert plain.shape == (20, 3, 8, 8)
    assert plain.min() >= -1
    assert plain.max() <= 1
    assert plain.min() < -0.1 < 0.1 < plain.max()


def test_nhwc_is_a_transpose(golden_plan: Path, plain: np.ndarray) -> None:
    np.testing.assert_array_equal(images(golden_plan, layout="NHWC"), plain.transpose(0, 2, 3, 1))


def test_range(golden_plan: Path, plain: np.ndarray) -> None:
    np.testing.assert_allclose(images(golden_plan, range=(0, 1)), plain / 2 + 0.5, atol=1e-6)


def test_normalize_is_that_of_images_in_zero_to_one(golden_plan: Path, plain: np.ndarray) -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    expected = (plain / 2 + 0.5 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    np.testing.assert_allclose(images(golden_plan, normalize=(mean, std)), expected, atol=2e-6)


def test_uint8_is_rounded_to_nearest(golden_plan: Path, plain: np.ndarray) -> None:
    found = images(golden_plan, dtype="uint8")
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, np.rint(plain * np.float32(127.5) + np.float32(127.5)))


def test_float16_is_rounded_to_nearest(golden_plan: Path, plain: np.ndarray) -> None:
    np.testing.assert_array_equal(images(golden_plan, dtype="float16"), plain.astype(np.float16))


def test_bfloat16_leaves_by_dlpack_and_is_an_error_as_numpy(golden_plan: Path, plain: np.ndarray) -> None:
    found = images(golden_plan, dtype="bfloat16")
    assert isinstance(found, BFloat16Array)
    assert torch.equal(torch.from_dlpack(found), torch.from_numpy(plain).to(torch.bfloat16))
    with pytest.raises(TypeError, match=r"dtype is bfloat16, expected one that NumPy has\. Use batch\.torch"):
        np.asarray(found)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "uint8"])
def test_torch_shares_memory(golden_plan: Path, dtype: str) -> None:
    batch = Generator(golden_plan, dtype=dtype).sample(4, seed=2, parts=True, pool=3)
    shared = batch.torch()
    assert shared.images.dtype == getattr(torch, dtype)
    bits = batch.images.bits if dtype == "bfloat16" else batch.images
    assert shared.images.data_ptr() == bits.ctypes.data
    assert shared.labels.shape.dtype == torch.int64
    assert shared.mask.data_ptr() == batch.mask.ctypes.data
    assert shared.index.dtype == torch.int32


def test_torch_is_missing(golden_plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = Generator(golden_plan).sample(2, seed=2)
    monkeypatch.setitem(sys.modules, "torch", None)
    message = r"batch\.torch: package 'torch' is not installed\. Run: pip install 'cgnrt\[torch\]'"
    for convert in (batch.torch, lambda: batch.to("cpu")):
        with pytest.raises(MissingDependencyError, match=message):
            convert()


def test_torch_tensor_as_out(golden_plan: Path, plain: np.ndarray) -> None:
    out = torch.empty(20, 3, 8, 8, dtype=torch.bfloat16)
    batch = Generator(golden_plan, dtype="bfloat16").sample(20, seed=2, out=out)
    assert batch.images is out
    assert batch.torch().images is out
    assert torch.equal(out, torch.from_numpy(plain).to(torch.bfloat16))


def test_uint16_memory_as_out_holds_bfloat16(golden_plan: Path, plain: np.ndarray) -> None:
    out = np.empty((20, 3, 8, 8), np.uint16)
    images = Generator(golden_plan, dtype="bfloat16").sample(20, seed=2, out=out).images
    assert images.bits is out
    assert torch.equal(torch.from_dlpack(images), torch.from_numpy(plain).to(torch.bfloat16))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float64"}, "dtype is 'float64', expected one of float32"),
        ({"layout": "HWC"}, "layout is 'HWC', expected one of NCHW, NHWC"),
        ({"range": (1, 0)}, r"range is \(1, 0\), expected \(low, high\) with low < high"),
        ({"range": (0, 1), "normalize": ((0,) * 3, (1,) * 3)}, "both range and normalize"),
        ({"dtype": "uint8", "range": (0, 1)}, "dtype is uint8 beside a range"),
        ({"normalize": ((0.5,), (1,) * 3)}, r"normalize mean is \(0.5,\), expected 3 finite numbers"),
        ({"normalize": ((0.5,) * 3, (1, 0, 1))}, "normalize std is .* expected positive numbers"),
        ({"normalize": ((0.5,) * 3,)}, r"normalize has 1 parts, expected \(mean, std\)"),
        ({"threads": 0}, "threads is 0, expected an int of at least 1"),
    ],
)
def test_bad_output_options(golden_plan: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Generator(golden_plan, **options)
