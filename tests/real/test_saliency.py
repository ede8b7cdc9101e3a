"""`Saliency` on a plan: how photos go in and masks come out. The networks themselves: tests/export."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cgnrt.errors import BackendError, PlanError
from cgnrt.plan import SaliencyPlan, external_initializers, write_plan
from cgnrt.real import Saliency


@pytest.fixture(params=["native", "openvino", "onnxruntime"])
def saliency(request: pytest.FixtureRequest, golden_saliency_plan: Path) -> Saliency:
    return Saliency(golden_saliency_plan, backend=request.param, threads=1)


def golden_masks(plan: SaliencyPlan, inputs: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The golden network in NumPy: a sigmoid of one 3x3 convolution."""
    piece = external_initializers(plan.network.model)[0]
    weights = plan.network.weights
    assert weights is not None
    kernel = np.frombuffer(weights, "<f4", 27, piece.offset).reshape(3, 3, 3)
    padded = np.pad(inputs, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    return 1 / (1 + np.exp(-np.einsum("nchwyx,cyx->nhw", windows, kernel)))


def test_photos_of_the_plans_size(saliency: Saliency) -> None:
    """No scaling: division by the maximum, mean and standard deviation, the network, the stretch."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 200, (6, 8, 8, 3)).astype(np.uint8)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    scaled = images / images.reshape(6, -1).max(1)[:, None, None, None]
    expected = golden_masks(saliency.plan, ((scaled - mean) / std).transpose(0, 3, 1, 2))
    low, high = expected.min((1, 2), keepdims=True), expected.max((1, 2), keepdims=True)
    masks = saliency(images)
    assert (masks.shape, masks.dtype) == ((6, 1, 8, 8), np.float32)
    np.testing.assert_allclose(masks[:, 0], (expected - low) / (high - low), rtol=0, atol=1e-5)
    np.testing.assert_array_equal(saliency(images.transpose(0, 3, 1, 2)), masks)
    # As floats in [0, 1], and as doubles: divided by their maximum all the same.
    np.testing.assert_allclose(saliency(images / 255), masks, atol=1e-5)


def test_photos_of_other_sizes_are_scaled_and_masks_back(saliency: Saliency) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (1, 24, 16, 3)).astype(np.uint8)
    planes = [Image.fromarray(images[0, ..., c].astype(np.float32)) for c in range(3)]
    small = np.stack([np.asarray(p.resize((8, 8), Image.Resampling.BILINEAR)) for p in planes])
    # The network's view of the photo, as another photo of floats.
    inner = saliency((small / 255)[None].astype(np.float32))[0, 0]
    expected = np.asarray(Image.fromarray(inner).resize((16, 24), Image.Resampling.BILINEAR))
    masks = saliency(images)
    assert masks.shape == (1, 1, 24, 16)
    np.testing.assert_allclose(masks[0, 0], expected, rtol=0, atol=1e-4)


def test_a_black_photo_has_no_object_but_an_edge(saliency: Saliency) -> None:
    """Nothing to divide by, and no NaN comes of it."""
    masks = saliency(np.zeros((2, 8, 8, 3), np.uint8))
    assert np.isfinite(masks).all()
    assert (masks.min(), masks.max()) == (0, 1)  # the padding of the convolution shows, and is stretched
    assert saliency(np.zeros((0, 3, 8, 8), np.uint8)).shape == (0, 1, 8, 8)


def test_what_the_plan_says_is_done(golden_saliency_plan: Path, tmp_path: Path) -> None:
    with SaliencyPlan.open(golden_saliency_plan) as plan:
        manifest = plan.manifest.to_dict()
        members = {name: bytes(plan.member(name)) for name in plan.members}
    manifest["saliency"] |= {"divide_by": "range", "mean": [0, 0, 0], "std": [1, 1, 1], "stretch": False}
    write_plan(tmp_path / "plain.plan", manifest, members)
    saliency = Saliency(tmp_path / "plain.plan", threads=1)
    images = np.random.default_rng(0).integers(0, 100, (3, 3, 8, 8)).astype(np.uint8)
    expected = golden_masks(saliency.plan, images / 255)
    np.testing.assert_allclose(saliency(images)[:, 0], expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(saliency(images / np.float32(255))[:, 0], expected, rtol=0, atol=1e-6)


def test_it_pickles_by_path_and_digest(saliency: Saliency) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8)).astype(np.uint8)
    again = pickle.loads(pickle.dumps(saliency))
    assert (again.backend, again.plan.digest) == (saliency.backend, saliency.plan.digest)
    np.testing.assert_array_equal(again(images), saliency(images))
    assert saliency.backend in repr(saliency)


def test_another_file_under_its_name_is_noticed(golden_saliency_plan: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.plan"
    path.write_bytes(golden_saliency_plan.read_bytes())
    pickled = pickle.dumps(Saliency(path, threads=1))
    with SaliencyPlan.open(path) as plan:
        members = {name: bytes(plan.member(name)) for name in plan.members}
        manifest = plan.manifest.to_dict() | {"family": "another"}
    write_plan(path, manifest, members, force=True)
    with pytest.raises(
        PlanError, match=r"digest is [0-9a-f]{12}, expected [0-9a-f]{12}\. The file was replaced"
    ):
        pickle.loads(pickled)


def test_bad_arguments(golden_plan: Path, golden_saliency_plan: Path) -> None:
    with pytest.raises(PlanError, match=r"kind is 'cgn', expected 'saliency'"):
        Saliency(golden_plan)
    with pytest.raises(PlanError, match="file is missing"):
        Saliency("missing.plan")
    with pytest.raises(ValueError, match="threads is 0, expected an int of at least 1"):
        Saliency(golden_saliency_plan, threads=0)
    with pytest.raises(ValueError, match="backend is 'nothing', expected 'auto' or one of"):
        Saliency(golden_saliency_plan, backend="nothing")
    with pytest.raises(BackendError, match="no engine can run it as asked: bf16 on onnxruntime: "):
        Saliency(golden_saliency_plan, backend="onnxruntime", precision="bf16")
    saliency = Saliency(golden_saliency_plan, threads=1)
    with pytest.raises(ValueError, match=r"saliency images: images\[0, 0, 0, 0\] is nan, expected 0\.\.1"):
        saliency(np.full((1, 3, 8, 8), np.nan, np.float32))
    with pytest.raises(ValueError, match=r"saliency images: shape is \(3, 8, 8\), expected \(n, 3, h, w\)"):
        saliency(np.zeros((3, 8, 8), np.uint8))
    with pytest.raises(TypeError, match="saliency images: dtype is int64, expected uint8 or floats"):
        saliency(np.zeros((1, 3, 8, 8), np.int64))
