"""A small ImageNet-like plan (golden/make_small_cgn.py) on the engine of deep networks, against torch's pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cgnrt import Generator, Plan
from cgnrt.backends.native import examine
from cgnrt.backends.native.deep import NativeDeepEngine

# Of a picture, as of every plan; found are a few 1e-6.
TOLERANCE = 1e-4
FOLDER = Path(__file__).parent / "golden"
PLAN = FOLDER / "small_cgn.plan"


@pytest.mark.parametrize("name", ["shape", "texture", "background"])
def test_mechanisms_are_torchs(name: str) -> None:
    with np.load(FOLDER / "small_cgn.npz") as file:
        arrays = dict(file)
    with Plan.open(PLAN) as plan:
        mechanism = plan.mechanisms[name]
        engine = examine(mechanism).load(1)
        assert isinstance(engine, NativeDeepEngine)
        assert {"start", "conv", "up_conv", "attention"} <= set(engine.steps)
        for images in (slice(0, 3), slice(1, 2)):
            found = engine.run({spec.name: arrays[spec.name][images] for spec in mechanism.spec.inputs})
            assert list(found) == [spec.name for spec in mechanism.spec.outputs]
            for key, picture in found.items():
                np.testing.assert_allclose(picture, arrays[key][images], rtol=0, atol=TOLERANCE, err_msg=key)
                assert picture.std() > 0.05  # a picture, not a constant


def test_a_generator_takes_it_of_its_own_accord() -> None:
    gen = Generator(PLAN)
    assert gen.backend == "native"
    batch = gen.sample(4, seed=1, parts=True)
    assert batch.images.shape == (4, 3, 8, 8)
    its = Generator(PLAN, backend="onnxruntime", precision="fp32").sample(4, seed=1, parts=True)
    for name in ("mask", "foreground", "background", "images"):
        np.testing.assert_allclose(getattr(batch, name), getattr(its, name), rtol=0, atol=TOLERANCE)
