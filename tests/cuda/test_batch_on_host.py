"""A batch of the device, taken to the host."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest

from cgnrt.batch import Batch
from cgnrt.render.cuda import CudaColumns
from cgnrt.sampling import Labels


def batch(images: Any, stream: Any, **parts: Any) -> Batch:
    labels = Labels(*np.arange(6).reshape(3, 2))
    there = CudaColumns((None, None, None), None, None, None, stream)
    return Batch(images, labels, 3, np.arange(2), on_device=there, **parts)


def test_pictures_are_fetched(emulated: ModuleType) -> None:
    stream = emulated.Stream(0)
    pictures = {}
    for name, value in (("images", 1.5), ("mask", 0.25)):
        source = emulated.DeviceArray.empty((2, 3), "float32", stream)
        source.upload(np.full((2, 3), value, np.float32))
        pictures[name] = emulated.DeviceArray.empty((2, 3), "float32", stream)
        emulated.copy(source, pictures[name], stream)
    there = batch(pictures["images"], stream, mask=pictures["mask"])
    here = there.numpy()
    np.testing.assert_array_equal(here.images, np.full((2, 3), 1.5, np.float32))
    np.testing.assert_array_equal(here.mask, np.full((2, 3), 0.25, np.float32))
    assert here.foreground is None
    assert here.on_device is None
    assert here.numpy() is here
    assert there.on_device is not None


def test_what_numpy_has_no_type_for(emulated: ModuleType) -> None:
    stream = emulated.Stream(0)
    images = emulated.DeviceArray.empty((2, 3), "bfloat16", stream)
    with pytest.raises(
        TypeError, match=r"batch.numpy: images are bfloat16, expected memory of cgnrt that NumPy"
    ):
        batch(images, stream).numpy()
    with pytest.raises(TypeError, match=r"batch.numpy: images are float32"):
        batch(np.zeros((2, 3), np.float32), stream).numpy()
