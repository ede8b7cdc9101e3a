"""A plan whose shape mechanism also gives its picture before the saliency head, as the ImageNet CGN's (Fig. 2)."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from cgnrt import BackendError, Generator
from cgnrt.plan import write_plan
from cgnrt.render.host import HostDevice

from .conftest import ENGINE_TOLERANCE

# pre_mask = FACTOR * the logits of the mask, so that one follows from the other.
FACTOR = np.array([1, -2, 0.5], np.float32).reshape(1, 3, 1, 1)


@pytest.fixture(scope="module", params=[1, 3])
def channels(request: pytest.FixtureRequest) -> int:
    """The format allows a pre_mask of one channel or of three."""
    return int(request.param)


@pytest.fixture(scope="module")
def pre_mask_plan(make_golden: ModuleType, channels: int, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden plan with a second output of the shape mechanism."""
    manifest, members = make_golden.make_plan()
    model = onnx.load_model_from_string(members["mechanisms/shape.onnx"])
    model.graph.initializer.append(
        helper.make_tensor("factor", TensorProto.FLOAT, [1, channels, 1, 1], FACTOR[0, :channels].ravel())
    )
    model.graph.node.append(helper.make_node("Mul", ["logits", "factor"], ["pre_mask"]))
    shape = ["n", channels, 8, 8]
    model.graph.output.append(helper.make_tensor_value_info("pre_mask", TensorProto.FLOAT, shape))
    members["mechanisms/shape.onnx"] = model.SerializeToString(deterministic=True)
    outputs = manifest["mechanisms"]["shape"]["outputs"]
    outputs.append({"name": "pre_mask", "shape": shape, "dtype": "float32"})
    path = tmp_path_factory.mktemp("plans") / "pre_mask.plan"
    write_plan(path, manifest, members)
    return path


def test_parts_have_the_pre_mask(pre_mask_plan: Path, channels: int, backend: str) -> None:
    batch = Generator(pre_mask_plan, backend=backend).sample(300, seed=3, parts=True)  # several chunks
    assert batch.pre_mask.shape == (300, channels, 8, 8)
    assert batch.pre_mask.dtype == np.float32
    logits = batch.pre_mask / FACTOR[:, :channels]
    np.testing.assert_allclose(1 / (1 + np.exp(-logits[:, :1])), batch.mask, atol=ENGINE_TOLERANCE)
    np.testing.assert_allclose(logits, np.repeat(logits[:, :1], channels, 1), atol=ENGINE_TOLERANCE)
    assert np.ptp(batch.pre_mask) > 1


def test_a_pre_mask_changes_no_image(pre_mask_plan: Path, golden_plan: Path, backend: str) -> None:
    with_it = Generator(pre_mask_plan, backend=backend).sample(9, seed=3)
    without = Generator(golden_plan, backend=backend).sample(9, seed=3)
    np.testing.assert_allclose(with_it.images, without.images, atol=ENGINE_TOLERANCE)


def test_a_pool_has_it_for_those_who_ask(pre_mask_plan: Path, backend: str) -> None:
    gen = Generator(pre_mask_plan, backend=backend)
    assert gen.sample(4, seed=3, pool=(5, 3, 2)).pre_mask is None
    pooled = gen.sample(40, seed=3, pool=(5, 3, 2), parts=True)
    stream = gen.sample(5, seed=3, parts=True)
    assert pooled.index is not None
    for found, expected in ((pooled.pre_mask, stream.pre_mask), (pooled.mask, stream.mask)):
        np.testing.assert_allclose(found, expected[pooled.index[:, 0]], atol=10 * ENGINE_TOLERANCE)
    np.testing.assert_array_equal(gen.sample(40, seed=3, pool=(5, 3, 2)).images, pooled.images)


def test_a_pool_keeps_it_only_when_asked_and_runs_one_mechanism_for_it(
    pre_mask_plan: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    run = HostDevice.run

    def spy(self: HostDevice, name: str, *inputs: Any) -> dict[str, np.ndarray]:
        ran.append(name)
        return run(self, name, *inputs)

    monkeypatch.setattr(HostDevice, "run", spy)
    gen = Generator(pre_mask_plan, backend=backend)
    plain = gen.sample(9, seed=3, pool=4)
    kept = gen._pipeline.renderer._pool
    assert kept is not None
    assert set(kept.pictures) == {"mask", "foreground", "background"}
    assert ran == ["shape", "texture", "background"]
    ran.clear()
    with_parts = gen.sample(9, seed=3, pool=4, parts=True)
    assert ran == ["shape"]
    gen.sample(9, seed=3, pool=4)
    gen.sample(9, seed=3, pool=4, parts=True)
    assert ran == ["shape"]
    np.testing.assert_array_equal(plain.images, with_parts.images)


def test_no_samples_have_an_empty_pre_mask(pre_mask_plan: Path, channels: int) -> None:
    for pool in (None, 3):
        batch = Generator(pre_mask_plan).sample(0, seed=3, parts=True, pool=pool)
        assert batch.pre_mask.shape == (0, channels, 8, 8)


def test_interpolation_and_torch_pass_it_on(pre_mask_plan: Path, channels: int) -> None:
    gen = Generator(pre_mask_plan)
    frames = gen.interpolate(5, seed=3, start=2, end=7, parts=True)
    ends = gen.sample(indices=[2, 7], seed=3, parts=True)
    np.testing.assert_allclose(frames.pre_mask[[0, -1]], ends.pre_mask, atol=10 * ENGINE_TOLERANCE)
    assert ends.torch().pre_mask.shape == (2, channels, 8, 8)


def test_the_native_engine_refuses_it(pre_mask_plan: Path) -> None:
    with pytest.raises(
        BackendError,
        match="mechanism 'shape': the native engine for small generators does not support graphs with more than one",
    ):
        Generator(pre_mask_plan, backend="native")
