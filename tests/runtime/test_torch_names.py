"""What users of torch write: its dtypes and devices as arguments, `batch.to`, and batches that print shortly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cgnrt import Batch, Generator


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        (torch.float16, "float16"),
        (torch.bfloat16, "bfloat16"),
        (torch.uint8, "uint8"),
        (np.float16, "float16"),
        (np.dtype("float32"), "float32"),
        ("uint8", "uint8"),
    ],
)
def test_dtypes_of_torch_and_numpy(golden_plan: Path, dtype: Any, name: str) -> None:
    gen = Generator(golden_plan, dtype=dtype)
    assert gen.dtype == name
    assert gen.sample(2, seed=0).torch().images.dtype == getattr(torch, name)
    assert Generator(golden_plan).with_pixels(dtype, "NCHW").dtype == name


@pytest.mark.parametrize("device", [torch.device("cpu"), torch.device("cpu", 0), "cpu"])
def test_devices_of_torch(golden_plan: Path, device: Any) -> None:
    assert Generator(golden_plan, device=device).device == "cpu"


@pytest.mark.parametrize(
    ("error", "options", "message"),
    [
        (ValueError, {"dtype": torch.float64}, "dtype is 'float64', expected one of float32, .*"),
        (ValueError, {"dtype": np.dtype(">f4")}, "dtype is '>f4', expected one of float32"),
        (ValueError, {"dtype": "flaot16"}, r"Did you mean 'float16'\?"),
        (TypeError, {"dtype": float}, r"dtype is <class 'float'>, expected a name such as 'float32'"),
        (
            ValueError,
            {"device": torch.device("meta")},
            r"device is 'meta', .*, or a GPU with its index, such as",
        ),
    ],
)
def test_names_that_are_refused(
    golden_plan: Path, error: type[Exception], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(error, match=f"^load: .*{message}"):
        Generator(golden_plan, **options)


@pytest.mark.parametrize("pool", [None, 3])
def test_a_batch_goes_to_a_device(golden_plan: Path, pool: int | None) -> None:
    batch = Generator(golden_plan).sample(5, seed=2, pool=pool, parts=True)
    there = batch.to(torch.device("cpu"))
    assert torch.equal(there.images, torch.from_numpy(batch.images))
    assert there.images.data_ptr() == batch.images.ctypes.data
    moved = batch.to("meta")
    assert isinstance(moved, Batch)
    assert len(moved) == 5
    tensors = [moved.images, *moved.labels, moved.indices, moved.mask, moved.foreground, moved.background]
    if pool:
        tensors.append(moved.index)
    assert {str(tensor.device) for tensor in tensors} == {"meta"}
    assert moved.pre_mask is None
    assert moved.seed == 2


def test_a_batch_prints_in_one_line(golden_plan: Path) -> None:
    gen = Generator(golden_plan, dtype="bfloat16")
    batch = gen.sample(5, seed=2)
    assert repr(batch) == "Batch(images=(5, 3, 8, 8) bfloat16, seed=2)"
    assert repr(batch.to("meta")) == "Batch(images=(5, 3, 8, 8) bfloat16 on meta, seed=2)"
    assert repr(batch.torch()) == repr(batch)
    whole = Generator(golden_plan).sample(0, seed=2, parts=True)
    assert repr(whole) == "Batch(images=(0, 3, 8, 8) float32, seed=2, parts=mask+foreground+background)"


def test_far_too_many_images_say_what_they_need(golden_plan: Path) -> None:
    count = 10**13  # of 8 x 8 pixels
    with pytest.raises(
        MemoryError,
        match=r"sample: 10000000000000 images need 7,152,557\.4 GiB \(7,680,000,000,000,000 bytes\) at once, .* Use "
        r"Generator\.batches or Generator\.stream, .* cgnrt generate writes files\.",
    ):
        Generator(golden_plan).sample(count)
